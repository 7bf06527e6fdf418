"""What a dialect says of one example, and how its examples become scores.

Shapes: masks are bool (H, W) at the image's own size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.bool_]

_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Masks(NamedTuple):
    """One example: what was predicted, what was asked for, and where nobody knows."""

    predicted: Pixels
    target: Pixels
    ignored: Pixels


class Counted(NamedTuple):
    """One example as a dialect sees it.

    iou: its share of gIoU. intersection, union: its pixels in cIoU. has_target: whether the
    dialect's target is not empty. predicts: whether it says that there is one.
    """

    iou: float
    intersection: int
    union: int
    has_target: bool
    predicts: bool


@dataclass(frozen=True)
class Dialect:
    """A public evaluation.

    Args:
        name: how it is asked for.
        used_by: systems whose printed numbers are in it.
        source: where it was read.
        count: one example as it sees it.
        texts: which queries of a target count: "first" or "all".
        reaches: whether an IoU reaches a threshold of P@X: `>` or `>=`.
        precision_of_targets: P@X is over examples with a target only.
        scores: what it reports, of giou, ciou, precision@X, n_acc, t_acc.
        limits: what stored masks cannot tell of it; empty if nothing.
    """

    name: str
    used_by: str
    source: str
    count: Callable[[Masks], Counted]
    texts: str = "all"
    reaches: Callable[[Any, Any], Any] = operator.gt
    precision_of_targets: bool = False
    scores: tuple[str, ...] = ("giou", "ciou")
    limits: str = ""

    def summarise(self, examples: Iterable[Counted]) -> dict[str, float]:
        """Scores as fractions; NaN where there is nothing to divide by."""
        rows = list(examples)
        ious = np.array([row.iou for row in rows])
        with_target = np.array([row.has_target for row in rows], bool)
        predicts = np.array([row.predicts for row in rows], bool)
        over = with_target if self.precision_of_targets else np.ones(len(rows), bool)
        union = sum(row.union for row in rows)
        found = {
            "giou": _mean(ious),
            "ciou": sum(row.intersection for row in rows) / union if union else float("nan"),
            "n_acc": _mean(~predicts[~with_target]),
            "t_acc": _mean(predicts[with_target]),
        }
        for threshold in _THRESHOLDS:
            found[f"precision@{threshold}"] = _mean(self.reaches(ious[over], threshold))
        return {name: found[name] for name in self.scores}


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def overlap(predicted: Pixels, target: Pixels, empty: float) -> Counted:
    """Intersection over union; `empty`: the IoU where nothing is there and nothing predicted."""
    both, either = int((predicted & target).sum()), int((predicted | target).sum())
    iou = both / either if either else empty
    return Counted(iou, both, either, bool(target.any()), bool(predicted.any()))


def without_ignored(masks: Masks) -> Counted:
    """LISA's rule: `overlap` of the pixels that count, 1 for nothing on nothing."""
    known = ~masks.ignored
    return overlap(masks.predicted & known, masks.target & known, empty=1.0)


def with_no_target(masks: Masks) -> Counted:
    """gRefCOCO's rule: an expression without a target that is left empty counts 1 in gIoU and
    nothing in cIoU; one that is not, 0 and its predicted pixels."""
    return overlap(masks.predicted, masks.target, empty=1.0)


PRECISIONS = tuple(f"precision@{threshold}" for threshold in _THRESHOLDS)
