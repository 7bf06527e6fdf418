"""What a system said of one example, before it is known which example that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keyseg.data.example import Mask
from keyseg.data.files import DataError
from keyseg.data.masks import CocoMask

_CODE_PER_PIXEL = 7
"""Letters of run lengths that a pixel can take at most; longer ones are made to fill memory."""


Draw = Callable[[int, int], Mask]
"""From (height, width) to a mask."""


@dataclass(frozen=True)
class Pixels:
    """Sums over pixels, of a system that gives no masks; says_nothing: that there is no target."""

    intersection: int
    union: int
    no_target: bool
    says_nothing: bool


@dataclass(frozen=True)
class ForeignPrediction:
    """One prediction.

    where: its file and line, for errors. id, or image and query: what it is matched by; `name`:
    of a file, which may be either an id or an image's. draw: from (height, width) to the mask; None
    where `pixels` are all there is. score: the system's own judgement.
    each: of a query that may have several targets, its masks; None where `draw` is the only one.
    """

    where: str
    draw: Draw | None
    id: str | None = None
    image: str | int | None = None
    query: str | None = None
    name: str | None = None
    score: float | None = None
    answer: str | None = None
    pixels: Pixels | None = None
    each: tuple[Draw, ...] | None = None

    def joined(self, other: ForeignPrediction) -> ForeignPrediction:
        """This and another one of the same example, whose masks are counted apart."""
        each = (*self.drawn_each(), *other.drawn_each())
        return replace(self, draw=United(each), each=each)

    def drawn_each(self) -> tuple[Draw, ...]:
        """The masks of a query that may have several targets; a prediction of nothing has none."""
        if self.each is not None:
            return self.each
        nothing = isinstance(self.draw, RunLengths) and self.draw.code is None
        return (self.draw,) if self.draw is not None and not nothing else ()

    @property
    def title(self) -> str:
        """What it says it is of, for lists."""
        query = "" if self.query is None else f", '{self.query}'"
        return self.id or self.name or f"image {self.image}{query}"


@dataclass(frozen=True)
class RunLengths:
    """A mask in COCO's run lengths: {"size": [height, width], "counts": ...}; None is empty."""

    where: str
    code: Any

    def __call__(self, height: int, width: int) -> Mask:
        """Draw: uint8 (H, W), 0 and 1.

        Raises:
            DataError: they are of another size or damaged.
        """
        try:
            self._check(height, width)
            return CocoMask(self.code if self.code is not None else [], height, width)()
        except ValueError as error:  # a DataError among them
            raise DataError(f"{self.where}: {error}") from error

    def _check(self, height: int, width: int) -> None:
        if self.code is None:
            return
        if not isinstance(self.code, Mapping) or not {"size", "counts"} <= self.code.keys():
            raise ValueError(
                f'mask is {str(self.code)[:60]}, not run lengths {{"size": [height, width], '
                '"counts": ...} (pycocotools.mask.encode)'
            )
        size, counts = self.code["size"], self.code["counts"]
        if not isinstance(size, list) or list(map(type, size)) != [int, int]:
            raise ValueError(f"size of the mask is {str(size)[:60]}, not [height, width]")
        if size != [height, width]:
            raise ValueError(f"mask of {size[0]} x {size[1]} for an image of {height} x {width}")
        if isinstance(counts, str | list) and len(counts) > _CODE_PER_PIXEL * (height * width + 2):
            raise ValueError(f"more run lengths than the mask has pixels: {len(counts)}")


@dataclass(frozen=True)
class United:
    """Several masks as one."""

    masks: Sequence[Draw]

    def __call__(self, height: int, width: int) -> Mask:
        """Draw: uint8 (H, W), 0 and 1. Raises DataError: one of them cannot be drawn."""
        union = np.zeros((height, width), np.uint8)
        for draw in self.masks:
            np.maximum(union, draw(height, width), out=union)
        return union


def text(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    """A text that may be absent.

    Raises:
        DataError: it is of another type.
    """
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: '{key}' is {str(value)[:60]}, not a text")
    return value


def number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    """A number that may be absent.

    Raises:
        DataError: it is of another type, or no finite number.
    """
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise DataError(f"{where}: '{key}' is {str(value)[:60]}, not a number")
    return float(value)
