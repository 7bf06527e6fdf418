"""The headline table: what a sweep measured, and beside it what is in print of its variants."""

from __future__ import annotations

from math import isfinite

import pandas as pd

from keyseg.report.store import Sweep
from keyseg.report.tables import printed
from keyseg.report.tables.table import (
    DASH,
    INTERVALS,
    PROTOCOL_TITLES,
    Entry,
    Line,
    Table,
    measured,
    titles,
)

MEASURED = ("giou", "ciou", "precision@0.5", "keyword_accuracy")
IN_PRINT = ("giou", "ciou")
MARK = "†"


def table(sweep: Sweep, scores: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """One line a variant under the headline protocol; `rows`: numbers in print."""
    protocol = sweep.headline
    whole = scores[(scores["slice"] == "") & (scores["protocol"] == protocol)]
    index = {(r["label"], r["metric"]): r for r in whole.to_dict("records")}
    beside = printed.beside(sweep, rows)
    lines = []
    for variant in sweep.variants:
        entries = [measured(variant, n, index.get((variant.label, n))) for n in MEASURED]
        if len(beside):
            own = beside[beside["variant"] == (variant.fusion or variant.label)]
            values = own.drop_duplicates("metric").set_index("metric")["value_percent"]
            entries += [_print(float(values.get(name, float("nan")))) for name in IN_PRINT]
        entries.append(Entry(variant.training or DASH))
        lines.append(Line(variant.label, entries, variant.index, variant.hole))
    header = titles(MEASURED)
    caption = f"Measured, {PROTOCOL_TITLES.get(protocol, protocol) or 'nothing yet'}. {INTERVALS}"
    if whole["sd"].notna().any():
        caption += " With several seeds: their mean, ± their standard deviation."
    if len(beside):
        header += tuple(f"{name}, in print{MARK}" for name in titles(IN_PRINT))
        caption += f" {MARK} {_printed_note(sweep, beside)}"
    caption += _ceiling(sweep)
    caption += " Training: the word for how it ended, from its val curve."
    mark = "measured and in print" if len(beside) else "measured"
    header += ("Training",)
    words = frozenset({len(header) - 1})
    return Table("headline", "Headline", caption, "Variant", header, lines, mark, words)


def _ceiling(sweep: Sweep) -> str:
    """What the frozen SAM draws from the targets' own boxes, where the runs have measured it."""
    known = [cell.info.get("ceiling") for cell in sweep.finished]
    scores = sorted({round(100 * c["giou"], 1) for c in known if isinstance(c, dict)})
    if not scores:
        return ""
    between = f"{scores[0]:.1f}" + (f" to {scores[-1]:.1f}" if len(scores) > 1 else "")
    return (
        f" Ceiling: from each target's own box SAM draws a gIoU of {between} before any training."
    )


def _print(value: float) -> Entry:
    return Entry(f"{printed.number(value)}{MARK}" if isfinite(value) else DASH)


def _printed_note(sweep: Sweep, beside: pd.DataFrame) -> str:
    """Where the numbers in print are from, and in what they differ from the measured ones."""
    place = " ".join(beside.iloc[0][["data", "split"]]).strip()
    works = "; ".join(dict.fromkeys(source.split(", table")[0] for source in beside["source"]))
    numbers = dict.fromkeys(n for text in beside["table"] for n in str(text).split(", ") if n)
    sources = f"{works}, table {', '.join(numbers)}" if numbers else works
    differ = ", ".join(dict.fromkeys(d for d in printed.differs(sweep, beside) if d))
    said = f"Copied from print, {place} ({sources})."
    if not differ:
        return said
    return f"{said} Not comparable value by value: other {differ}; only the order of rows is."
