"""What stopping early costs and saves: synthetic sweeps, read look by look and all at once.

Every contrast is one variant against the first, on gIoU. A variant gets more seeds as long as its
contrast is open, the first one as long as any is. Shapes: L looks, R sweeps, K contrasts, n images,
S seeds, V = K + 1 variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keyseg.metrics import COLUMNS
from keyseg.report.stats import inference, sequential
from keyseg.report.stats.inference import Sources
from keyseg.report.stats.sequential import Corrected
from keyseg.report.stats.simulation import failures
from keyseg.report.stats.synthetic import GAP, MU, World, draw
from keyseg.runs.looks import FAMILIES, LOOKS, OPEN, LookPlan

READ = tuple(sorted({*LOOKS, 5}))
"""Seeds that sweeps are read at: all looks, and 5, which many take."""


@dataclass(frozen=True)
class Read:
    """What so many `seeds` show of R sweeps, each (L, R, K): two-sided p, p of equivalence, chance
    of a verdict by the last look, by family."""

    seeds: tuple[int, ...]
    p: np.ndarray
    equivalence: np.ndarray
    chance: dict[str, np.ndarray]


@dataclass(frozen=True)
class Endings:
    """How R sweeps ended: `words` (R, K), `seeds` (R, V) that each variant got.

    `small` (R, K): whether the difference was shown to be smaller than the margin, beside whatever
    word.
    """

    words: np.ndarray
    small: np.ndarray
    seeds: np.ndarray

    @property
    def cells(self) -> float:
        """Mean cells of a sweep."""
        return float(self.seeds.sum(1).mean())

    def some(self, word: str, which: Sequence[int]) -> float:
        """Share of sweeps in which any of these contrasts has the word."""
        return float((self.words[:, list(which)] == word).any(1).mean())

    def each(self, word: str, which: Sequence[int]) -> float:
        """Share of these contrasts that have the word."""
        return float((self.words[:, list(which)] == word).mean())


def read(
    mu: Sequence[float],
    margin: Sequence[float],
    world: World,
    repeats: int,
    seed: int,
    looks: tuple[int, ...] = LOOKS,
) -> Read:
    """Draw sweeps of variants with scores `mu`, the first the baseline, and read them.

    At the seeds of all `looks`, and at those of usual designs up to the last. `margin` (K,): of
    each contrast, a fraction.
    """
    rng = np.random.default_rng(seed)
    at_seeds = tuple(sorted({*looks, *(n for n in READ if n <= looks[-1])}))
    size = len(at_seeds), repeats, len(mu) - 1
    values, parts = np.full(size, np.nan), np.full((4, *size), np.nan)
    counts = np.zeros(size, int)
    for r in range(repeats):
        pull, by_seed, failed = _pulls(mu, looks[-1], world, rng)
        for at, n in enumerate(at_seeds):
            for k, kept in _groups(failed[:n]):
                counts[at, r, k] = kept.sum()
                if kept.sum() > 1:
                    seen = by_seed[:n][kept][:, k]
                    by = inference.sources_of(pull[:, :n][:, kept][:, :, k], seen)
                    values[at, r, k] = seen.mean(0)
                    parts[:, at, r, k] = by.images, by.seeds, by.interaction, by.image_freedom
    return _read(values, parts, counts, np.array(margin), world.images, at_seeds, looks)


def _pulls(
    mu: Sequence[float], seeds: int, world: World, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each image adds to each contrast (n, S, K), its difference for every seed (S, K), and
    whether a training of it collapsed (S, K)."""
    made = draw(mu, seeds, world, rng)
    examples = made.table[..., COLUMNS.index("examples")]
    iou = made.table[..., COLUMNS.index("iou")]
    value = iou.sum(0) / examples.sum(0)
    pull = (iou - value * examples) / examples.sum(0)
    failed = failures(made)
    by_seed = value[:, 1:] - value[:, :1]
    return pull[:, :, 1:] - pull[:, :, :1], by_seed, failed[:, 1:] | failed[:, :1]


