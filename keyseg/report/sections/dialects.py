"""The section of a report that holds its masks against the rules of other evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import pandas as pd

from keyseg.dialects.keyseg import OURS
from keyseg.dialects.score import dialects
from keyseg.report.data import ReportData
from keyseg.report.sections import Block, section
from keyseg.report.stats.dialects import COMPARED, rescored
from keyseg.report.store import Sweep
from keyseg.report.tables.table import PROTOCOL_TITLES, Entry, Line, Table, percent, titles


@section("dialects", title="The same masks under other rules", place="results")
def under_dialects(data: ReportData) -> Sequence[Block]:
    """gIoU and cIoU of every variant under each dialect, where these differ; and what follows."""
    rows = rescored(data.sweep)
    if rows.empty:
        return []
    return [_table(data.sweep, rows), *_orders(rows)]


def _table(sweep: Sweep, scores: pd.DataFrame) -> Table:
    known = dialects()
    names = sorted(scores["dialect"].unique(), key=lambda name: (name != OURS, name))
    lines = []
    for measure, title in zip(COMPARED, titles(COMPARED), strict=True):
        mean = scores.groupby(["label", "dialect"])[measure].mean()
        sd = scores.groupby(["label", "dialect"])[measure].std()
        for variant in sweep.variants:
            if variant.label not in set(scores["label"]):
                continue
            keys = [(variant.label, name) for name in names]
            entries = [
                _entry(mean.get(key, float("nan")), sd.get(key, float("nan"))) for key in keys
            ]
            lines.append(Line(variant.label, entries, variant.index, group=title))
    used = "; ".join(f"{n}: {known[n].used_by}" for n in names if n != OURS)
    return Table(
        "dialects",
        "The same masks under other rules",
        "Stored masks, scored again as public evaluations do, percent, "
        f"{PROTOCOL_TITLES.get(sweep.headline, sweep.headline)}; {OURS} is the rule of all other "
        f"tables here. Used by: {used}. What masks cannot tell of a rule is in docs/protocols.md; "
        "`keyseg score` gives P@X, N-acc and T-acc as well.",
        "Variant",
        tuple(names),
        lines,
    )


def _entry(value: float, spread: float) -> Entry:
    return Entry(percent(value), spread=f"± {percent(spread)}" if isfinite(spread) else "")


def _orders(scores: pd.DataFrame) -> list[str]:
    """Which rules put the variants in another order by gIoU."""
    mean = scores.groupby(["dialect", "label"], sort=False)["giou"].mean().unstack()
    if mean.shape[1] < 2:
        return []
    orders = {n: list(row.sort_values(ascending=False).index) for n, row in mean.iterrows()}
    other = [str(name) for name, order in orders.items() if order != orders[OURS]]
    if not other:
        return ["Every rule puts the variants in the same order by gIoU."]
    listed = "; ".join(f"{name}: {' > '.join(map(str, orders[name]))}" for name in [OURS, *other])
    return [f"The order by gIoU depends on the rule. {listed}."]
