"""Do intervals cover and verdicts hold? Counted on synthetic sweeps, with the report's own code.

Shapes: R sweeps, K contrasts, S seeds, V variants, METRICS of `synthetic`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keyseg.metrics import BY_NAME, COLUMNS, MEASURES, ratios
from keyseg.report.stats import inference, verdict
from keyseg.report.stats.collapse import Side, collapsed, with_collapse
from keyseg.report.stats.inference import Estimate, Sources
from keyseg.report.stats.margin import SCORE_MARGIN
from keyseg.report.stats.resamples import draws
from keyseg.report.stats.synthetic import GAP, METRICS, MU, ROWS, Results, World, draw, gap

PLAIN, MAIN, INTERACTION = ((0, 1),), ((0, 1), (2, 3)), ((2, 3), (1, 0))
"""Pairs (against, of) of a 2 x 2 design's variants; an interaction's factor is 2."""
DESIGN = (MU, MU + GAP, MU + GAP, MU + 1.5 * GAP)
"""Scores of a 2 x 2 design whose factors hinder each other by half."""
_WIDE = 0.25
"""A difference of 10 points of gIoU."""
BETTER = frozenset({"better", "worse"})
OF_ONE_SEED = frozenset({"one seed (better)", "one seed (worse)"})
_SMALL = frozenset({"no difference", "smaller than"})


def coverage(
    seeds: int,
    repeats: int,
    *,
    seed: int = 0,
    resamples: int = 999,
    naive: bool = False,
    world: World | None = None,
) -> dict[str, float]:
    """Share of 95 % intervals that hold the truth, by source and metric; images only of one seed.

    In a world with collapse: of the trainings that succeeded, of all, and of Student's t that does
    not tell them apart ("not told apart"). "given ...": the share of sweeps that have the interval.

    Args:
        seeds: of each variant.
        repeats: sweeps.
        seed: fixes all that is drawn.
        resamples: of each bootstrap; 0 = none.
        naive: also the bootstrap that draws seeds and images ("naive both"), for comparison.
        world: None = the usual one.
    """
    rng, place = np.random.default_rng(seed), world or World()
    covered: dict[str, list[bool]] = {}
    for _ in range(repeats):
        made = draw(DESIGN, seeds, place, rng)
        if any(place.collapse):
            intervals = dict(_apart(made))
        else:
            intervals = dict(_by_source(made, seed, resamples))
            if naive and resamples and seeds > 1:
                interval = _naive(made.pairs(PLAIN)[:, :, 0], seed, resamples, rng)
                intervals["naive both"] = interval, gap(made.both, PLAIN)
        for source, (interval, truth) in intervals.items():
            for k, (metric, row) in enumerate(zip(METRICS, ROWS, strict=True)):
                inside = interval.low[row] <= truth[k] <= interval.high[row]
                covered.setdefault(f"{source} {metric}", []).append(bool(inside))
    shares = {name: float(np.mean(hits)) for name, hits in covered.items()}
    rare = {name: len(hits) / repeats for name, hits in covered.items() if len(hits) < repeats}
    return shares | {f"given {name.rpartition(' ')[0]}": share for name, share in rare.items()}


Judged = tuple[str, tuple[Estimate, np.ndarray]]


def _by_source(made: Results, seed: int, resamples: int) -> Iterator[Judged]:
    """Each interval of a sweep in which nothing collapses, and its truth."""
    table = made.pairs(PLAIN)
    seeds = table.shape[1]
    if resamples:  # one set of draws for all sweeps: the results are new each time
        interval = inference.bootstrap(table[:, :, 0], seed=seed, resamples=resamples)
        yield "images", (interval, gap(made.of_images, PLAIN))
    if seeds < 2:
        return
    by = inference.sources(table)
    value = inference.differences(table).mean(0)
    alone = inference.student(value, by.seeds, seeds - 1)
    yield "seeds", (alone, gap(made.of_seeds, PLAIN))
    yield "both", (inference.student(value, by.both, by.freedom), gap(made.both, PLAIN))
    for name, which, factor in (("main effect", MAIN, 1.0), ("interaction", INTERACTION, 2.0)):
        yield name, (_both(made.pairs(which), factor), gap(made.both, which, factor))


def _both(table: np.ndarray, factor: float = 1.0) -> Estimate:
    by = inference.sources(table, factor)
    value = inference.differences(table, factor).mean(0)
    return inference.student(value, by.both, by.freedom)


def _apart(made: Results) -> Iterator[Judged]:
    """Each interval of a sweep in which trainings collapse; those that a report would give."""
    table, failed = made.pairs(PLAIN), failures(made)
    kept = ~failed[:, :2].any(1)
    yield "not told apart", (_both(table), gap(made.everyone, PLAIN))
    if kept.sum() < 2:
        return
    succeeded = _both(table[:, kept])
    yield "succeeded", (succeeded, gap(made.both, PLAIN))
    if failed[:, :2].any():
        scores = ratios(table[:, :, 0].sum(0))
        sides = [Side(scores[:, k], failed[:, k], 2.0 * k - 1) for k in (0, 1)]
        whole = with_collapse(inference.differences(table).mean(0), succeeded, sides)
        if not any(side.failed.all() for side in sides):
            yield "all", (whole, gap(made.everyone, PLAIN))


def failures(made: Results) -> np.ndarray:
    """(S, V) bool: which trainings a report takes for collapsed."""
    scores = ratios(made.table.sum(0))[..., list(BY_NAME).index("giou")]
    return np.stack([collapsed(of_variant) for of_variant in scores.T], 1)


@dataclass(frozen=True)
class Claims:
    """Shares of sweeps with a false claim, and of contrasts with a right one, by metric."""

    false: dict[str, float]
    right: dict[str, float]


def alike(
    seeds: int,
    repeats: int,
    *,
    variants: int = 5,
    seed: int = 0,
    resamples: int = 999,
    world: World | None = None,
) -> Claims:
    """Truly alike variants: any called better or worse is false, "no difference" is right.

    Of one seed the words "one seed (better)" and "one seed (worse)" are counted. They speak of
    the weights at hand, which are truly alike only in a world without seed effects (`tau=0`).
    """
    means, margin = [MU] * variants, [SCORE_MARGIN] * len(METRICS)
    said = words(means, margin, seeds, repeats, seed, resamples, world or World())
    return _claims(said, BETTER if seeds > 1 else OF_ONE_SEED, _SMALL)


def apart(
    seeds: int,
    repeats: int,
    *,
    variants: int = 5,
    seed: int = 0,
    resamples: int = 999,
    world: World | None = None,
) -> Claims:
    """Variants that differ from the first by exactly the margin, which is where it is hardest.

    The margin is wide (10 points), so that seeds and images could show a smaller difference: where
    they cannot, nothing is ever called small, and no claim is false for want of claims. Any called
    smaller than the margin is false ("no difference", or "by less than" beside another word),
    "better" is right. Each metric's margin is its own true difference.
    """
    place = world or World()
    truth = draw([MU, MU + _WIDE], 1, place, np.random.default_rng(seed)).both
    means, margin = [MU] + [MU + _WIDE] * (variants - 1), list(gap(truth, PLAIN))
    said = words(means, margin, seeds, repeats, seed, resamples, place)
    return _claims(said, _SMALL | {"by less than"}, frozenset({"better"}))


def _claims(said: np.ndarray, false: frozenset[str], right: frozenset[str]) -> Claims:
    """said (R, K, METRICS) sets of words."""
    wrong = np.vectorize(lambda words: bool(words & false))(said).any(1).mean(0)
    true = np.vectorize(lambda words: bool(words & right))(said).mean((0, 1))
    shares = (dict(zip(METRICS, map(float, words), strict=True)) for words in (wrong, true))
    return Claims(*shares)


def words(
    mu: Sequence[float],
    margin: Sequence[float],
    seeds: int,
    repeats: int,
    seed: int,
    resamples: int,
    world: World,
) -> np.ndarray:
    """(R, K, METRICS) sets of what the verdicts of R sweeps claim, each contrast with the first.

    Trainings that collapsed are left out, as the verdicts of a report leave them out.
    """
    rng = np.random.default_rng(seed)
    each = [_tables(draw(mu, seeds, world, rng)) for _ in range(repeats)]
    flat = [table for sweep in each for table in sweep]
    judged = _judge(flat, np.array(margin), seed, resamples)
    shape = repeats, len(mu) - 1
    p, small = (_corrected(judged[name].reshape(*shape, -1)) for name in ("p", "equivalence"))
    said = np.empty((*shape, len(METRICS)), object)
    for place in np.ndindex(said.shape):
        at = place[0] * shape[1] + place[1], place[2]
        evidence = verdict.Evidence(
            measure=MEASURES[ROWS[place[2]]],
            difference=float(judged["value"][at]),
            low=float(judged["low"][at]),
            high=float(judged["high"][at]),
            p=float(p[place]),
            n_seeds=int(judged["seeds"][at[0]]),
            n_images=world.images,
            images=float(judged["images"][at]),
            seeds=float(judged["spread"][at]),
            interaction=0.0,
            hours=float("nan"),
            equivalence=float(small[place]),
            margin=float(margin[place[2]]),
        )
        limit = {"by less than"} if evidence.small else set()
        said[place] = frozenset({verdict.word(evidence), *limit})
    return said


def _corrected(p: np.ndarray) -> np.ndarray:
    """(R, K, METRICS) of single p values, by Holm's method over the contrasts of each sweep."""
    adjusted = np.array([[inference.holm(of_metric) for of_metric in sweep.T] for sweep in p])
    return adjusted.swapaxes(1, 2)


