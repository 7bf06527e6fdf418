"""What it loses to drop variants at a small budget: simulated sweeps whose curves may cross.

Shapes: n images, S seeds, V variants, P ordered pairs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from keyseg.metrics import COLUMNS
from keyseg.report.stats import inference
from keyseg.report.stats.drops import behind
from keyseg.report.stats.synthetic import GAP, World, draw
from keyseg.report.stats.verdict import ALPHA

_SLOPE = 0.025 / GAP
"""gIoU for one of the score, near its middle: a `GAP` is 2.5 points."""
_UNTRAINED = -1.0
"""The score of a model that has learnt nothing: a gIoU near 0."""


@dataclass(frozen=True)
class Curves:
    """How scores rise with the budget b of at most 1: to `1 - exp(-b / tau)` of the final one.

    `tau`: of most variants; `late`: the share of variants whose tau is `later` times as long.
    """

    tau: float = 0.04
    late: float = 0.0
    later: float = 8.0


@dataclass(frozen=True)
class Lost:
    """Shares over simulated sweeps: in which the best at the full budget was dropped, in which a
    variant within `near` of it was, and of the variants that were dropped."""

    best: float
    near: float
    dropped: float


def lost(
    curves: Curves,
    budget: float,
    margin: float,
    *,
    variants: int = 8,
    seeds: int = 3,
    repeats: int = 200,
    near: float = 0.02,
    seed: int = 0,
) -> Lost:
    """What dropping at `budget` (of 1, the largest) loses. `margin`, `near`: fractions of gIoU."""
    rng = np.random.default_rng(seed)
    world = World(images=100)
    best, close, gone = np.zeros(repeats), np.zeros(repeats), np.zeros(repeats)
    for r in range(repeats):
        final = rng.normal(0.2, 0.2, variants)  # of the score behind gIoU: about 8 points apart
        tau = curves.tau * np.where(rng.random(variants) < curves.late, curves.later, 1.0)
        reached = (1 - np.exp(-budget / tau)) / (1 - np.exp(-1 / tau))
        at_budget = _UNTRAINED + (final - _UNTRAINED) * reached
        out = _dropped(list(at_budget), seeds, world, margin, rng)
        ranks = final >= final.max() - near / _SLOPE
        best[r], close[r], gone[r] = out[final.argmax()], (out & ranks).any(), out.mean()
    return Lost(float(best.mean()), float(close.mean()), float(gone.mean()))


def _dropped(
    mu: Sequence[float],
    seeds: int,
    world: World,
    margin: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """(V,) bool: who is dropped in a simulated sweep, in which no training collapses."""
    made = draw(mu, seeds, world, rng)
    examples = made.table[..., COLUMNS.index("examples")]
    iou = made.table[..., COLUMNS.index("iou")]
    value = iou.sum(0) / examples.sum(0)  # (S, V)
    pull = (iou - value * examples) / examples.sum(0)  # (n, S, V)
    pairs = np.array(list(permutations(range(len(mu)), 2)))
    gap = value[:, pairs[:, 0]] - value[:, pairs[:, 1]]
    by = inference.sources_of(pull[:, :, pairs[:, 0]] - pull[:, :, pairs[:, 1]], gap)
    p = behind(gap.mean(0), by, margin) * len(pairs)
    out = np.zeros(len(mu), bool)
    out[pairs[p <= ALPHA, 0]] = True
    return out
