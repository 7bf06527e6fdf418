"""Results with a known truth, to check intervals and verdicts against it.

The logit-like score of variant v, seed s, expression j of image i is

    z = mu_v + tau_vs + (image i) + (expression j) + b_vi + g_vsi + h_vsj

and its IoU 0.95 Phi(z / 0.35): the seed's luck, difficulty, the variant's way with the image
(skewed), and what neither explains. As on real test splits, IoUs heap up near 0 and near 0.95,
images hold one to eight expressions, objects differ much in size, and large ones are easier, so
that the images' shares in cIoU are very unequal. A prediction is as large as its target.

In a world with collapse some trainings lose `drop` of their score. The truth of "both" is that of
trainings that succeed, "everyone" counts the others in.

Truths are those of the population: integrals over what a source draws anew, with the rest held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from keyseg.metrics import BY_NAME, COLUMNS

METRICS = ("giou", "ciou", "precision@0.5")
ROWS = [list(BY_NAME).index(name) for name in METRICS]
SUMS = ("iou", "above_0.5", "intersection", "union")
"""What an expression adds to, beside one example."""
_TOP, WIDTH = 0.95, 0.35
EXPRESSIONS = np.array([1, 2, 2, 3, 3, 4, 8])
"""Expressions of an image; each entry is as likely."""
POPULATION = 200_000
MU, GAP = 0.2, 0.06
"""A gIoU near 61 %, and a second variant 2.5 points above it."""


@dataclass(frozen=True)
class World:
    """Standard deviations of the parts of z, and the size of the test split."""

    images: int = 200
    tau: float = 0.05
    image: float = 0.3
    expression: float = 0.3
    b: float = 0.2
    g: float = 0.15
    h: float = 0.15
    size: float = 0.7
    """Of an object's logarithmic area."""
    ease: float = 0.5
    """Correlation of size and ease."""
    collapse: tuple[float, float] = (0.0, 0.0)
    """Share of trainings that collapse: of the first variant, and of every other."""
    drop: float = 0.8
    """What a collapsed training loses of z: some 45 points of gIoU."""


@dataclass(frozen=True)
class Split:
    """A test split of m expressions on n images: `first` (n,) where each image's begin."""

    first: np.ndarray
    image: np.ndarray
    area: np.ndarray
    ease: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """(n,) expressions of each image."""
        return np.diff(self.first, append=len(self.image))

    def by_image(self, values: np.ndarray) -> np.ndarray:
        """(..., m) -> (..., n) sums."""
        summed: np.ndarray = np.add.reduceat(values, self.first, axis=-1)
        return summed


@dataclass(frozen=True)
class Results:
    """A synthetic sweep of V variants: `table` (images, seeds, V, COLUMNS).

    Truths (V, METRICS) by the source that an interval is about; "everyone": "both" over all
    trainings, collapsed ones among them.
    """

    table: np.ndarray
    both: np.ndarray
    everyone: np.ndarray
    of_images: np.ndarray
    of_seeds: np.ndarray

    def pairs(self, which: Pairs) -> np.ndarray:
        """(images, seeds, P, 2, COLUMNS) of pairs of variants (against, of)."""
        chosen: np.ndarray = self.table[:, :, np.array(which)]
        return chosen


Pairs = Sequence[tuple[int, int]]


def gap(truth: np.ndarray, which: Pairs, factor: float = 1.0) -> np.ndarray:
    """(V, METRICS) -> (METRICS,): the truth of a contrast of pairs (against, of)."""
    truth_of: np.ndarray = factor * np.mean([truth[of] - truth[base] for base, of in which], axis=0)
    return truth_of


def split(world: World, rng: np.random.Generator, images: int) -> Split:
    """A test split drawn from the world's images."""
    count = rng.choice(EXPRESSIONS, images)
    image = np.repeat(np.arange(images), count)
    of_image, own = rng.standard_normal((2, images)), rng.standard_normal((2, len(image)))
    size, other = of_image[:, image] / np.sqrt(2), own / np.sqrt(2)
    apart = np.sqrt(1 - world.ease**2)
    hard = np.sqrt(2) * np.array([world.image, world.expression])
    ease = sum(
        scale * (world.ease * part[0] + apart * part[1])
        for scale, part in zip(hard, (size, other), strict=True)
    )
    area = np.exp(5 + world.size * (size[0] + other[0]))
    return Split(np.cumsum(count) - count, image, area, np.asarray(ease))


