"""Files that look like secrets: they go into no diff, no snapshot and no tracking store.

By name or by content. Neither can know every secret (docs/security.md says what is looked for).
Nor does the password of an address go into any file, message or page.
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

_WHOSE = (
    "access|admin|anthropic|aws|azure|bucket|client|cloud|comet|database|db|deploy|encryption|gcp|"
    "gcs|git|github|gitlab|google|hf|host|huggingface|ldap|login|master|mlflow|mongo|mysql|neptune|"
    "openai|pg|postgres|private|redis|root|s3|server|sftp|slack|sql|ssh|sudo|user|wandb"
)
_KEY_OF = re.compile(
    rf"(?:^|[-_.])(?:{_WHOSE})[-_.]?(?:key|keys|pass|pw|pwd|creds?|auth)(?:[-_.]|$)"
)
"""wandb_key.py, gcp-key.json, db_pass.yaml; not fusion/random_key.yaml, which is a variant."""
_PASS = re.compile(r"(?:^|[-_.])(?:creds|passphrase|pwd|passwort)(?:[-_.]|$)")

_SMALL = 2**20  # bytes: a key is no larger

_MARKS = tuple(
    re.compile(pattern)  # each begins with a letter of its own, which makes the search fast
    for pattern in (
        rb"PRIVATE KEY-{5}",
        rb"private_[k]ey[\"']\s*:",
        rb"type[\"']\s*:\s*[\"']service_account",
        rb"A(?:KIA|SIA)[0-9A-Z]{16}",  # Amazon
        rb"AIza[\w-]{35}",  # Google
        rb"gh[opsur]_\w{36}",
        rb"github_pat_\w{20}",
        rb"glpat-[\w-]{20}",
        rb"hf_[A-Za-z0-9]{30}",
        rb"sk-[\w-]{20}",  # OpenAI, Anthropic
        rb"xox[abprs]-[\w-]{10}",  # Slack
        rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.",  # a web token
        rb"://[^\s/:@\"'{}<>$*]+:(?!pass|secret|\*)[^\s/:@\"'{}<>$*]{3,}@\w",  # in a URL
    )
)
"""What is a secret wherever it stands; this file itself holds none of it."""

_WORDS = (
    rb"passw(?:or)?d",
    rb"passwort",
    rb"passphrase",
    rb"pwd",
    rb"secret",
    rb"api[-_]?key",
    rb"access[-_]?key",
    rb"(?:access|api|auth|bot|github|gitlab|hf|refresh|wandb)[-_]token",
)
_VALUE = rb"(?!null|none|true|false|\?\?\?|[$<*%{(]|\.\.\.)"
_QUOTED = tuple(
    re.compile(word + rb"[\"']?\s*[:=]\s*[\"']" + _VALUE + rb"[^\"'\s]{4,}[\"']") for word in _WORDS
)
"""A name and a text. Of lower case."""
_PLAIN = tuple(
    re.compile(
        word + rb"[\"']?[ \t]*[:=][ \t]*" + _VALUE + rb"[^\s#,}\]\"']{4,}[ \t]*(?=[,}\]#\r\n]|\Z)"
    )
    for word in _WORDS
)
"""A name and a word, as in YAML. Of lower case."""


def looks_secret(name: str) -> bool:
    """Whether the name of a file, or of a folder that it lies in, is that of a secret."""
    parts = [part.lower() for part in Path(name).parts]
    return any(part in FOLDERS or _names_one(part) for part in parts)


def holds_a_secret(file: Path) -> bool:
    """Whether a small file has a key, a password or a token in it, or may not be read at all."""
    try:
        return file.stat().st_size <= _SMALL and has_a_secret(file.read_bytes(), file.name)
    except PermissionError:
        return True


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


def has_a_secret(content: bytes, name: str) -> bool:
    """Whether a key, a password or a token stands in the text of a file of this name."""
    patterns = _QUOTED if Path(name).suffix in _CODE else (*_QUOTED, *_PLAIN)
    text = content.lower()
    return any(mark.search(content) for mark in _MARKS) or any(p.search(text) for p in patterns)


_CODE = (".py", ".js", ".css", ".j2")
"""Where a word after a name is no text but a name, too."""


def _names_one(part: str) -> bool:
    known = any(fnmatch(part, pattern) for pattern in NAMES)
    return known or bool(_KEY_OF.search(part) or _PASS.search(part))
