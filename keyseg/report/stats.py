"""How sure a number is: bootstrap over images.

Expressions of one image share its pixels, so an image with all its expressions is drawn as a
whole (a cluster). What is resampled is the table of per-image sums; a resample of a ratio is then
a ratio of resampled sums. This is the uncertainty of the test examples with the weights as they
are; it says nothing about another training seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keyseg.report.measures import COLUMNS, MEASURES, ratios

RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Values with the ends of their intervals, arrays of one shape; NaN = no interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def image_sums(
    records: pd.DataFrame, image_id: pd.Series[str], images: pd.Index[str]
) -> np.ndarray:
    """(images, COLUMNS): `records` summed by image, in the order of `images`, 0 where absent."""
    sums = records.groupby(image_id.to_numpy()).sum().reindex(images, fill_value=0.0)
    array: np.ndarray = sums[list(COLUMNS)].to_numpy(float)
    return array


def cluster_bootstrap(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Percentile intervals by `scipy.stats.bootstrap`, rows of `sums` as clusters.

    Args:
        sums: (clusters, *dims).
        statistic: (n, *dims) totals -> (n, *out) values.
        seed: same seed and number of clusters, same draws: differences of two calls are paired.

    Where no resample differs from another (a rate of exactly 0), or some resample misses the
    slice altogether, a bootstrap cannot give an interval and none is given.
    """
    from scipy import stats

    clusters = len(sums)
    flat = sums.reshape(clusters, -1)
    value = statistic(sums.sum(0)[None])[0]
    nothing = np.full(value.shape, np.nan)
    if clusters < 2:
        return Estimate(value, nothing, nothing.copy())

    def resampled(index: np.ndarray, axis: int = -1) -> np.ndarray:
        # Totals of a resample = how often each cluster was drawn, times its sums: one matrix
        # product for all columns at once instead of a gather per column.
        rows = len(index)
        cells = index + clusters * np.arange(rows)[:, None]
        counts = np.bincount(cells.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        totals = (counts.astype(float) @ flat).reshape(rows, *sums.shape[1:])
        return statistic(totals).reshape(rows, -1).T

    import warnings

    with warnings.catch_warnings():
        # Slices that some resample misses: shown as "no interval", not as a warning.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result: Any = stats.bootstrap(
            (np.arange(clusters),),
            resampled,
            n_resamples=resamples,
            batch=max(1, min(resamples, 2**21 // clusters)),
            vectorized=True,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low = np.asarray(result.confidence_interval.low, float).reshape(value.shape)
    high = np.asarray(result.confidence_interval.high, float).reshape(value.shape)
    flat_out = ~(high > low)
    low[flat_out], high[flat_out] = np.nan, np.nan
    return Estimate(value, low, high)


def mean_over_seeds(totals: np.ndarray) -> np.ndarray:
    """(n, seeds, ..., COLUMNS) -> (n, ..., MEASURES): every measure, averaged over seeds."""
    value: np.ndarray = ratios(totals).mean(1)
    return value


def difference(totals: np.ndarray) -> np.ndarray:
    """(n, seeds, 2, ..., COLUMNS) -> (n, ..., MEASURES): second minus first, mean over seeds."""
    values = ratios(totals)
    gap: np.ndarray = (values[:, :, 1] - values[:, :, 0]).mean(1)
    return gap


def verdict(measure: int, low: float, high: float, by_seed: np.ndarray) -> str:
    """A contrast in a word or two. `measure` indexes `MEASURES`; `by_seed`: (seeds,) differences.

    "better" or "worse" needs an interval that leaves out 0 and seeds that all point one way.
    """
    sign = MEASURES[measure].better
    if not np.isfinite([low, high]).all():
        return "no interval"
    if low <= 0 <= high:
        return "inconclusive"
    up = low > 0
    if len(by_seed) > 1 and not np.all((by_seed > 0) == up):
        return "seeds disagree"
    if sign == 0:
        return "higher" if up else "lower"
    return "better" if up == (sign > 0) else "worse"
