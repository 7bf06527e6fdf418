"""What every reader does with files: find them, parse them, and say clearly what is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")


class DataError(ValueError):
    """Data on disk or the config that names it is wrong; the message names the file and remedy.

    `kind`: one of the kinds below; what `keyseg data check` counts.
    """

    def __init__(self, message: str, kind: str = "damaged") -> None:
        super().__init__(message)
        self.kind = kind


ABSENT, IMAGE, UNANNOTATED = "absent", "missing image", "without annotation"
"""Kinds of error: a file or folder that everything needs, one image, one target's annotation."""

Problems = list[DataError]
"""What a reader that is given such a list puts into it, instead of stopping at the first one."""


@contextmanager
def collecting(problems: Problems | None) -> Iterator[None]:
    """A `DataError` inside goes into the list and ends the block; without a list it is raised."""
    try:
        yield
    except DataError as error:
        if problems is None or error.kind == ABSENT:
            raise
        problems.append(error)


def require(path: Path, what: str, page: str) -> Path:
    """Return `path` if it exists.

    Raises:
        DataError: it does not; the message shows the nearest folder that does, what lies in it,
            and the public page of the data.
    """
    if path.exists():
        return path
    parent = next(p for p in path.parents if p.exists())
    names = sorted(p.name for p in parent.iterdir() if not p.name.startswith("."))
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
    raise DataError(
        f"{what} is missing: {path}. {parent} holds {shown}. Public page: {page}", ABSENT
    )


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


_KEPT = 4
"""Files of which `parsed` keeps the content: those of one data set. A large one takes 0.5 GB."""

_memory: ContextVar[OrderedDict[Any, Any] | None] = ContextVar("parsed", default=None)


@contextmanager
def parsing_once() -> Iterator[None]:
    """Inside, a file is parsed once however many splits and readers ask for it (see `parsed`)."""
    if _memory.get() is not None:
        yield
        return
    before = _memory.set(OrderedDict())
    try:
        yield
    finally:
        _memory.reset(before)


def parsed(parse: Callable[[Path], _T], path: Path) -> _T:
    """What `parse` makes of a file; nobody may change it.

    Inside `parsing_once`, files of equal content share it (the last few files do, not all).
    """
    memory = _memory.get()
    if memory is None or not path.is_file():  # what is wrong then, `parse` says
        return parse(path)
    with path.open("rb") as file:
        key = parse, hashlib.file_digest(file, "sha256").digest()
    if key not in memory:
        memory[key] = parse(path)
    memory.move_to_end(key)
    while len(memory) > _KEPT:
        memory.popitem(last=False)
    content: _T = memory[key]
    return content


def check_images(
    images: Iterable[Path], page: str, problems: Problems | None = None
) -> frozenset[Path]:
    """One error for all images that are listed and not on disk; with a list, one for each.

    Folders are listed once: a look at every one of 17,000 files is slow on a network disk.
    Returns the images that are missing, which is none unless `problems` is given.

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
    if problems is not None:
        problems += [DataError(f"{m} is missing. Public page: {page}", IMAGE) for m in missing]
    elif missing:
        names = ", ".join(image.name for image in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise DataError(
            f"{len(missing)} of {len(wanted)} images are missing in {missing[0].parent}: "
            f"{names}{more}. Public page: {page}",
            IMAGE,
        )
    return frozenset(missing)
