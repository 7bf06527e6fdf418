"""Score against budget, where a design varies it: a curve for each variant, and where two cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, isfinite

import numpy as np
import pandas as pd

from keyseg.report.stats.speed import hours_per_step
from keyseg.report.store import Sweep, VariantResult
from keyseg.runs.sweep_directory import label_of

KEY = "optim.steps"


@dataclass(frozen=True)
class Budget:
    """A variant at one budget. `steps` that were made, `hours` of training; means over seeds.

    `value`, `low`, `high`: its score and interval; `plateau`: whether all seeds are at one.
    """

    steps: float
    hours: float
    value: float
    low: float
    high: float
    plateau: bool


@dataclass(frozen=True)
class Curve:
    """The budgets of one variant (all factors but the budget), by rising steps."""

    label: str
    index: int
    budgets: Sequence[Budget]


@dataclass(frozen=True)
class Crossing:
    """Where the first curve's score less the second's changes its sign, on one axis.

    `at`: the budget there, on a line over its logarithm; `before`, `after`: differences at the
    neighbouring budgets. `axis`: "steps" or "hours".
    """

    first: str
    second: str
    axis: str
    at: float
    before: float
    after: float


def curves(sweep: Sweep, scores: pd.DataFrame, metric: str) -> list[Curve]:
    """A curve for each variant with results at two budgets or more, under the headline protocol."""
    whole = scores[(scores["slice"] == "") & (scores["protocol"] == sweep.headline)]
    rows = {r["label"]: r for r in whole[whole["metric"] == metric].to_dict("records")}
    grouped: dict[str, list[VariantResult]] = {}
    for variant in sweep.variants:
        rest = {key: value for key, value in variant.factors.items() if key != KEY}
        if KEY in variant.factors and variant.label in rows:
            grouped.setdefault(label_of(rest) or sweep.name, []).append(variant)
    drawn: list[Curve] = []
    for label, variants in grouped.items():
        budgets = [_budget(variant, rows[variant.label]) for variant in variants]
        known = sorted((b for b in budgets if isfinite(b.steps)), key=lambda b: b.steps)
        if len({b.steps for b in known}) > 1:
            drawn.append(Curve(label, len(drawn), known))
    return drawn


def _budget(variant: VariantResult, row: dict[object, object]) -> Budget:
    cells = variant.finished
    hours = [c.number("steps") * hours_per_step(c) for c in cells]
    value, low, high = (float(str(row[name])) for name in ("value", "low", "high"))
    mean = float(np.mean(hours))
    return Budget(variant.mean("steps"), mean, value, low, high, variant.at_plateau)


def crossings(curves: Sequence[Curve]) -> list[Crossing]:
    """Every crossing of two curves, against steps and against hours, within what both reach."""
    return [
        crossing
        for first, second in combinations(curves, 2)
        for axis in ("steps", "hours")
        for crossing in _between(first, second, axis)
    ]


def _between(first: Curve, second: Curve, axis: str) -> list[Crossing]:
    lines = []
    for curve in (first, second):
        known = [(x, b.value) for b in curve.budgets if isfinite(x := getattr(b, axis)) and x > 0]
        if len(known) < 2:
            return []
        x, y = np.array(sorted(known)).T
        lines.append((np.log(x), y))
    low = max(x[0] for x, _ in lines)
    high = min(x[-1] for x, _ in lines)
    grid = np.unique(np.concatenate([x for x, _ in lines]))
    grid = grid[(grid >= low) & (grid <= high)]
    gap = np.interp(grid, *lines[0]) - np.interp(grid, *lines[1])
    grid, gap = grid[gap != 0], gap[gap != 0]  # where they meet, the sign on either side tells
    out = []
    for i in np.flatnonzero(np.sign(gap[:-1]) != np.sign(gap[1:])):
        before, after = float(gap[i]), float(gap[i + 1])
        at = exp(float(grid[i] + (grid[i + 1] - grid[i]) * before / (before - after)))
        out.append(Crossing(first.label, second.label, axis, at, before, after))
    return out
