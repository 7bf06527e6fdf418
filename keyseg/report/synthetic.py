"""Results with a known truth, to check intervals and verdicts against it.

One value of variant v, seed s, image i: `mu_v + tau_vs + a_i + b_vi + g_vsi`: the seed's luck, the
image's difficulty, the variant's way with the image (skewed), and what neither explains. Images
hold one to four expressions, so examples are clustered. gIoU and cIoU have the same truth, for
areas are drawn apart from the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keyseg.report import stats, verdict
from keyseg.report.measures import BY_NAME, COLUMNS, MEASURES

METRICS = ("giou", "ciou")
ROWS = [list(BY_NAME).index(name) for name in METRICS]


@dataclass(frozen=True)
class World:
    """Standard deviations of the parts, and the size of the test split."""

    images: int = 80
    tau: float = 0.025
    a: float = 0.2
    b: float = 0.12
    g: float = 0.12


@dataclass(frozen=True)
class Results:
    """`tables`: (images, seeds, 2, COLUMNS), one a contrast against the first variant.

    Truths of each (contrasts,), by the source that an interval is about; `of_images` for gIoU and
    cIoU are the same, `of_seeds` (contrasts, metrics) weighs these images as each metric does.
    """

    tables: list[np.ndarray]
    both: np.ndarray
    of_images: np.ndarray
    of_seeds: np.ndarray


def draw(mu: Sequence[float], seeds: int, world: World, rng: np.random.Generator) -> Results:
    """One synthetic sweep: variants with true means `mu`, the first one the baseline."""
    v, n = len(mu), world.images
    tau = world.tau * rng.standard_normal((v, seeds))
    skewed = world.b * (rng.exponential(size=(v, n)) - 1)
    value = (
        np.array(mu)[:, None, None]
        + tau[:, :, None]
        + world.a * rng.standard_normal(n)
        + skewed[:, None]
        + world.g * rng.standard_normal((v, seeds, n))
    )
    count = rng.integers(1, 5, n).astype(float)
    area = rng.lognormal(5, 0.5, n) * count
    areas = np.broadcast_to(area, value.shape)
    table = np.zeros((n, seeds, v, len(COLUMNS)))
    parts = {
        "examples": np.broadcast_to(count, value.shape),
        "iou": count * value,
        "union": areas,
        "intersection": areas * value,
    }
    for name, part in parts.items():
        table[..., COLUMNS.index(name)] = part.transpose(2, 1, 0)
    gap = np.array(mu[1:]) - mu[0]
    lean = skewed[1:] - skewed[0]
    return Results(
        [table[:, :, [0, k]] for k in range(1, v)],
        both=gap,
        of_images=gap + (tau[1:] - tau[0]).mean(1),
        of_seeds=gap[:, None]
        + np.stack([lean @ count / count.sum(), lean @ area / area.sum()], axis=1),
    )


def coverage(
    seeds: int,
    repeats: int,
    *,
    seed: int = 0,
    drawn: int | None = None,
    resamples: int = 999,
    naive: bool = False,
    world: World | None = None,
) -> dict[str, float]:
    """Share of 95 % intervals that hold the truth, by source and metric; images only of one seed.

    Args:
        drawn: how many of the `repeats` also get the bootstrap, which takes most of the time.
        naive: also the bootstrap that draws seeds and images ("naive both"), for comparison.
    """
    rng = np.random.default_rng(seed)
    held: dict[str, list[bool]] = {}
    for repeat in range(repeats):
        made = draw([0.5, 0.53], seeds, world or World(), rng)
        table = made.tables[0]
        value = stats.differences(table).mean(0)
        both = np.repeat(made.both, 2)
        found: dict[str, tuple[stats.Estimate, np.ndarray]] = {}
        if drawn is None or repeat < drawn:
            # One set of draws for all repeats: the results are new each time.
            interval = stats.bootstrap(table, seed=seed, resamples=resamples)
            found["images"] = interval, np.repeat(made.of_images, 2)
            if naive and seeds > 1:
                found["naive both"] = _naive(table, resamples, rng), both
        if seeds > 1:
            by = stats.sources(table)
            found["seeds"] = stats.student(value, by.seeds, seeds - 1)[0], made.of_seeds[0]
            found["both"] = stats.student(value, by.both, by.freedom)[0], both
        for source, (interval, truth) in found.items():
            for k, (metric, row) in enumerate(zip(METRICS, ROWS, strict=True)):
                inside = interval.low[row] <= truth[k] <= interval.high[row]
                held.setdefault(f"{source} {metric}", []).append(bool(inside))
    return {name: float(np.mean(hits)) for name, hits in held.items()}


def false_claims(
    seeds: int,
    repeats: int,
    *,
    variants: int = 5,
    seed: int = 0,
    resamples: int = 999,
    world: World | None = None,
) -> float:
    """Share of sweeps of variants that are truly alike in which any is called better or worse."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(repeats):
        made = draw([0.5] * variants, seeds, world or World(), rng)
        wrong += any(w in ("better", "worse") for w in verdicts(made, seed, resamples, ROWS[0]))
    return wrong / repeats


def verdicts(made: Results, seed: int, resamples: int, row: int) -> list[str]:
    """The words of all contrasts, for one measure, by the road that a report takes."""
    seeds = made.tables[0].shape[1]
    evidence = []
    for table in made.tables:
        value = stats.differences(table).mean(0)
        by = stats.sources(table)
        if seeds > 1:
            interval, p = stats.student(value, by.both, by.freedom)
        else:
            interval = stats.bootstrap(table, seed=seed, resamples=resamples)
            p = stats.swap_images(table, seed=seed, resamples=resamples)
        evidence.append((value[row], interval.low[row], interval.high[row], p[row], by))
    corrected = stats.holm([e[3] for e in evidence])
    return [
        verdict.word(
            verdict.Evidence(
                MEASURES[row],
                *(float(value), float(low), float(high), float(p), seeds, by.n_images),
                *(float(by.images[row]), float(by.seeds[row]), float(by.shared[row])),
                hours=float("nan"),
            )
        )
        for (value, low, high, _, by), p in zip(evidence, corrected, strict=True)
    ]


def _naive(table: np.ndarray, resamples: int, rng: np.random.Generator) -> stats.Estimate:
    """Percentile interval of a bootstrap that draws seeds and, apart from them, images."""
    n, seeds = table.shape[:2]
    kept = [COLUMNS.index(c) for c in ("iou", "examples", "intersection", "union")]
    slim = table[..., kept].reshape(n, -1)
    picked = rng.integers(0, seeds, (resamples, seeds))
    images = rng.multinomial(n, np.full(n, 1 / n), resamples) @ slim
    totals = images.reshape(resamples, seeds, 2, len(kept))
    ratio = totals[..., 0::2] / totals[..., 1::2]
    gap = np.take_along_axis(ratio[:, :, 1] - ratio[:, :, 0], picked[..., None], 1).mean(1)
    low, high = np.full((2, len(MEASURES)), np.nan)
    low[ROWS], high[ROWS] = np.quantile(gap, [0.025, 0.975], axis=0)
    return stats.Estimate(gap.mean(0), low, high)
