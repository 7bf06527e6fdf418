"""Files that look like secrets: they go into no diff, no snapshot and no tracking store.

Nor does the password of a URL go into any file, message or page.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

NAMES = (
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".htpasswd",
    "kaggle.json",
    "client_secret*.json",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.gpg",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*service?account*",
    "*serviceaccount*",
    "*credential*",
    "*secret*",
    "*password*",
    "*passwd*",
    "*api?key*",
    "*apikey*",
    "*.token",
    "token",
    "token.*",
    "*_token",
    "*_token.*",
    "access?token*",
    "hf_token*",
    ".vault*",
)
"""Names, in any case; a folder of such a name is not looked into."""

FOLDERS = (".ssh", ".aws", ".gnupg", ".kube", ".azure", ".gcloud", ".docker", ".config")

_INSIDE = (b"PRIVATE KEY" + 5 * b"-", b'"private_%s"' % b"key")  # this file itself holds none
_SMALL = 2**20  # bytes: a key is no larger


def looks_secret(name: str) -> bool:
    """Whether the name of a file, or of a folder that it lies in, is that of a secret."""
    parts = [part.lower() for part in Path(name).parts]
    return any(part in FOLDERS or any(fnmatch(part, n) for n in NAMES) for part in parts)


def holds_a_key(file: Path) -> bool:
    """Whether a small file has a private key in it."""
    return file.stat().st_size <= _SMALL and has_a_key(file.read_bytes())


HIDDEN = "***"
"""Stands where a password was."""

_IN_ADDRESS = re.compile(r"(://[^\s:/?#@]*):(?:(?!://)[^\s\"'])*@")
_IN_QUERY = re.compile(r"([?&][\w.-]*(?:password|passwd|pwd|token|secret)=)[^&#\s\"']+", re.I)


def without_passwords(text: str) -> str:
    """A text with `***` for the password of each URL: `https://me:***@host`, `?password=***`.

    It may stand anywhere in the text: a command line, an error of a library, a line of a log.
    """
    if "://" not in text:
        return text
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text))


def without_user(address: str) -> str:
    """An address without who it is asked as: `https://me:secret@host` is `https://host`."""
    return re.sub(r"^([\w+.-]+://)[^/?#\s]*@", r"\1", without_passwords(address))


def has_a_key(content: bytes) -> bool:
    """Whether a private key stands in a text."""
    return any(mark in content for mark in _INSIDE)
