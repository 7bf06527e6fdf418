"""What every reader does with files: find them, parse them, and say clearly what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """Data on disk or the config that names it is wrong; the message names the file and remedy."""


def require(path: Path, what: str, page: str) -> Path:
    """Return `path` if it exists.

    Raises:
        DataError: it does not; the message shows the nearest folder that does, what lies in it,
            and the public page of the data.
    """
    if path.exists():
        return path
    parent = next(p for p in path.parents if p.exists())
    found = sorted(p.name for p in parent.iterdir() if not p.name.startswith("."))
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") or "nothing"
    raise DataError(f"{what} is missing: {path}. {parent} holds {shown}. Public page: {page}")


def read_json(path: Path) -> Any:
    """Parse a JSON file in UTF-8, or in cp1252, which some ReasonSeg files are written in.

    Raises:
        DataError: the file is not JSON in either encoding.
    """
    raw = path.read_bytes()
    try:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252")
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}): download it again") from error


def check_images(images: Iterable[Path], page: str) -> None:
    """One error for all images that are listed and not on disk.

    Folders are listed once: a look at every one of 17,000 files is slow on a network disk.

    Raises:
        DataError: with the count and the first three names.
    """
    listed: dict[Path, set[str]] = {}
    missing: list[Path] = []
    wanted = dict.fromkeys(images)
    for image in wanted:
        folder = image.parent
        if folder not in listed:
            listed[folder] = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        if image.name not in listed[folder]:
            missing.append(image)
    if missing:
        names = ", ".join(image.name for image in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise DataError(
            f"{len(missing)} of {len(wanted)} images are missing in {missing[0].parent}: "
            f"{names}{more}. Public page: {page}"
        )
