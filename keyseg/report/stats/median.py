"""A second estimate that one bad training cannot move: the median of the seeds' differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keyseg.report.stats.inference import CONFIDENCE


@dataclass(frozen=True)
class Median:
    """Medians (M,) with the ends of their intervals, which hold with `confidence`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    confidence: float


def median(by_seed: np.ndarray) -> Median:
    """The median over seeds of differences (S, M), with an interval between two of them.

    Exact whatever the distribution (the sign test turned round): from the k-th smallest to the
    k-th largest difference, k as large as 95 % allows. Fewer than six seeds do not reach 95 %; the
    whole range is given then, with the confidence that it has: 93.75 % of five, 75 % of three. It
    is about other seeds on these images.
    """
    from scipy.stats import binom

    seeds = len(by_seed)
    inner = np.sort(by_seed, axis=0)
    ks = np.arange(1, seeds // 2 + 1)
    coverage = 1 - 2 * binom.cdf(ks - 1, seeds, 0.5)
    enough = np.flatnonzero(coverage >= CONFIDENCE)
    k = int(ks[enough[-1]]) if len(enough) else 1
    confidence = float(coverage[k - 1]) if len(coverage) else 0.0
    low, high = inner[k - 1], inner[seeds - k]
    if not confidence:
        low, high = np.full((2, by_seed.shape[1]), np.nan)
    return Median(np.median(by_seed, axis=0), low, high, confidence)
