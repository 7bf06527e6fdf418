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


def table(sweep: Sweep, results: pd.DataFrame) -> Table | None:
    """Untouched, replaced, and the difference with its interval; None without interventions."""
    if results.empty:
        return None
    index = {
        (r["protocol"], r["label"], r["token"], r["kind"], r["metric"]): r
        for r in results.to_dict("records")
    }
    colours = {v.label: v.index for v in sweep.variants}
    lines = []
    for protocol, label, token, kind in dict.fromkeys(key[:4] for key in index):
        rows = [index.get((protocol, label, token, kind, name)) for name in SHOWN]
        first = rows[0] or {}
        lines.append(
            Line(
                f"{label}: {str(token).upper()} {kind}",
                (
                    Entry(percent(float(first["untouched"]))),
                    Entry(percent(float(first["replaced"]))),
                    *(_difference(row) for row in rows),
                    Entry(str(first["seeds"])),
                    Entry(f"{first['examples']:,}"),
                ),
                colours.get(str(label)),
                group=protocols(sweep).get(str(protocol), str(protocol)),
            )
        )
    kinds = dict.fromkeys(results["kind"])
    listed = "; ".join(f"{kind}: {REPLACEMENTS[str(kind)]}" for kind in kinds)
    over = (
        "seeds and test images" if results["seeds"].max() > 1 else "test images, of these weights"
    )
    caption = (
        "Finished models read the test split again; what the language model hands on at the place "
        "of KEY (SEG) is replaced for all that reads it afterwards (fusion, context, keyword "
        "head); nothing is trained. Differences: replaced minus untouched, in points, on the same "
        f"expressions and seeds; in brackets the 95 % interval over {over}, not corrected; p by "
        f"Holm's method over all interventions of a column. Replaced by: {listed}. "
        "Expressions that have no such other are left out, on both sides."
    )
    header = (
        "gIoU untouched",
        "gIoU replaced",
        *(f"Δ {BY_NAME[n].title}" for n in SHOWN),
        "Seeds",
        "Expressions",
    )
    return Table("interventions", "Interventions", caption, "Intervention", header, lines)


def _difference(row: dict[object, object] | None) -> Entry:
    if row is None:
        return Entry(DASH)
    value, low, high, p = (float(str(row[k])) for k in ("difference", "low", "high", "holm"))
    ends = f"[{percent(low, signed=True)}, {percent(high, signed=True)}]"
    interval = f"{ends} {p_text(p)}" if isfinite(low) and isfinite(high) else ""
    return Entry(percent(value, signed=True), interval)
