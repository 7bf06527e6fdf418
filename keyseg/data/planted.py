"""Faults that are put into data on purpose, so that a report can be asked what it says of them.

Wrong masks in training cost something, nobody knows how much; eroded targets under test change
scores by an amount that the stored masks tell exactly (`benchmarks/planted.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from keyseg.data.example import Example, Mask
from keyseg.data.mix import Source, groups

_STREAM = 4
"""First element of the generator's seed; `ImageSampler` and `fraction` have those below."""


@dataclass(frozen=True)
class Mirrored:
    """A mask, left and right exchanged."""

    load: Callable[[], Mask]

    def __call__(self) -> Mask:
        """(H, W)."""
        return np.ascontiguousarray(self.load()[:, ::-1])


@dataclass(frozen=True)
class Another:
    """Of other targets' masks the first that is no mask of this target; else its own mirrored.

    One thing may have an id in each of several data sets that share their images, so masks are
    compared, not names.
    """

    load: Callable[[], Mask]
    others: tuple[Callable[[], Mask], ...]

    def __call__(self) -> Mask:
        """(H, W)."""
        own = self.load() == 1
        for load in self.others:
            other = load()
            overlap, either = own & (other == 1), own | (other == 1)
            if 2 * overlap.sum() < either.sum():
                return other
        return Mirrored(self.load)()


@dataclass(frozen=True)
class Eroded:
    """A mask whose target has lost so many pixels at its edge; void stays void."""

    load: Callable[[], Mask]
    pixels: int

    def __call__(self) -> Mask:
        """(H, W)."""
        return eroded(self.load(), self.pixels)


def eroded(mask: Mask, pixels: int) -> Mask:
    """A mask (H, W) whose target is eroded by so many pixels, in steps to the four sides."""
    target = mask == 1
    left = ndimage.binary_erosion(target, iterations=pixels)
    return np.where(target & ~left, 0, mask).astype(np.uint8)


def with_wrong_masks(sources: Sequence[Source], share: float, seed: int) -> list[Source]:
    """The sources with a share of their examples drawn at random given a wrong mask.

    That of another target of the same image, which has an IoU below a half with the right one;
    where it has none, its own mirrored. Which ones is drawn by the seed; a smaller share is a part
    of a larger one.
    """
    every = [e for source in sources for e in source.examples]
    order = np.random.default_rng((_STREAM, seed)).permutation(len(every))
    chosen = {every[i].id for i in order[: round(share * len(every))]}
    others = {e.id: _another(e, g.examples) for g in groups(every) for e in g.examples}
    return [
        replace(
            s,
            examples=[_with_masks(e, others[e.id]) if e.id in chosen else e for e in s.examples],
        )
        for s in sources
    ]


def _with_masks(example: Example, other: Callable[[], Mask]) -> Example:
    """The example with a wrong mask; where targets have a mask each, theirs are mirrored."""
    if example.targets is None:
        return replace(example, load_mask=other)
    wrong = tuple(replace(t, load_mask=Mirrored(t.load_mask)) for t in example.targets)
    return replace(example, load_mask=Mirrored(example.load_mask), targets=wrong)


def _another(example: Example, of_image: Sequence[Example]) -> Callable[[], Mask]:
    of_targets = {_target(e): e.load_mask for e in of_image}
    of_targets.pop(_target(example), None)
    return Another(example.load_mask, tuple(of_targets.values()))


def _target(example: Example) -> str:
    """The id without the number of the expression: what is drawn."""
    return example.id.rpartition("-")[0]


def with_eroded_targets(examples: Sequence[Example], share: float, pixels: int) -> list[Example]:
    """The examples with about that share of the targets eroded: the same ones in every cell."""
    return [_eroded(e, pixels) if is_eroded(e.id, share) else e for e in examples]


def _eroded(example: Example, pixels: int) -> Example:
    whole = replace(example, load_mask=Eroded(example.load_mask, pixels))
    if example.targets is None:
        return whole
    each = tuple(replace(t, load_mask=Eroded(t.load_mask, pixels)) for t in example.targets)
    return replace(whole, targets=each)


def is_eroded(name: str, share: float) -> bool:
    """Whether the target of an example, by its id, is among the share that is eroded."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
