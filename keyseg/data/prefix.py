"""What all expressions of an image share: the tokens before the image, and the image's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""Height and width of an image, in pixels."""


@dataclass(frozen=True)
class Prefix:
    """L tokens and where they stand.

    ids: L of them. positions: a list of L for each axis: one, or three (time, height, width) where
    a language model turns image tokens by their place in the picture. end: the position at which
    what follows goes on, on every axis.
    """

    ids: list[int]
    positions: list[list[int]]
    end: int

    @classmethod
    def of(cls, ids: Sequence[int]) -> Prefix:
        """Tokens that stand one after the other."""
        return cls(list(ids), [list(range(len(ids)))], len(ids))

    def then(self, other: Prefix) -> Prefix:
        """Both, `other` moved on by `end`; of text alone every axis is the same."""
        axes = max(len(self.positions), len(other.positions))
        mine, its = (p * (axes // len(p)) for p in (self.positions, other.positions))
        moved = [[at + self.end for at in axis] for axis in its]
        together = [a + b for a, b in zip(mine, moved, strict=True)]
        return Prefix(self.ids + other.ids, together, self.end + other.end)


ImagePlaces = Callable[[Size], Prefix]
"""The tokens that stand for an image of a size."""
