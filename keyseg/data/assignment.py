"""Which predicted mask of a query is of which of its targets, where a query may have several.

Matched one to one so that the sum of IoUs at the image's own size is highest (Hungarian algorithm).
Of equal sums the one is taken that keeps masks and targets in their order, so that a result depends
neither on chance nor on the library's version.
Shapes: P predicted masks, T targets, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from keyseg.data.masks import encode_rle

_TIE = 1e-12
"""What the order counts for beside an IoU: too little for any score to show."""


class Assignment(NamedTuple):
    """matches: for each mask the number of its target, -1 for none.

    iou, intersection, union: summed over the pairs; a mask or target without a partner is set
    against nothing: no IoU, and its pixels in the union.
    """

    matches: list[int]
    iou: float
    intersection: int
    union: int


def assign(
    intersections: ArrayLike, unions: ArrayLike, masks: ArrayLike, targets: ArrayLike
) -> Assignment:
    """Match by pixel counts; void pixels are in none of them.

    Args:
        intersections, unions: (P, T), of each mask and target.
        masks: (P,), of each mask alone.
        targets: (T,), of each target alone.
    """
    of_masks, of_targets = (np.asarray(a, np.int64).reshape(-1) for a in (masks, targets))
    size = len(of_masks), len(of_targets)
    both, either = (np.asarray(a, np.int64).reshape(size) for a in (intersections, unions))
    iou = np.where(either == 0, 1.0, both / np.maximum(either, 1))
    late = np.arange(size[0], 0, -1)[:, None] * np.arange(size[1])
    rows, columns = linear_sum_assignment(iou - _TIE * late / max(late.size, 1), maximize=True)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    matches = dict(pairs)
    alone = sum(int(n) for p, n in enumerate(of_masks) if p not in matches)
    alone += sum(int(n) for t, n in enumerate(of_targets) if t not in matches.values())
    return Assignment(
        [matches.get(p, -1) for p in range(size[0])],
        float(sum(iou[pair] for pair in pairs)),
        int(sum(both[pair] for pair in pairs)),
        int(sum(either[pair] for pair in pairs)) + alone,
    )


def assign_masks(
    masks: Sequence[NDArray[np.bool_]], targets: Sequence[NDArray[np.uint8]]
) -> Assignment:
    """Match drawn masks, all of one shape: predictions are bool, targets 0, 1 and 255 = void."""
    count = np.count_nonzero
    real = [t == 1 for t in targets]
    known = [t <= 1 for t in targets]
    void = np.logical_or.reduce([~k for k in known]) & ~np.logical_or.reduce(real) if real else None
    return assign(
        [[count(m & t) for t in real] for m in masks],
        [[count((m | t) & k) for t, k in zip(real, known, strict=True)] for m in masks],
        [count(m if void is None else m & ~void) for m in masks],
        [count(t) for t in real],
    )


def of_each(
    masks: Sequence[NDArray[np.bool_]], targets: Sequence[NDArray[np.uint8]]
) -> dict[str, Any]:
    """What comes of matching, in the columns of `keyseg.runs.samples.SEVERAL_COLUMNS`.

    Keywords are not among them. Masks and targets are those of `assign_masks`.
    """
    assignment = assign_masks(masks, targets)
    return {
        "n_targets": len(targets),
        "n_masks": len(masks),
        "matches": json.dumps(assignment.matches),
        "matched_iou": assignment.iou,
        "matched_intersection": assignment.intersection,
        "matched_union": assignment.union,
        "masks_rle": json.dumps([encode_rle(mask) for mask in masks]),
        "targets_rle": json.dumps([encode_rle(target == 1) for target in targets]),
    }