def _tables(made: Results) -> list[np.ndarray]:
    """(images, kept seeds, 2, COLUMNS) of every variant against the first."""
    failed = failures(made)
    out = []
    for k in range(1, made.table.shape[2]):
        kept = ~failed[:, [0, k]].any(1)
        out.append(made.table[:, kept][:, :, [0, k]])
    return out


def _judge(
    tables: Sequence[np.ndarray], margin: np.ndarray, seed: int, resamples: int
) -> dict[str, np.ndarray]:
    """Intervals and p values (tables, METRICS), those of as many seeds together: it is faster."""
    size = len(tables), len(METRICS)
    names = ("value", "low", "high", "p", "equivalence", "images", "spread")
    out = {name: np.full(size, np.nan) for name in names}
    out["seeds"] = np.array([table.shape[1] for table in tables])
    for count in sorted(set(out["seeds"])):
        rows = np.flatnonzero(out["seeds"] == count).tolist()
        if not count:
            continue
        by = _stack([inference.sources(tables[i]) for i in rows])
        value = np.array([inference.differences(tables[i]).mean(0)[ROWS] for i in rows])
        if count > 1:
            interval, p = inference.student(value, by.both, by.freedom), inference.both_p(value, by)
            small = inference.equivalence_p(value, by, np.broadcast_to(margin, value.shape))
        else:  # a report bootstraps this interval; which word is said hangs on p alone
            interval = inference.student(value, by.images, by.image_freedom)
            drawn = {"seed": seed, "resamples": resamples}
            p = np.array([inference.swap_images(tables[i], **drawn)[ROWS] for i in rows])
            small = np.full(p.shape, np.nan)
        numbers = (value, interval.low, interval.high, p, small, by.images, by.seeds)
        for name, values in zip(names, numbers, strict=True):
            out[name][rows] = values
    return out


