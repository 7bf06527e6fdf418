"""Which example each prediction is of. What fits none, or several, is listed, never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keyseg.data.example import Example
from keyseg.data.files import DataError
from keyseg.data.predictions.prediction import ForeignPrediction


class Unmatched(NamedTuple):
    """A prediction that is of no example, and why."""

    prediction: ForeignPrediction
    reason: str


@dataclass(frozen=True)
class Matched:
    """pairs: in the order of the examples. unknown: predictions; missing: examples without one."""

    pairs: list[tuple[Example, ForeignPrediction]]
    unknown: list[Unmatched]
    missing: list[Example]


def match(predictions: Sequence[ForeignPrediction], examples: Sequence[Example]) -> Matched:
    """Find the example of each prediction: by its id, or by image and query.

    An image is known by the name of its file, with or without ending, by its id, and, of COCO's, by
    its number. A query must be the same but for case and spaces.

    Raises:
        DataError: an example has two predictions, and is of one mask; names both.
    """
    index = _Index(examples)
    fitted: dict[str, ForeignPrediction] = {}
    unknown = []
    for prediction in predictions:
        fitting = index.of(prediction)
        if isinstance(fitting, str):
            unknown.append(Unmatched(prediction, fitting))
            continue
        before = fitted.get(fitting.id)
        if before and fitting.targets is not None and prediction.each is None:
            prediction = before.joined(prediction)
        elif before:
            raise DataError(
                f"{prediction.where}: {fitting.id} has a prediction already ({before.where}); "
                "give one mask an example"
            )
        fitted[fitting.id] = prediction
    pairs = [(e, fitted[e.id]) for e in examples if e.id in fitted]
    return Matched(pairs, unknown, [e for e in examples if e.id not in fitted])


class _Index:
    """Examples by everything that a prediction may name them by."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.by_id = {e.id: e for e in examples}
        self.by_end: dict[str, list[Example]] = {}
        self.by_image: dict[str | int, list[Example]] = {}
        for e in examples:
            self.by_end.setdefault(e.id.rpartition("/")[2], []).append(e)
            for name in _names(e):
                self.by_image.setdefault(name, []).append(e)

    def of(self, prediction: ForeignPrediction) -> Example | str:
        """The example, or why there is none."""
        if prediction.id is not None:
            return self.by_id.get(prediction.id) or "no example has this id"
        if prediction.name is not None:
            return self._named(prediction.name)
        assert prediction.image is not None, "readers give an id, a name or an image"
        there = self.by_image.get(prediction.image, [])
        if not there:
            return "no example is on this image"
        if prediction.query is None:
            return there[0] if len(there) == 1 else _several(there, "this image and no query")
        wanted = _plain(prediction.query)
        asked = [e for e in there if _plain(e.query) == wanted]
        if not asked:
            return "no example on this image has this query"
        return asked[0] if len(asked) == 1 else _several(asked, "this image and query")

    def _named(self, name: str) -> Example | str:
        if name in self.by_id:
            return self.by_id[name]
        either = {e.id: e for e in [*self.by_end.get(name, []), *self.by_image.get(name, [])]}
        fitting = list(either.values())
        if not fitting:
            return "no example and no image has this name"
        return fitting[0] if len(fitting) == 1 else _several(fitting, "this name")


def _names(example: Example) -> set[str | int]:
    """What an image may be called."""
    stem = example.image.stem
    names: set[str | int] = {stem, example.image.name, example.image_id}
    if number := re.fullmatch(r"(?:COCO_\w+_)?(\d+)", stem):
        names.add(int(number[1]))
    return names


def _several(examples: Sequence[Example], what: str) -> str:
    shown = ", ".join(e.id for e in examples[:3]) + (", ..." if len(examples) > 3 else "")
    return f"{len(examples)} examples have {what}: name one by its id ({shown})"


def _plain(query: str) -> str:
    return " ".join(query.split()).casefold()
