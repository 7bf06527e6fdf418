"""The table of crossings: at which budget one variant overtakes another."""

from __future__ import annotations

import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.stats.budgets import Crossing, crossings, curves
from keyseg.report.store import Sweep
from keyseg.report.tables.table import Entry, Line, Table, percent, quantity
from keyseg.runs.provenance import cost_unit


def table(sweep: Sweep, scores: pd.DataFrame) -> Table | None:
    """Every crossing of two variants; None where the budget does not vary."""
    metric = sweep.metrics[0]
    drawn = curves(sweep, scores, metric)
    if len(drawn) < 2:
        return None
    unit = cost_unit(cell.info for cell in sweep.finished)
    return Table(
        "crossings",
        "Where one variant overtakes another",
        f"{BY_NAME[metric].title}, first minus second variant in points, at the budgets before and "
        "after the difference changes its sign, and the budget between them where it would be 0 on "
        "a line over its logarithm; means over seeds. No test: whether the two differ at either "
        f"budget, the contrasts tell. Against steps and against {unit}-hours of training.",
        "Variants",
        ("Axis", "Budget", "Before", "After"),
        [_line(crossing, unit) for crossing in crossings(drawn)]
        or [Line("none within these budgets", [Entry("")] * 4)],
        text=frozenset({0}),
    )


def _line(crossing: Crossing, unit: str) -> Line:
    return Line(
        f"{crossing.first} − {crossing.second}",
        (
            Entry("steps" if crossing.axis == "steps" else f"{unit}-hours"),
            Entry(f"{crossing.at:.0f}" if crossing.axis == "steps" else quantity(crossing.at)),
            Entry(percent(crossing.before, signed=True)),
            Entry(percent(crossing.after, signed=True)),
        ),
    )
