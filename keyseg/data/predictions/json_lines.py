"""JSON Lines, one prediction a line; what `keyseg export predictions` writes.

    {"keyseg_predictions": 1, "system": "...", "protocol": "generated", ...}     may be left out
    {"id": "ReasonSeg/val/1-0", "mask": {"size": [480, 640], "counts": "..."}, "score": 0.9,
     "answer": "..."}

`score` and `answer` may be left out. Instead of the id: `image` (name of the file) and `query`.
`mask` null: nothing is predicted. Of a query that may have several targets `masks`, a list of them
([]: none); `mask`, their union, may be left out then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keyseg.data.files import DataError
from keyseg.data.predictions.prediction import (
    ForeignPrediction,
    RunLengths,
    United,
    number,
    text,
)

HEAD = "keyseg_predictions"
"""The key that tells the first line of our own export."""
VERSION = 1

_LONGEST = 2**24
"""Bytes of a line. The run lengths of a mask take some thousand."""


def read(file: Path) -> tuple[dict[str, Any], list[ForeignPrediction]]:
    """What the first line says of the whole ({} without one), and the predictions.

    Raises:
        DataError: a line cannot be read; names it.
    """
    head: dict[str, Any] = {}
    predictions = []
    for line, content in _lines(file):
        where = f"{file}, line {line}"
        entry = _parsed(content, where)
        if HEAD in entry:
            if line != 1 or entry[HEAD] != VERSION:
                raise DataError(
                    f"{where}: '{HEAD}' is {str(entry[HEAD])[:60]}; it stands in the first line "
                    f"and is {VERSION}"
                )
            head = entry
            continue
        predictions.append(_prediction(entry, where))
    return head, predictions


def write(file: Path, head: dict[str, Any], entries: Iterator[dict[str, Any]]) -> int:
    """Write a file that `read` reads; the number of predictions."""
    count = 0
    with file.open("w", encoding="utf-8") as out:
        out.write(json.dumps({HEAD: VERSION, **head}) + "\n")
        for entry in entries:
            out.write(json.dumps(entry) + "\n")
            count += 1
    return count


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1."""
    with file.open("rb") as content:
        number = 0
        while line := content.readline(_LONGEST + 1):
            number += 1
            if len(line) > _LONGEST:
                raise DataError(f"{file}, line {number} is longer than {_LONGEST:,} bytes")
            if line.strip():
                yield number, line


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise DataError(f"{where}: {str(entry)[:60]} is no JSON object")
    return entry


def _prediction(entry: dict[str, Any], where: str) -> ForeignPrediction:
    name, image, query = (text(entry, key, where) for key in ("id", "image", "query"))
    if not name and not (image and query):
        raise DataError(f"{where}: neither 'id' nor 'image' and 'query'")
    if "mask" not in entry and "masks" not in entry:
        raise DataError(f"{where}: no 'mask' (null where nothing is predicted)")
    each = None
    if "masks" in entry:
        if not isinstance(entry["masks"], list):
            raise DataError(f"{where}: 'masks' is {str(entry['masks'])[:60]}, not a list of masks")
        each = tuple(RunLengths(where, code) for code in entry["masks"])
    return ForeignPrediction(
        where,
        RunLengths(where, entry["mask"]) if each is None else United(each),
        each=each,
        id=name,
        image=image,
        query=query,
        score=number(entry, "score", where),
        answer=text(entry, "answer", where),
    )
