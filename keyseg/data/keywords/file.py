"""Keyword files in the form of Reason-Seg-Key's keyword_outputs.json, read and written.

A list of `{query, outputs, image, json, keyword}`: `outputs` is the answer, and an empty keyword is
none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from keyseg.data.files import DataError, read_json

T = TypeVar("T")

FIELDS = ("query", "outputs", "image", "json", "keyword")


class ByQuery(Generic[T]):
    """What a file says of an image's queries: by image stem, and by query where it has several.

    A query without an entry of its own has that of its image's first one: the public files have
    one an image, for all wordings.
    """

    def __init__(self) -> None:
        self._of_image: dict[str, dict[str, T]] = {}

    def add(self, stem: str, query: str, value: T) -> None:
        """Of two entries for one query the first counts."""
        self._of_image.setdefault(stem, {}).setdefault(query, value)

    def update(self, other: ByQuery[T]) -> None:
        """Add another file's entries behind these."""
        for stem, queries in other._of_image.items():
            for query, value in queries.items():
                self.add(stem, query, value)

    def get(self, stem: str, query: str) -> T | None:
        """The query's own entry, else the first of its image, else None."""
        queries = self._of_image.get(stem, {})
        return queries.get(query, next(iter(queries.values()), None))

    def __len__(self) -> int:
        """Entries."""
        return sum(map(len, self._of_image.values()))


def entries(path: Path, needed: Iterable[str] = ("query", "image", "keyword")) -> list[Any]:
    """The items of a keyword file.

    Raises:
        DataError: the file is no JSON, or an item lacks a field that is needed.
    """
    content = read_json(path)
    items = content if isinstance(content, list) else [content]
    wanted = tuple(needed)
    for i, item in enumerate(items):
        if not isinstance(item, dict) or not item.keys() >= set(wanted):
            names = f"{', '.join(wanted[:-1])} and {wanted[-1]}"
            raise DataError(f"{path}: item {i} needs {names}: {str(item)[:60]}")
    return items


def by_image(path: Path) -> dict[str, dict[str, str | None]]:
    """Keywords by image stem and query. Of two items for one query the first counts.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.exists():
        raise DataError(f"the keyword file is missing: {path} (data.keyword_file)")
    keywords: dict[str, dict[str, str | None]] = {}
    for item in entries(path):
        queries = keywords.setdefault(Path(str(item["image"])).stem, {})
        queries.setdefault(str(item["query"]).strip(), text_or_none(item["keyword"]))
    return keywords


def text_or_none(value: Any) -> str | None:
    """A text without the space around it; None for nothing."""
    return str(value).strip() or None if value is not None else None


def write(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
    """Write a keyword file whole or not at all; other fields than `FIELDS` are left out."""
    listed = [{name: item.get(name) or "" for name in FIELDS} for item in items]
    replace(path, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
