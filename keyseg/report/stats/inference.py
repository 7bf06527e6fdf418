"""Intervals and tests of one contrast, the two sources of doubt kept apart.

- Test examples, weights as they are: paired bootstrap over images (`bootstrap`), and a test that
  swaps the two variants on whole images (`swap_images`).
- Seeds, test split as it is: Student's t over the seeds' differences, and their sign flips.
- Both: images and seeds are crossed (every seed is read on the same images), so the variance is
  that of the images plus that of the seeds minus their interaction, which both contain. A
  bootstrap over seeds is not used, because it does not cover with few of them: docs/statistics.md
  has the simulation. Intervals are about right; so is the p value that verdicts follow, also far
  out, where Holm's correction needs it (`both_p`).

A contrast may be made of several pairs of variants (a main effect, an interaction): its difference
is `factor` times the mean of the pairs' differences, for every seed.

Shapes: n images, S seeds, P pairs, M measures, C columns of sums; [P] may be
absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from keyseg.metrics import COLUMNS, DENOMINATORS, NUMERATORS, ratios
from keyseg.report.stats.resamples import RESAMPLES, draws, draws_of, flips, resampled, terms

CONFIDENCE = 0.95
EXACT_SEEDS = 13
"""All 2^S sign flips are counted up to here (8192 < `RESAMPLES`), drawn beyond."""
PAIRED = 5
"""Dimensions of a table of several pairs."""
SMALLEST_P = 1e-12
"""Nothing measured on a test split is surer than this."""


@dataclass(frozen=True)
class Estimate:
    """Values with the ends of their intervals, arrays of one shape; NaN = no interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Sources:
    """Variances of a difference (M,), by where they come from; NaN where one seed cannot tell.

    `images`: of the mean over these seeds on other images. `seeds`: of the mean over other seeds
    on these images. `interaction`: the interaction's part, which both contain. `image_freedom`: the
    degrees of freedom of `images`.
    """

    images: np.ndarray
    seeds: np.ndarray
    interaction: np.ndarray
    image_freedom: np.ndarray
    n_images: int
    n_seeds: int

    @property
    def both(self) -> np.ndarray:
        """(M,) variance over other seeds and other images; never below either source alone."""
        summed = self.images + self.seeds - self.interaction
        total: np.ndarray = np.maximum(summed, np.maximum(self.images, self.seeds))
        return total

    @property
    def freedom(self) -> np.ndarray:
        """(M,) degrees of freedom at which Student's t covers for `both`.

        Few seeds beside many images: Satterthwaite's (1946) are too many (a variance that came
        out small by luck counts as well known), Cochran's weighted t (1964) is too wide. Their
        geometric mean stays within 93-97 % from 3 seeds on, whichever source is the larger.
        Where the seeds vary no more than their interaction explains, the images are all there is.
        """
        from scipy.stats import t

        level, few, many = (1 + CONFIDENCE) / 2, max(self.n_seeds - 1, 1), self.image_freedom
        seeds = np.where(self.seeds > self.interaction, self.seeds, 0 * self.seeds)
        with np.errstate(divide="ignore", invalid="ignore"):
            satterthwaite = self.both**2 / (seeds**2 / few + self.images**2 / many)
            share = seeds / (seeds + self.images)
        cochran = share * t.ppf(level, few) + (1 - share) * t.ppf(level, many)
        grid, edges = _t_edges()
        level_at: np.ndarray = np.interp(
            -np.sqrt(t.ppf(level, satterthwaite) * cochran), -edges, grid
        )
        return level_at


@lru_cache(maxsize=1)
def _t_edges() -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom and the 95 % edge of Student's t at each."""
    from scipy.stats import t

    freedom = np.geomspace(0.9, 1e5, 4000)
    return freedom, t.ppf((1 + CONFIDENCE) / 2, freedom)


def image_sums(codes: np.ndarray, records: np.ndarray, images: int) -> np.ndarray:
    """(images, C): `records` (rows, C) summed by image; codes (rows,) number the images."""
    parts = [np.bincount(codes, column, minlength=images) for column in records.T]
    return np.stack(parts, -1) if parts else np.zeros((images, 0))