def outcome(z: np.ndarray) -> np.ndarray:
    """(4, ...) `SUMS` of a score; intersection and union of a target of area 1."""
    from scipy.special import ndtr

    iou = _TOP * ndtr(z / WIDTH)
    union = 2 / (1 + iou)
    return np.stack([iou, iou > 0.5, iou * union, union])


def values(sums: np.ndarray, count: np.ndarray | float) -> np.ndarray:
    """(4, ...) summed `SUMS` -> (..., METRICS)."""
    scores: np.ndarray = np.stack([sums[0] / count, sums[2] / sums[3], sums[1] / count], -1)
    return scores


def draw(mu: Sequence[float], seeds: int, world: World, rng: np.random.Generator) -> Results:
    """One synthetic sweep: variants with means `mu` of z, the first one the baseline."""
    means, v, n = np.array(mu, float), len(mu), world.images
    made = split(world, rng, n)
    m = len(made.image)
    tau = world.tau * rng.standard_normal((v, seeds))
    b = world.b * (rng.exponential(size=(v, n)) - 1)
    fixed = means[:, None] + made.ease + b[:, made.image]
    noise = world.g * rng.standard_normal((v, seeds, n))[..., made.image]
    noise += world.h * rng.standard_normal((v, seeds, m))
    often = np.array([world.collapse[0], *[world.collapse[1]] * (v - 1)])
    lost = world.drop * (rng.random((v, seeds)) < often[:, None]) if often.any() else 0
    luck = tau - lost
    parts = outcome(fixed[:, None] + luck[:, :, None] + noise)
    parts[2:] *= made.area
    table = np.zeros((n, seeds, v, len(COLUMNS)))
    table[..., COLUMNS.index("examples")] = made.count[:, None, None]
    for name, part in zip(SUMS, made.by_image(parts), strict=True):
        table[..., COLUMNS.index(name)] = part.transpose(2, 1, 0)
    nodes, weights = _normal()
    whole = population(world)
    lucky = means[:, None] + world.tau * nodes
    both = np.einsum("k,vkm->vm", weights, whole(lucky))
    lowered = np.einsum("k,vkm->vm", weights, whole(lucky - world.drop))
    here = np.einsum("k,vkm->vm", weights, _on_these(fixed, made, world, nodes))
    everyone = (1 - often[:, None]) * both + often[:, None] * lowered
    return Results(table, both, everyone, whole(means[:, None] + luck).mean(1), here)


class Population:
    """Expected values of a variant over all images, by its mean score with the seed's luck in."""

    def __init__(self, world: World) -> None:
        from scipy.interpolate import CubicSpline

        rng = np.random.default_rng(20261124)
        made = split(world, rng, POPULATION)
        z = made.ease + world.b * (rng.exponential(size=POPULATION) - 1)[made.image]
        z += np.hypot(world.g, world.h) * rng.standard_normal(len(z))
        grid = np.linspace(-1.4, 1.4, 57)
        results = []
        for mean in grid:
            parts = outcome(z + mean)
            parts[2:] *= made.area
            results.append(values(parts.sum(-1), len(z)))
        self._spline = CubicSpline(grid, np.array(results))

    def __call__(self, mean: np.ndarray) -> np.ndarray:
        """(...) -> (..., METRICS)."""
        value: np.ndarray = self._spline(mean)
        return value


def population(world: World) -> Population:
    """Of a world, whatever its seeds and however many images a split has; made once."""
    return _population(replace(world, images=0, tau=0.0, collapse=(0.0, 0.0), drop=0.0))


@lru_cache(maxsize=8)
def _population(world: World) -> Population:
    return Population(world)


@lru_cache(maxsize=1)
def _normal() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights that average over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    return nodes, weights / weights.sum()


def _on_these(fixed: np.ndarray, made: Split, world: World, nodes: np.ndarray) -> np.ndarray:
    """(v, k, METRICS): values expected on this split of seeds with luck tau * `nodes`."""
    grid, smooth = _smoothed(float(np.hypot(world.g, world.h)))
    score = fixed[:, None] + world.tau * nodes[:, None]
    parts = np.stack([np.interp(score, grid, part) for part in smooth])
    parts[2:] *= made.area
    return values(parts.sum(-1), len(made.image))


@lru_cache(maxsize=8)
def _smoothed(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A grid of scores, and (4, grid) `outcome` averaged over normal noise on each."""
    from scipy.special import ndtri

    grid = np.linspace(-6, 6, 2401)
    steps = noise * ndtri((np.arange(500) + 0.5) / 500)
    return grid, np.mean([outcome(grid + step) for step in steps], axis=0)
