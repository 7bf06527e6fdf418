"""COCO's results: a JSON list of {image_id, segmentation, score}, one mask an example.

    [{"image_id": 391895, "query": "the dog", "segmentation": {"size": [480, 640], "counts": "..."},
      "score": 0.9, "category_id": 18}, ...]

`image_id`: the image's number in COCO, or its file's name. `query` is no part of COCO's form; it is
needed where an image has several examples. A text `id` of the example does without both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyseg.data.files import DataError
from keyseg.data.predictions.prediction import ForeignPrediction, RunLengths, number, text


def fits(entry: dict[str, Any]) -> bool:
    """Whether an entry looks like one of this form."""
    return "segmentation" in entry


def read(file: Path, entries: list[dict[str, Any]]) -> list[ForeignPrediction]:
    """The predictions.

    Raises:
        DataError: an entry lacks something, or holds something else; names it.
    """
    return [_prediction(e, f"{file}, entry {n}") for n, e in enumerate(entries, start=1)]


def _prediction(entry: dict[str, Any], where: str) -> ForeignPrediction:
    code = entry.get("segmentation")
    if isinstance(code, list):
        raise DataError(f"{where}: segmentation is a list of polygons; results are run lengths")
    if code is None:
        raise DataError(f"{where}: no 'segmentation'")
    own, image = entry.get("id"), entry.get("image_id")
    named = own if isinstance(own, str) else None  # a number is that of an annotation
    if named is None and (not isinstance(image, str | int) or isinstance(image, bool)):
        raise DataError(f"{where}: 'image_id' is {str(image)[:60]}, not a number or a name")
    return ForeignPrediction(
        where,
        RunLengths(where, code),
        id=named,
        image=image,
        query=text(entry, "query", where),
        score=number(entry, "score", where),
        answer=text(entry, "answer", where),
    )
