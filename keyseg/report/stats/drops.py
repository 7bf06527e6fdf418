"""Which variants are plainly behind at a budget: each against each, over seeds and images.

A variant is behind another by more than a margin where a one-sided test says so (`both_p` of what
lies beyond the margin), corrected for all ordered pairs: the best is not known before. That holds
for the budget at hand and no other, for curves cross: `drops_simulation` says what that costs.
"""

from __future__ import annotations

from itertools import permutations
from math import isfinite
from pathlib import Path

import numpy as np

from keyseg.metrics import MEASURES
from keyseg.report.stats import inference
from keyseg.report.stats.comparison import seed_table
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.inference import Sources
from keyseg.report.stats.looks import samples_hash
from keyseg.report.stats.verdict import ALPHA
from keyseg.report.store import Sweep, VariantResult, load
from keyseg.runs import drops
from keyseg.runs.drops import BUDGET, Drop, JudgedBudget

_LEAST = 2
"""Seeds of a pair that tell."""


def behind(value: np.ndarray, by: Sources, margin: float) -> np.ndarray:
    """(M,) one-sided p that a variant is not behind by more than `margin`; `value`: its difference
    to the other."""
    beyond = -value - margin
    p = np.where(beyond > 0, inference.both_p(np.maximum(beyond, 0), by) / 2, 1.0)
    known: np.ndarray = np.nan_to_num(p, nan=1.0)
    return known


def judge(sweep_dir: Path, steps: int) -> JudgedBudget:
    """Compare the variants of a sweep at a budget."""
    return judged(load(sweep_dir), steps)


def judged(sweep: Sweep, steps: int) -> JudgedBudget:
    """`judge`, of a loaded sweep. The baseline, against which all others are held, stays."""
    metric = sweep.metrics[0]
    m = [measure.name for measure in MEASURES].index(metric)
    margin = float(sweep.design["drop_behind"]) / 100
    here = [v for v in sweep.variants if int(v.factors[BUDGET]) == steps and v.finished]
    pairs = max(len(here) * (len(here) - 1), 1)
    wanted = dict(sweep.design.get("baseline") or {}) | {BUDGET: steps}
    worst: dict[str, Drop] = {}
    for variant, other in permutations(here, 2):
        if variant.matches(wanted):
            continue
        drop = _compared(variant, other, sweep.headline, margin, m)
        if drop is not None and drop.p * pairs <= ALPHA:
            name = drop.variant
            corrected = Drop(name, drop.behind, drop.difference, drop.p * pairs)
            if name not in worst or corrected.difference < worst[name].difference:
                worst[name] = corrected
    hashes = {c.signature: samples_hash(c.directory) for v in here for c in v.finished}
    return JudgedBudget(steps, metric, margin, tuple(worst.values()), hashes)


def _compared(
    variant: VariantResult, other: VariantResult, protocol: str, margin: float, m: int
) -> Drop | None:
    paired = seed_table(Contrast("", variant, other), protocol)
    if paired is None or len(paired.kept) < _LEAST:
        return None
    value = inference.differences(paired.table).mean(0)
    p = float(behind(value, inference.sources(paired.table), margin)[m])
    names = drops.variant(variant.factors), drops.variant(other.factors)
    return Drop(*names, float(value[m]), p) if isfinite(value[m]) else None