def pulls(table: np.ndarray) -> np.ndarray:
    """(n, S, [P], sides, C) -> (n, S, [P], M): what each image adds to a value or a difference.

    Taylor linearisation of a ratio of sums; each column of the result sums to 0.
    """
    total = table.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = total[..., NUMERATORS] / total[..., DENOMINATORS]
        error = table[..., NUMERATORS] - value * table[..., DENOMINATORS]
        error /= total[..., DENOMINATORS]
    alone = table.shape[-2] == 1
    pull: np.ndarray = error[..., 0, :] if alone else error[..., 1, :] - error[..., 0, :]
    return pull


def image_freedom(pull: np.ndarray) -> np.ndarray:
    """(M,) degrees of freedom of the variance of summed pulls (n, M); n - 1 where they are normal.

    A few images that pull hard (large objects in cIoU, many expressions, the few examples that
    differ in a rate) make the variance itself uncertain. These are the degrees of freedom of a
    chi-square with the same mean and variance (Satterthwaite's idea, from the pulls' kurtosis).
    """
    n = len(pull)
    if n < 2:
        return np.full(pull.shape[1:], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = n * (pull**4).sum(0) / (pull**2).sum(0) ** 2
    freedom: np.ndarray = np.clip(2 * n / (kurtosis - (n - 3) / (n - 1)), 1, n - 1)
    return freedom


def interval_level(
    clusters: int, freedom: np.ndarray | float, confidence: float = CONFIDENCE
) -> np.ndarray:
    """Share outside on either side of an expanded percentile interval.

    A percentile interval of few clusters is too narrow by Student's factor and by n / (n - 1);
    Hesterberg (2015, The American Statistician 69, section 5.3) widens its levels by both.
    """
    from scipy.stats import norm, t

    reach = t.ppf((1 + confidence) / 2, freedom) * np.sqrt(clusters / (clusters - 1))
    level: np.ndarray = norm.sf(reach)
    return level


def bootstrap(
    table: np.ndarray,
    *,
    seed: int,
    rows: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Expanded percentile intervals over images, of a value or of a difference.

    Args:
        table: (n, S, sides, C) per-image sums. One side: the value, mean over seeds. Two: second
            minus first, paired, mean over seeds.
        seed: same seed and number of images, same draws.
        rows: (n,) bool, images that count here (a slice); all images are drawn nevertheless.

    Where no resample differs from another (a rate of exactly 0), or some resample misses the
    slice altogether, a bootstrap cannot give an interval and none is given.
    """
    kept = np.ones(len(table), bool) if rows is None else rows
    parts = terms(table[kept])
    statistic = parts.difference if table.shape[2] == 2 else lambda t: parts.values(t)[..., 0, :]
    value = statistic(parts.flat.sum(0)[None])[0]
    nothing = np.full(value.shape, np.nan)
    images = int(kept.sum())
    if images < 2:
        return Estimate(value, nothing, nothing.copy())
    every = kept.all()
    weights = draws(len(table), seed, resamples) if every else draws_of(kept, seed, resamples)
    drawn = resampled(weights, parts.flat, statistic)
    freedom = image_freedom(pulls(table[kept]).mean(1))
    level = np.nan_to_num(interval_level(images, freedom, confidence), nan=0.5)
    low, high = _quantiles(drawn, level), _quantiles(drawn, 1 - level)
    flat = ~(high > low)
    low[flat], high[flat] = np.nan, np.nan
    return Estimate(value, low, high)


def _quantiles(resampled: np.ndarray, level: np.ndarray) -> np.ndarray:
    """(resamples, M) at (M,) levels, interpolated."""
    columns = zip(resampled.T, level, strict=True)
    return np.array([float(np.quantile(column.astype(float), at)) for column, at in columns])


def swap_images(table: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(M,) two-sided p of swapping the variants on whole images; table (n, S, 2, C).

    Sharp null hypothesis: with these weights, on each image either variant could have had either
    result. Swapping images i with sign s_i gives the sides' totals mean ± sum_i s_i d_i / 2.
    """
    parts = terms(table)
    centre = parts.flat.mean(1).sum(0)
    half = (parts.flat[:, 1] - parts.flat[:, 0]) / 2
    seen = parts.difference(parts.flat.sum(0))

    def statistic(moved: np.ndarray) -> np.ndarray:
        sides = np.stack([centre - moved, centre + moved], 1)
        return parts.difference(sides)

    flipped = np.abs(resampled(flips(len(table), seed, resamples), half, statistic))
    as_far = (flipped >= np.abs(seen) * (1 - 1e-5) - 1e-9).sum(0)
    p: np.ndarray = (1 + as_far) / (1 + resamples)
    return np.where(np.isnan(seen), np.nan, p)


def flip_seeds(by_seed: np.ndarray, *, seed: int) -> np.ndarray:
    """(M,) two-sided p of flipping the signs of the seeds' differences (S, M); NaN for one seed.

    Exact up to `EXACT_SEEDS` seeds. The smallest value that S seeds can give is 2 / 2^S: five
    seeds cannot reach 0.05, six can.
    """
    from scipy.stats import permutation_test

    seeds = len(by_seed)
    if seeds < 2:
        return np.full(by_seed.shape[1:], np.nan)
    result = permutation_test(
        (by_seed,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        axis=0,
        n_resamples=np.inf if seeds <= EXACT_SEEDS else RESAMPLES,
        batch=1024,
        rng=np.random.default_rng(seed),
    )
    p: np.ndarray = np.asarray(result.pvalue, float)
    return np.where(np.isnan(by_seed).any(0), np.nan, p)


def differences(table: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """(n, S, [P], 2, C) -> (S, M): the difference of every seed."""
    value = ratios(table.sum(0))
    return _over_pairs(value[..., 1, :] - value[..., 0, :], table, factor)


def sources(table: np.ndarray, factor: float = 1.0) -> Sources:
    """Variances of the mean difference by source; table (n, S, [P], 2, C).

    The images' variance is the sandwich of a ratio (Taylor linearisation, clusters = images).
    """
    pull = _over_pairs(pulls(table), table, factor)
    return sources_of(pull, differences(table, factor))


def sources_of(pull: np.ndarray, by_seed: np.ndarray) -> Sources:
    """Variances by source, from each image's pull (n, S, M) and each seed's difference (S, M)."""
    n, seeds = pull.shape[:2]
    mean = pull.mean(1)
    scale = n / max(n - 1, 1)
    images, freedom = scale * (mean**2).sum(0), image_freedom(mean)
    if seeds < 2:
        nothing = np.full(images.shape, np.nan)
        return Sources(images, nothing, nothing.copy(), freedom, n, seeds)
    within = scale * ((pull - mean[:, None]) ** 2).sum(0).mean(0)
    spread = by_seed.var(0, ddof=1) / seeds
    return Sources(images, spread, within / (seeds - 1), freedom, n, seeds)


def _over_pairs(values: np.ndarray, table: np.ndarray, factor: float) -> np.ndarray:
    """Values (..., [P], M) of a table, the mean over its pairs if it has any, times `factor`."""
    gap_by_seed: np.ndarray = factor * (values.mean(-2) if table.ndim == PAIRED else values)
    return gap_by_seed


def student(
    value: np.ndarray,
    variance: np.ndarray,
    freedom: np.ndarray | float,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Student's interval of values with estimated variances; NaN stays NaN."""
    from scipy.stats import t

    error = np.sqrt(variance)
    reach = t.ppf((1 + confidence) / 2, freedom) * error
    reach = np.where(error > 0, reach, np.nan)
    return Estimate(value, value - reach, value + reach)


def both_p(value: np.ndarray, by: Sources) -> np.ndarray:
    """(..., M) two-sided p of a difference over seeds and images, valid far out in the tails.

    The level at which the root of the summed squares of both sources' reaches (each by its own
    Student's t) just meets the difference. Holm's first step asks for p = 0.05 / contrasts, and
    out there degrees of freedom that suit a 95 % interval promise too much: 10 % false claims
    with 3 seeds and 4 contrasts. NaN where an interval has no width.
    """
    from scipy.optimize import elementwise
    from scipy.special import stdtrit

    def gap(
        log_p: np.ndarray, far: np.ndarray, seeds: np.ndarray, images: np.ndarray, many: np.ndarray
    ) -> np.ndarray:
        few, half = max(by.n_seeds - 1, 1), np.exp(log_p) / 2
        squares = seeds * stdtrit(few, half) ** 2 + images * stdtrit(many, half) ** 2
        beyond: np.ndarray = far - np.sqrt(squares / (seeds + images))
        return beyond

    out = np.full(value.shape, np.nan)
    known = by.both > 0
    far = np.abs(value[known]) / np.sqrt(by.both[known])
    parts = (far, by.seeds[known], by.images[known], by.image_freedom[known])
    smallest = np.full(len(far), np.log(SMALLEST_P))
    root = elementwise.find_root(gap, (smallest, np.zeros(len(far))), args=parts)
    log_p = np.where(root.success, root.x, np.where(gap(smallest, *parts) > 0, smallest, 0.0))
    out[known] = np.exp(log_p)
    return out


def equivalence_p(value: np.ndarray, by: Sources, margin: np.ndarray) -> np.ndarray:
    """(..., M) p of two one-sided tests that a difference is smaller than `margin`, either way.

    The larger of both p values, which is that of the nearer edge (Schuirmann 1987); over seeds and
    images, by the reaches of `both_p`. 1 where the difference is as large as the margin or larger.
    """
    room = margin - np.abs(value)
    p: np.ndarray = np.where(room > 0, both_p(np.maximum(room, 0), by) / 2, 1.0)
    return np.where(by.both > 0, p, np.nan)


def holm(p: Sequence[float], pending: int = 0) -> np.ndarray:
    """Holm's step-down correction over the p values that exist; NaN stays NaN.

    `pending`: declared contrasts that have no results yet. They count as the largest p, so that a
    report on a part of a sweep does not correct for less than the whole one will.

    Not statsmodels's `multipletests`, which a test holds this against: it collects garbage on
    every call (0.08 s), and a report corrects once for every measure, protocol and source.
    """
    raw = np.asarray(p, float)
    known = np.flatnonzero(np.isfinite(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    out = np.full(raw.shape, np.nan)
    steps = raw[order] * (np.arange(len(order), 0, -1) + pending)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return out


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Examples that only the second, only the first variant has right (bool arrays); exact p.

    McNemar's test takes expressions of one image for independent; `swap_images` does not.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    won, lost = int((second & ~first).sum()), int((first & ~second).sum())
    if won + lost == 0:
        return 0, 0, float("nan")
    both, none = int((first & second).sum()), int((~first & ~second).sum())
    return won, lost, float(test([[both, lost], [won, none]], exact=True).pvalue)


def standardised(values: np.ndarray) -> np.ndarray:
    """(k, M) -> (M,): mean over standard deviation with Hedges's correction for small k.

    NaN for two values or one: from two the corrected size is 0 whatever they are.
    """
    k = len(values)
    if k < 3:
        return np.full(values.shape[1:], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        size: np.ndarray = values.mean(0) / values.std(0, ddof=1) * (1 - 3 / (4 * (k - 1) - 1))
    return np.where(np.isfinite(size), size, np.nan)


def image_effect(table: np.ndarray) -> np.ndarray:
    """(M,) standardised difference over images (mean over seeds on each); table (n, S, 2, C)."""
    value = ratios(table)
    gap = (value[:, :, 1] - value[:, :, 0]).mean(1)
    out = np.full(gap.shape[1:], np.nan)
    for m in range(gap.shape[1]):
        known = gap[np.isfinite(gap[:, m]), m]
        out[m] = standardised(known[:, None])[0]
    return out


def columns_of(records: pd.DataFrame) -> np.ndarray:
    """(rows, C) of a frame of records, in the order of `COLUMNS`."""
    array: np.ndarray = records[list(COLUMNS)].to_numpy(float)
    return array
