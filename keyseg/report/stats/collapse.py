"""Trainings that collapsed: which they are, how often it happens, and what they do to a contrast.

A few trainings in a hundred end far below the others of their variant, with everything else alike.
No interval over a handful of seeds can stand for both kinds: where a fifth of one side's trainings
lose 45 points, Student's t over five seeds holds the truth in 74 % of sweeps (docs/statistics.md).
So two questions are asked apart: how do trainings that succeed compare, and how many do not.
`with_collapse` puts both answers together again.

Shapes: S seeds, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keyseg.report.stats.inference import CONFIDENCE, Estimate

FALLEN_SHARE = 0.5
"""A collapsed training scores below this share of its variant's best one,"""
DROP = 0.1
"""and lies at least this far below it: near 0, half of the best is nothing to speak of."""


def collapsed(scores: np.ndarray) -> np.ndarray:
    """(S,) bool: which trainings of one variant collapsed, by their gIoU (S,).

    Held against the best seed, not the median, so that a variant most of whose trainings collapse
    is seen too. A single training has nothing to be held against; NaN is not judged.
    """
    if not np.isfinite(scores).any():
        return np.zeros(len(scores), bool)
    best = np.nanmax(scores)
    fell: np.ndarray = (scores < FALLEN_SHARE * best) & (scores <= best - DROP)
    return fell


def rate(failed: int, trained: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a share of trainings (Clopper and Pearson 1934); (0, 1) of none."""
    from scipy.stats import binomtest

    if not trained:
        return 0.0, 1.0
    ends = binomtest(failed, trained).proportion_ci(confidence, method="exact")
    return float(ends.low), float(ends.high)


@dataclass(frozen=True)
class Side:
    """All trainings of one variant: `scores` (S, M), `failed` (S,) bool.

    `weight`: with which it enters the contrast; 1 and -1 in a plain one.
    """

    scores: np.ndarray
    failed: np.ndarray
    weight: float

    @property
    def drop(self) -> np.ndarray:
        """(M,) by how much collapsed trainings lie below the others; NaN where one kind lacks."""
        if self.failed.all() or not self.failed.any():
            return np.full(self.scores.shape[1], np.nan)
        drop: np.ndarray = self.scores[~self.failed].mean(0) - self.scores[self.failed].mean(0)
        return drop


def with_collapse(
    value: np.ndarray,
    succeeded: Estimate,
    sides: Sequence[Side],
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A contrast over all trainings, those that collapse among them, from its two parts.

    The mean of a variant is that of its trainings that succeed, less the rate of collapse times
    the drop. Each part has an interval of its own (Student's t, Clopper-Pearson), and the squared
    distances to their ends add up (MOVER: Zou and Donner 2008, Statistics in Medicine 27). A side
    without a collapsed training has a rate too, from 0 to what so few seeds cannot exclude; its
    drop is taken from the others. The drop itself counts as known.

    Args:
        value: (M,) the plain difference of means over all trainings, where the interval stands.
        succeeded: the contrast of the trainings that succeeded, at this confidence.
        sides: every variant of the contrast.
        confidence: of every part.

    Returns:
        NaN ends where no training collapsed, or none of a side succeeded: nothing is added then.
    """
    drops = np.array([side.drop for side in sides])
    known = np.isfinite(drops)
    with np.errstate(invalid="ignore"):
        usual = np.where(known, drops, 0).sum(0) / known.sum(0)
    below, above = (succeeded.value - succeeded.low) ** 2, (succeeded.high - succeeded.value) ** 2
    for side, drop in zip(sides, np.where(known, drops, usual), strict=True):
        failed, trained = int(side.failed.sum()), len(side.failed)
        low, high = rate(failed, trained, confidence)
        cost = side.weight * drop
        less, more = cost * (high - failed / trained), cost * (failed / trained - low)
        below = below + np.where(cost > 0, less, more) ** 2
        above = above + np.where(cost > 0, more, less) ** 2
    lost = [side.failed.all() for side in sides]
    room = np.array([below, above]) + (np.nan if any(lost) else 0)
    return Estimate(value, value - np.sqrt(room[0]), value + np.sqrt(room[1]))


def sentence(sides: Mapping[str, Side]) -> str:
    """ "collapsed: full 1 of 5 (1 to 72 %), seg_only 0 of 5 (0 to 52 %)"; "" where none did."""
    if not any(side.failed.any() for side in sides.values()):
        return ""
    parts = []
    for label, side in sides.items():
        failed, trained = int(side.failed.sum()), len(side.failed)
        low, high = rate(failed, trained)
        parts.append(f"{label} {failed} of {trained} ({100 * low:.0f} to {100 * high:.0f} %)")
    return f"collapsed: {', '.join(parts)}"
