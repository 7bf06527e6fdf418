"""Safe writes: a file is replaced as a whole, or stays as it was.

The new content is written beside the file and renamed, so that neither a reader nor a power cut
leaves half of it. A full disk, or a quota that is used up, is one error that names the file and
what to do.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from keyseg.runs.private_files import without_passwords

_ROOM = 2**20  # bytes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(OSError):
    """There is no room for a file; the message names it, the reason, and the remedy."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.strerror}: {self.path} could not be written; make room there and give the same "
            "command again: what is finished stays finished, the rest goes on from its checkpoint"
        )


def read_only(error: OSError) -> bool:
    """Whether it says that we may look, and not write: somebody else's files, or an archive."""
    return isinstance(error, PermissionError) or error.errno == errno.EROFS


def seen_locked(file: Path) -> bool:
    """Whether a process holds a lock file, for somebody who may read it, but not write to it.

    Raises:
        OSError: they may not even read it.
    """
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever the body raises because there is no room for `path` becomes one clear error.

    Raises:
        DiskFullError: the disk is full, a quota or the largest size of a file is reached.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        number = _number(error)
        if number in _FULL:
            raise DiskFullError(path, number) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the body ends well.

    Raises:
        DiskFullError: there is no room for it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with explained(path):
            with temporary.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def replace(path: Path, content: bytes) -> None:
    """Write a whole file.

    Raises:
        DiskFullError: there is no room for it.
    """
    with replacing(path) as out:
        out.write(content)


def json_text(content: Any, indent: int | None = None) -> str:
    """A value as JSON that every reader takes, and everybody may read.

    NaN and infinity, which JSON has not, are null; what JSON has no form for is its text; the
    password of a URL is `***`.
    """
    return json.dumps(_publishable(content), indent=indent, default=str, allow_nan=False)


def _publishable(value: Any) -> Any:
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _publishable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_publishable(inner) for inner in value]
    return value


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file: all of it, or nothing.

    Raises:
        DiskFullError: there is no room for it.
    """
    with explained(path), path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def flush(path: Path) -> None:
    """What was added to a file outlives the machine from now on."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_full(folder: Path) -> bool:
    """Whether the file system of a folder has no room to speak of: less than a MiB."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False


def sha256(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(text: str) -> str:
    """A text as the name of a file: as it is, or with a hash that tells it from others like it."""
    plain = re.sub(r"[^\w+=.@-]+", "-", text)[:80]
    if plain == text:
        return text
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left in a folder that no other process writes to."""
    for file in folder.glob(".*.*.*"):
        if re.search(r"\.\d+\.\d+$", file.name):
            file.unlink(missing_ok=True)


def _number(error: BaseException) -> int | None:
    """errno of an error, or of the one behind it: torch and safetensors hide it."""
    while True:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        number = re.search(r"os error (\d+)", str(error))
        if number:
            return int(number[1])
        before = error.__cause__ or error.__context__
        if before is None:
            return None
        error = before
