"""Resamples that all runs share: bootstrap draws and sign flips of whole images.

Expressions of one image share its pixels, so an image with all its expressions is drawn, or
swapped, as a whole (a cluster). What is resampled is the table of per-image sums: one matrix of
how often each image was drawn, times the sums of every run, is every resample of every measure.
A resample of a ratio is thus a ratio of resampled sums, and two variants under one draw are
paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from keyseg.metrics import COLUMNS, MEASURES

RESAMPLES = 9999
BATCH = 512


@lru_cache(maxsize=2)
def draws(clusters: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, clusters) uint8: how often each cluster is drawn."""
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, clusters), np.uint8)
    for part in _batches(resamples):
        rows = part.stop - part.start
        cells = rng.integers(0, clusters, (rows, clusters)) + clusters * np.arange(rows)[:, None]
        drawn = np.bincount(cells.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        assert drawn.max() < 256, "a cluster was drawn more than 255 times"
        counts[part] = drawn
    counts.flags.writeable = False
    return counts


def draws_of(kept: np.ndarray, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, kept.sum()): the columns of `draws` for some of the clusters, kept (n,) bool."""
    return _columns(kept.tobytes(), seed, resamples)


@lru_cache(maxsize=16)
def _columns(kept: bytes, seed: int, resamples: int) -> np.ndarray:
    """Every variant has the same slices: their columns are picked once."""
    mask = np.frombuffer(kept, bool)
    return draws(len(mask), seed, resamples)[:, mask]


@lru_cache(maxsize=2)
def flips(clusters: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, clusters) int8 of -1 and 1: -1 swaps the two variants on that cluster."""
    rng = np.random.default_rng([seed, 1])  # another stream than that of the draws
    signs = np.empty((resamples, clusters), np.int8)
    for part in _batches(resamples):
        signs[part] = 2 * rng.integers(0, 2, (part.stop - part.start, clusters), np.int8) - 1
    signs.flags.writeable = False
    return signs


def resampled(
    weights: np.ndarray, flat: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """weights (resamples, clusters), flat (clusters, ...) -> statistic of every resample's totals.

    In single precision: totals are counts of pixels, and an interval's end needs six digits.
    """
    table = flat.reshape(len(flat), -1).astype(np.float32)
    shape = flat.shape[1:]
    parts = [
        statistic((weights[part].astype(np.float32) @ table).reshape(-1, *shape))
        for part in _batches(len(weights))
    ]
    return np.concatenate(parts)


@dataclass(frozen=True)
class Terms:
    """The columns that the measures need, with seeds merged where that changes no value.

    `flat`: (clusters, sides, K); `pairs`: for each measure the columns of its numerators and
    denominators, of which the mean ratio is the value.
    """

    flat: np.ndarray
    pairs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def values(self, totals: np.ndarray) -> np.ndarray:
        """(..., K) -> (..., MEASURES)."""
        ratios = []
        with np.errstate(divide="ignore", invalid="ignore"):
            for above, below in self.pairs:
                value = totals[..., above[0]] / totals[..., below[0]]
                for n, d in zip(above[1:], below[1:], strict=True):
                    value = value + totals[..., n] / totals[..., d]
                ratios.append(value / len(above))
        return np.stack(ratios, -1)

    def difference(self, totals: np.ndarray) -> np.ndarray:
        """(..., 2, K) -> (..., MEASURES): second side minus first."""
        value = self.values(totals)
        gap: np.ndarray = value[..., 1, :] - value[..., 0, :]
        return gap


def terms(table: np.ndarray) -> Terms:
    """table (clusters, seeds, sides, COLUMNS) of per-image sums.

    Where every run counts the same examples, the mean over seeds of a ratio is the ratio of
    means: ten seeds then cost what one costs. Only cIoU has a denominator of its own per run.
    """
    columns: list[np.ndarray] = []
    place: dict[tuple[int, int | None], int] = {}

    def column(c: int, seed: int | None) -> int:
        if (c, seed) not in place:
            place[c, seed] = len(columns)
            one = table[:, :, :, c]
            columns.append(one.mean(1) if seed is None else one[:, seed])
        return place[c, seed]

    pairs = []
    for measure in MEASURES:
        n, d = COLUMNS.index(measure.numerator.name), COLUMNS.index(measure.denominator.name)
        alike = bool((table[..., d] == table[:, :1, :1, d]).all())
        seeds: tuple[int | None, ...] = (None,) if alike else tuple(range(table.shape[1]))
        pairs.append((tuple(column(n, s) for s in seeds), tuple(column(d, s) for s in seeds)))
    return Terms(np.stack(columns, -1), tuple(pairs))


def _batches(length: int) -> Iterator[slice]:
    for start in range(0, length, BATCH):
        yield slice(start, min(start + BATCH, length))
