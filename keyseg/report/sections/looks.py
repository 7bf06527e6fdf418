"""Where seeds came look by look: which look decided what, what it saved, what stayed open."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from keyseg.metrics import BY_NAME
from keyseg.report.data import ReportData
from keyseg.report.sections import Block, section
from keyseg.report.stats.looks import Standing, standing
from keyseg.report.stats.verdict import p_text
from keyseg.report.store import Sweep
from keyseg.report.tables.table import DASH, Entry, Line, Table, percent
from keyseg.runs.looks import EQUIVALENT, OPEN, Ruling
from keyseg.runs.provenance import cost_unit


@section("looks", title="Looks", place="verdicts")
def looks(data: ReportData) -> Sequence[Block]:
    """What was saved, and a line for each contrast."""
    stand = standing(data.sweep)
    if stand is None:
        return []
    blocks: list[Block] = [_saved(data.sweep, stand)]
    return [*blocks, _table(data.sweep, stand)] if stand.taken else blocks


def _saved(sweep: Sweep, stand: Standing) -> str:
    """Cells and hours beside those of all seeds for everyone."""
    cells, most = len(sweep.cells), len(stand.plan.seeds) * len(sweep.variants)
    at = ", ".join(map(str, stand.plan.at))
    text = (
        f"Looks at {at} seeds, boundary {stand.plan.family}. {cells} cells were asked for of "
        f"{most} that {stand.plan.at[-1]} seeds for everyone take"
    )
    hours = [v.hours * (len(stand.plan.seeds) - len(v.cells)) for v in sweep.variants]
    if all(map(isfinite, hours)) and sum(hours) > 0 and stand.ended:
        unit = cost_unit(cell.info for cell in sweep.finished)
        text += f", which saves {sum(hours):.2f} {unit}-hours"
    left = [name for name, (_, ruling) in stand.rulings.items() if ruling.word == OPEN]
    if left and stand.ended:
        text += f". Open after all looks: {', '.join(left)}"
    return f"{text}."


def _table(sweep: Sweep, stand: Standing) -> Table:
    metric = BY_NAME[stand.taken[0].metric].title
    header = [f"{look.seeds} seeds" for look in stand.taken]
    lines = []
    where = {v.label: v.index for v in sweep.variants}
    for name, (_, last) in stand.rulings.items():
        by = [{r.contrast: r for r in look.rulings}.get(name) for look in stand.taken]
        entries = [_entry(ruling) for ruling in by]
        lines.append(Line(name, entries, where.get(last.labels[0])))
    return Table(
        "looks",
        f"What each look said: {metric}",
        "Difference in points at each look, p over all looks so far by Holm's method, which the "
        "boundary is applied to (of equivalence, where that was shown), and the look's word. A "
        "contrast that was decided is not looked at again; a futile one was given up.",
        "Contrast",
        header,
        lines,
    )


def _entry(ruling: Ruling | None) -> Entry:
    if ruling is None:
        return Entry(DASH)
    value = DASH if ruling.difference is None else percent(ruling.difference, signed=True)
    if ruling.word == EQUIVALENT:
        return Entry(value, f"equivalence {p_text(ruling.overall_equivalence)}", word=ruling.word)
    return Entry(value, p_text(ruling.overall), word=ruling.word)
