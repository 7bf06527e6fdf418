"""What a dialect says of each example, and how its examples become scores.

Everything a dialect asks of a mask is how many pixels lie where, so that stored masks are counted
once for all dialects. Shapes: N examples; masks are bool (H, W) at the image's own size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Pixels = NDArray[np.bool_]
Counts = NDArray[np.int64]

PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
PRECISIONS = tuple(f"precision@{threshold}" for threshold in PRECISION_AT)


class Areas(NamedTuple):
    """Pixels of the masks of N examples, (N,) each; no pixel is both target and to be ignored.

    predicted, target, ignored: of each mask. hit: predicted and target. on_ignored: predicted
    where nobody knows.
    """

    predicted: Counts
    target: Counts
    ignored: Counts
    hit: Counts
    on_ignored: Counts

    @classmethod
    def of(cls, predicted: Pixels, target: Pixels, ignored: Pixels) -> Areas:
        """Those of one example."""
        masks = (predicted, target, ignored, predicted & target, predicted & ignored)
        return cls(*(np.array([np.count_nonzero(mask)]) for mask in masks))


class Counted(NamedTuple):
    """N examples as a dialect sees them, (N,) each.

    iou: the share of gIoU. intersection, union: pixels in cIoU. has_target: whether the dialect's
    target is not empty. predicts: whether the system says that there is one.
    """

    iou: NDArray[np.float64]
    intersection: Counts
    union: Counts
    has_target: Pixels
    predicts: Pixels


@dataclass(frozen=True)
class Dialect:
    """A public evaluation.

    Args:
        name: how it is asked for.
        used_by: systems whose printed numbers are in it.
        source: where it was read.
        count: the examples as it sees them.
        texts: which queries of a target of ReasonSeg count: "first" or "all".
        reaches: whether an IoU reaches a threshold of P@X: `>` or `>=`.
        precision_of_targets: P@X is over examples with a target only.
        scores: what it reports, of giou, ciou, precision@X, n_acc, t_acc, riou, r.
        summary: from a frame of counted examples (`score.seen`) to all of these.
        weights: of each of these examples in gIoU, (N,).
        limits: what stored masks cannot tell of it; empty if nothing.
        several: it is of queries that may have several targets; their masks are matched with these
            (`matched`), and `count` is not asked.
        by_token: where a model may reject, by a token or a score, this says that there is no
            target, not an empty mask: that is wrong where nothing was rejected.
    """

    name: str
    used_by: str
    source: str
    count: Callable[[Areas], Counted]
    texts: str = "all"
    reaches: Callable[[Any, Any], Any] = operator.gt
    precision_of_targets: bool = False
    scores: tuple[str, ...] = ("giou", "ciou")
    summary: Callable[[Dialect, pd.DataFrame], dict[str, float]] = lambda d, e: by_example(d, e)
    weights: Callable[[pd.DataFrame], NDArray[np.float64]] = lambda e: np.ones(len(e))
    limits: str = ""
    several: bool = False
    by_token: bool = False

    def summarise(self, examples: pd.DataFrame) -> dict[str, float]:
        """Scores as fractions; NaN where there is nothing to divide by."""
        values = self.summary(self, examples)
        return {name: values[name] for name in self.scores}


def by_example(dialect: Dialect, examples: pd.DataFrame) -> dict[str, float]:
    """Scores in which every example weighs the same."""
    iou = examples["iou"].to_numpy()
    with_target = examples["has_target"].to_numpy(bool)
    predicts = examples["predicts"].to_numpy(bool)
    over = with_target if dialect.precision_of_targets else np.ones(len(iou), bool)
    return {
        "giou": mean(iou),
        "ciou": ratio(examples["intersection"].sum(), examples["union"].sum()),
        "n_acc": mean(~predicts[~with_target]),
        "t_acc": mean(predicts[with_target]),
        **{f"precision@{x}": mean(dialect.reaches(iou[over], x)) for x in PRECISION_AT},
    }


def mean(values: Any) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def ratio(part: float, whole: float) -> float:
    """A share; NaN of nothing."""
    return float(part / whole) if whole else float("nan")


def overlap(predicted: Counts, target: Counts, hit: Counts, empty: float) -> Counted:
    """Intersection over union; `empty`: the IoU where nothing is there and nothing predicted."""
    union = predicted + target - hit
    iou = np.where(union == 0, empty, hit / np.maximum(union, 1))
    return Counted(iou, hit, union, target > 0, predicted > 0)


def without_ignored(areas: Areas) -> Counted:
    """LISA's rule: `overlap` of the pixels that count, 1 for nothing on nothing."""
    return overlap(areas.predicted - areas.on_ignored, areas.target, areas.hit, empty=1.0)


def with_no_target(areas: Areas) -> Counted:
    """gRefCOCO's rule: an expression without a target that is left empty counts 1 in gIoU and
    nothing in cIoU; one that is not, 0 and its predicted pixels."""
    return overlap(areas.predicted, areas.target, areas.hit, empty=1.0)
