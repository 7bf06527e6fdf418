"""An archive of files with a list of their hashes; one of somebody else is unpacked with care.

A name in it may not lead out of the folder it is unpacked to, nothing but plain files is taken, and
no more bytes are written than the caller allows, whatever the archive says of itself.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from keyseg.runs import disk

LIST_FILE = "LIST_FILE.json"
MOST_BYTES = 8 * 2**30
"""Bytes that an archive may unpack to."""
_MOST_FILES = 200_000
_CHUNK = 1 << 20
_NAME = re.compile(r"[\w+=.@ -]+")


class ArchiveError(ValueError):
    """The archive cannot be used; the message says why."""


def pack(target: Path, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
    """Write an archive of `files` (name in it -> file) with its list.

    `about`: what else the list says.

    Raises:
        DiskFullError: there is no room for it.
    """
    listed = {}
    with disk.replacing(target) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            archive.write(file, name)
            listed[name] = {"sha256": disk.sha256(file), "bytes": file.stat().st_size}
        archive.writestr(LIST_FILE, json.dumps({**about, "files": listed}, indent=1))


def unpack(source: Path, folder: Path, largest: int = MOST_BYTES) -> dict[str, Any]:
    """Unpack an archive to an empty folder and return its list.

    Raises:
        ArchiveError: it is none, holds a name that leads elsewhere, or more than may be unpacked.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_FILES:
                raise ArchiveError(f"{source} holds {len(entries)} files; at most {_MOST_FILES}")
            seen: set[str] = set()
            room = largest
            for entry in entries:
                _check(source, entry, seen)
                room -= _write(source, archive, entry, folder, room)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, disk.DiskFullError | FileNotFoundError):
            raise
        raise ArchiveError(f"{source} cannot be unpacked: {error}") from error
    try:
        listed: Any = json.loads((folder / LIST_FILE).read_bytes())
        files = {str(n): str(e["sha256"]) for n, e in listed["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArchiveError(f"{source} has no list of its files ({LIST_FILE}): {error}") from error
    return {**listed, "files": files}


def differences(folder: Path, listed: Mapping[str, str]) -> list[str]:
    """Files that are not what the list says, a line each."""
    there = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    there -= {LIST_FILE}
    out = [f"{name}: listed, not there" for name in sorted({*listed} - there)]
    out += [f"{name}: there, not listed" for name in sorted(there - {*listed})]
    same = ((n, disk.sha256(folder / n) == listed[n]) for n in sorted(there & {*listed}))
    return out + [f"{name}: not the file that was listed" for name, is_same in same if not is_same]


def _check(source: Path, entry: zipfile.ZipInfo, seen: set[str]) -> None:
    name = entry.filename
    parts = PurePosixPath(name).parts
    plain = all(_NAME.fullmatch(part) and part not in (".", "..") for part in parts)
    if not plain or name != "/".join(parts):
        raise ArchiveError(f"{source} holds {name!r}: no name that is unpacked")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ArchiveError(f"{source}: {name} is no plain file")
    if name.lower() in seen:
        raise ArchiveError(f"{source} holds {name} twice")
    seen.add(name.lower())


def _write(
    source: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, room: int
) -> int:
    """Unpack a file; its bytes, which are counted as they come."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as content, target.open("xb") as out, disk.explained(target):
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            if written > room:
                raise ArchiveError(
                    f"{source} unpacks to more than may be unpacked (--gib): {entry.filename}"
                )
            out.write(chunk)
    return written
