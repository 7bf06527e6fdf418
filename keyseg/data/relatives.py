"""For a question to a trained model: another expression, of the same target, name or image.

Which one it is depends on the split's examples alone: not on their order, and on no seed, batch or
process. Whether two expressions mean one target is read from their masks, for one thing may have an
id in each of several data sets that share their images.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keyseg.data.example import Example

RELATIVES = ("reworded", "namesake", "neighbour", "namesake_elsewhere")
"""Of the same target; in the same image of another target with the same keyword, of another with
another; of another image with the same keyword (of another with another is `derangement`)."""

_SAME, _OTHER = 0.9, 0.5
"""IoU of two masks from which on they are one target's, and below which they are two targets'.
What lies between is neither: an annotation of both, or a part and its whole."""


def relatives(examples: Sequence[Example], relation: str) -> dict[str, Example]:
    """By example's id, its relative; without those that have none.

    In its image an expression whose target is empty has none. One without a keyword has none but a
    rewording. Expressions whose words are the same are no rewording of each other.
    """
    if relation == "namesake_elsewhere":
        return _namesakes_elsewhere(examples)
    of_image: dict[str, list[Example]] = defaultdict(list)
    for e in examples:
        of_image[e.image_id].append(e)
    chosen: dict[str, Example] = {}
    for group in of_image.values():
        targets = [e.mask() == 1 for e in group]
        for one, target in zip(group, targets, strict=True):
            related = {
                _draw(one, other): other
                for other, its in zip(group, targets, strict=True)
                if other is not one and _relation(one, other, target, its) == relation
            }
            if related:
                chosen[one.id] = related[min(related)]
    return chosen


def _namesakes_elsewhere(examples: Sequence[Example]) -> dict[str, Example]:
    """The next one of another image, down a list in an order like one drawn at random."""
    of_name: dict[str, list[Example]] = defaultdict(list)
    for e in sorted(examples, key=lambda e: hashlib.sha256(e.id.encode()).digest()):
        if e.keyword is not None:
            of_name[e.keyword].append(e)
    chosen: dict[str, Example] = {}
    for group in of_name.values():
        for i, one in enumerate(group):
            others = (o for o in group[i + 1 :] + group[:i] if o.image_id != one.image_id)
            if (other := next(others, None)) is not None:
                chosen[one.id] = other
    return chosen


def _relation(
    one: Example, other: Example, target: NDArray[np.bool_], its: NDArray[np.bool_]
) -> str | None:
    """`target` and `its`: (H, W), of the one and of the other."""
    if not (target.any() and its.any()):
        return None
    iou = (target & its).sum() / (target | its).sum()
    if iou >= _SAME:
        reworded = one.query != other.query and one.keyword == other.keyword
        return "reworded" if reworded else None
    if iou >= _OTHER or one.keyword is None or other.keyword is None:
        return None
    return "namesake" if one.keyword == other.keyword else "neighbour"


def _draw(one: Example, other: Example) -> bytes:
    """Like a number drawn at random for the pair, the same wherever it is asked."""
    return hashlib.sha256(f"{one.id} {other.id}".encode()).digest()