def _groups(failed: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Contrasts (indices) that have the same seeds left, and which those are (S,)."""
    if not failed.any():
        return [(np.arange(failed.shape[1]), np.ones(len(failed), bool))]
    patterns, which = np.unique(failed, axis=1, return_inverse=True)
    return [(np.flatnonzero(which == i), ~pattern) for i, pattern in enumerate(patterns.T)]


def _read(
    values: np.ndarray,
    parts: np.ndarray,
    counts: np.ndarray,
    margin: np.ndarray,
    images: int,
    at_seeds: tuple[int, ...],
    looks: tuple[int, ...],
) -> Read:
    """p values and chances of all looks, those of as many seeds together; NaN of too few."""
    p, small = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    hope = {family: np.ones(values.shape) for family in FAMILIES}
    margins = np.broadcast_to(margin, values.shape)
    for n in sorted(set(counts[counts > 1].tolist())):
        here = counts == n
        of_images, of_seeds, shared, freedom = (part[here] for part in parts)
        by = Sources(of_images, of_seeds, shared, freedom, images, n)
        p[here] = inference.both_p(values[here], by)
        small[here] = inference.equivalence_p(values[here], by, margins[here])
        for family, reachable in hope.items():
            args = margins[here], family, looks, len(margin)
            reachable[here] = sequential.chance(values[here], by, *args).any
    return Read(at_seeds, p, small, hope)


def fixed(seen: Read, seeds: int) -> Endings:
    """The verdicts of so many seeds for everyone, by Holm's method: the usual design."""
    at = seen.seeds.index(seeds)
    _, repeats, contrasts = seen.p.shape
    corrected = [
        Corrected(*(inference.holm(np.nan_to_num(each, nan=1.0)) for each in pair))
        for pair in zip(seen.p[at], seen.equivalence[at], strict=True)
    ]
    words, small = np.array([t.words for t in corrected]), np.array([t.small for t in corrected])
    return Endings(words, small, np.full((repeats, contrasts + 1), seeds))


def stopped(seen: Read, family: str, looks: tuple[int, ...] = LOOKS) -> Endings:
    """The verdicts of looks at which contrasts that are decided, or futile, get no more seeds."""
    at_look = [seen.seeds.index(n) for n in looks]
    _, repeats, contrasts = seen.p.shape
    words = np.full(seen.p.shape[1:], OPEN, object)
    limits = np.zeros(words.shape, bool)
    seeds = np.zeros((repeats, contrasts + 1), int)
    for r in range(repeats):
        p, equivalence = seen.p[at_look, r], seen.equivalence[at_look, r]
        for look, n in enumerate(looks):
            running = words[r] == OPEN
            if not running.any():
                break
            seeds[r, 1:][running] = seeds[r, 0] = n
            p[look, ~running] = equivalence[look, ~running] = np.nan
            now = sequential.corrected(p[: look + 1], equivalence[: look + 1], family, looks)
            limits[r] |= now.small
            words[r] = sequential.ruled(now, seen.chance[family][at_look[look], r], words[r])
    return Endings(words, limits, seeds)


MIX_MARGIN, MIX_WIDE = 0.05, 0.25
"""Of the mix: its margin, a fraction of gIoU, and what of the score is 10 points of gIoU."""


def mix(contrasts: int) -> tuple[list[int], list[int], list[int]]:
    """Which contrasts of a mix are alike, 2.5 points apart, and 10: half, a quarter, a quarter."""
    every = range(contrasts)
    far = [k for k in every if k % 4 == 3] or [0]
    near = [k for k in every if k % 4 == 2]
    return [k for k in every if k not in (*far, *near)], near, far


def expected_share(plan: LookPlan, contrasts: int, repeats: int = 40) -> float:
    """Of the cells of all seeds for everyone, those that a mix of contrasts takes on average."""
    _, near, far = mix(contrasts)
    shift = [MIX_WIDE if k in far else GAP if k in near else 0.0 for k in range(contrasts)]
    mu, margin = [MU, *(MU + s for s in shift)], [MIX_MARGIN] * contrasts
    seen = read(mu, margin, World(images=100), repeats, 0, plan.at)
    return stopped(seen, plan.family, plan.at).cells / (plan.at[-1] * len(mu))
