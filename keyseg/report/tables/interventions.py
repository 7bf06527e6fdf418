"""The table of interventions: trained models with KEY's or SEG's state replaced."""

from __future__ import annotations

from math import isfinite

import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.stats.verdict import p_text
from keyseg.report.store import Sweep
from keyseg.report.tables.table import DASH, Entry, Line, Table, percent, protocols
from keyseg.runs.interventions import REPLACEMENTS

SHOWN = ("giou", "ciou", "precision@0.5", "keyword_accuracy")
_DELTAS = tuple(f"Δ {BY_NAME[name].title}" for name in SHOWN)


def tables(sweep: Sweep, results: pd.DataFrame) -> list[Table]:
    """Each intervention against the untouched model, and some against each other."""
    listed = "; ".join(f"{kind}: {REPLACEMENTS[kind]}" for kind in dict.fromkeys(results["kind"]))
    over = "seeds and test images" if (results["seeds"] > 1).any() else "test images, these weights"
    numbers = (
        "Differences in points, on the same expressions and seeds, without the expressions that "
        f"have no such state; in brackets the 95 % interval over {over}, not corrected; p by "
        "Holm's method over all of a column."
    )
    each = Table(
        "interventions",
        "Interventions",
        "Finished models read the test split again; what the language model hands on at the place "
        "of KEY (SEG) is replaced for all that reads it afterwards (fusion, context, keyword "
        f"head); nothing is trained. Replaced minus untouched. {numbers} Replaced by: {listed}.",
        "Intervention",
        ("gIoU untouched", "gIoU replaced", *_DELTAS, "Seeds", "Expressions"),
        _lines(sweep, results[results["against"] == ""]),
    )
    compared = Table(
        "interventions_compared",
        "Interventions against each other",
        f"First minus second: what the one state has that the other lacks. {numbers}",
        "First − second",
        ("gIoU, second", "gIoU, first", *_DELTAS, "Seeds", "Expressions"),
        _lines(sweep, results[results["against"] != ""]),
    )
    return [table for table in (each, compared) if table.lines]


def _lines(sweep: Sweep, results: pd.DataFrame) -> list[Line]:
    keys = ["protocol", "label", "token", "kind", "against", "metric"]
    index = {tuple(map(str, (r[k] for k in keys))): r for r in results.to_dict("records")}
    colours = {v.label: v.index for v in sweep.variants}
    lines = []
    for protocol, label, token, kind, against in dict.fromkeys(key[:5] for key in index):
        rows = [index.get((protocol, label, token, kind, against, name)) for name in SHOWN]
        first = rows[0] or {}
        states = " − ".join(filter(None, (kind, against))).replace("_", " ")
        lines.append(
            Line(
                f"{label}: {token.upper()} {states}",
                (
                    Entry(percent(float(first["untouched"]))),
                    Entry(percent(float(first["replaced"]))),
                    *(_difference(row) for row in rows),
                    Entry(str(first["seeds"])),
                    Entry(f"{first['examples']:,}"),
                ),
                colours.get(label),
                group=protocols(sweep).get(protocol, protocol),
            )
        )
    return lines


def _difference(row: dict[object, object] | None) -> Entry:
    if row is None:
        return Entry(DASH)
    value, low, high, p = (float(str(row[k])) for k in ("difference", "low", "high", "holm"))
    ends = f"[{percent(low, signed=True)}, {percent(high, signed=True)}]"
    interval = f"{ends} {p_text(p)}" if isfinite(low) and isfinite(high) else ""
    return Entry(percent(value, signed=True), interval)