def _stack(each: Sequence[Sources]) -> Sources:
    """Sources (tables, METRICS) of tables of one size."""
    parts = ("images", "seeds", "interaction", "image_freedom")
    arrays = {part: np.array([getattr(one, part)[ROWS] for one in each]) for part in parts}
    return Sources(**arrays, n_images=each[0].n_images, n_seeds=each[0].n_seeds)


def _naive(table: np.ndarray, seed: int, resamples: int, rng: np.random.Generator) -> Estimate:
    """Percentile interval of a bootstrap that draws seeds and, apart from them, images."""
    n, seeds = table.shape[:2]
    above = [COLUMNS.index(MEASURES[row].numerator.name) for row in ROWS]
    below = [COLUMNS.index(MEASURES[row].denominator.name) for row in ROWS]
    slim = table[..., above + below].reshape(n, -1)
    picked = rng.integers(0, seeds, (resamples, seeds))
    images = draws(n, seed, resamples).astype(np.float32) @ slim.astype(np.float32)
    totals = images.reshape(resamples, seeds, 2, 2, len(ROWS))
    ratio = totals[..., 0, :] / totals[..., 1, :]
    gap = np.take_along_axis(ratio[:, :, 1] - ratio[:, :, 0], picked[..., None], 1).mean(1)
    low, high = np.full((2, len(MEASURES)), np.nan)
    low[ROWS], high[ROWS] = np.quantile(gap, [0.025, 0.975], axis=0)
    return Estimate(gap.mean(0), low, high)
