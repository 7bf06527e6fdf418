"""How fast a variant learns: steps and GPU-hours to 90 % of its own plateau.

Only trainings that have reached a plateau have one. Times are compared as ratios, so means,
intervals and p values are those of their logarithms, over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, nan

import numpy as np

from keyseg.report.stats import inference
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.verdict import ALPHA, NO_RESULT
from keyseg.report.store import CellResult, Sweep, VariantResult
from keyseg.runs.convergence import PLATEAU, Point

REACHED_SHARE = 0.9
"""Of the plateau: where a training counts as having learnt."""
FASTER, SLOWER, _OPEN, ONE_SEED = "faster", "slower", "inconclusive", "one seed"


@dataclass(frozen=True)
class Spread:
    """A geometric mean over seeds with its 95 % interval; NaN = not known."""

    value: float = nan
    low: float = nan
    high: float = nan
    p: float = nan
    """Of the mean being 1."""


@dataclass(frozen=True)
class Speed:
    """Of a variant. `plateau`: mean of gIoU on val; `seeds`: those that reached one.

    `steps`, `hours`: to `REACHED_SHARE` of the plateau, by seed.
    """

    variant: VariantResult
    plateau: float
    steps: Mapping[int, float]
    hours: Mapping[int, float]

    @property
    def seeds(self) -> list[int]:
        """Seeds that are counted."""
        return sorted(self.steps)


@dataclass(frozen=True)
class Faster:
    """How many times the steps, and the GPU-hours, of the first side the second one takes."""

    contrast: Contrast
    steps: Spread
    hours: Spread
    seeds: int
    word: str


def speed(variant: VariantResult) -> Speed:
    """The speed of a variant, over its trainings at a plateau."""
    flat = [c for c in variant.finished if c.convergence.word == PLATEAU]
    cells = variant.finished if variant.at_plateau else flat
    ends = [c.convergence.end for c in cells if c.convergence.end is not None]
    plateau = float(np.mean(ends)) if ends else nan
    steps = {c.seed: steps_to(c.curves[0], REACHED_SHARE * plateau) for c in cells}
    steps = {seed: count for seed, count in steps.items() if isfinite(count)}
    hours = {c.seed: steps[c.seed] * hours_per_step(c) for c in cells if c.seed in steps}
    return Speed(variant, plateau, steps, hours)


def faster(sweep: Sweep) -> list[Faster]:
    """Every declared contrast; p of steps is corrected by Holm's method over them."""
    speeds = {v.label: speed(v) for v in sweep.variants}
    compared = []
    for contrast in declared(sweep):
        of, against = speeds[contrast.of.label], speeds[contrast.against.label]
        seeds = sorted(set(of.seeds) & set(against.seeds))
        ratios = [[s.steps[n], s.hours[n]] for n in seeds for s in (against, of)]
        pairs = np.array(ratios).reshape(-1, 2, 2)
        steps, hours = (spread(pairs[:, 0, i] / pairs[:, 1, i]) for i in (0, 1))
        compared.append((contrast, steps, hours, len(seeds)))
    pending = sum(count == 0 for *_, count in compared)
    corrected = inference.holm([steps.p for _, steps, _, _ in compared], pending)
    return [
        Faster(contrast, steps, hours, count, _word(steps, float(p), count))
        for (contrast, steps, hours, count), p in zip(compared, corrected, strict=True)
    ]


def _word(ratio: Spread, p: float, seeds: int) -> str:
    if seeds < 2:
        return ONE_SEED if seeds else NO_RESULT
    if not p <= ALPHA:
        return _OPEN
    return FASTER if ratio.value > 1 else SLOWER


def steps_to(curve: Sequence[Point], level: float) -> float:
    """Steps after which a curve first reaches a level, on a line between two evaluations.

    NaN: it never does, or the untrained model was there already.
    """
    if not curve or curve[0][1] >= level:
        return nan
    before = curve[0]
    for step, score in curve[1:]:
        if score >= level:
            share = (level - before[1]) / (score - before[1])
            return before[0] + share * (step - before[0])
        before = (step, score)
    return nan


def hours_per_step(cell: CellResult) -> float:
    """GPU-hours of one step (of processes where there was no GPU), without evaluations."""
    last = (cell.info.get("attempts") or [{}])[-1]
    devices = last.get("gpus") or last.get("processes") or 1
    return cell.number("seconds_per_step") * devices / 3600


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """The geometric mean of positive values, with Student's interval on their logarithms."""
    logs = [log(value) for value in values if isfinite(value) and value > 0]
    if len(logs) < 2:
        return Spread(exp(logs[0])) if logs else Spread()
    from scipy.stats import t

    mean, error = float(np.mean(logs)), float(np.std(logs, ddof=1)) / len(logs) ** 0.5
    if error == 0:
        return Spread(exp(mean))
    reach = float(t.ppf(0.975, len(logs) - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, len(logs) - 1))
    return Spread(exp(mean), exp(mean - reach), exp(mean + reach), p)
