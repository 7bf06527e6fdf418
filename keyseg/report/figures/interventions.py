"""Figure of interventions: what a state that is replaced does to masks, and to keywords."""

from __future__ import annotations

from typing import Any

import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.data import ReportData
from keyseg.report.figures.style import INK, canvas, difference, look
from keyseg.report.stats.verdict import ALPHA

_PANELS = (("key", "giou"), ("key", "keyword_accuracy"), ("seg", "giou"))
"""Token and measure. No keyword is read off SEG's state."""


def shown(data: ReportData) -> pd.DataFrame:
    """The rows of the figure: against the untouched model, headline protocol."""
    rows = data.replaced
    if rows.empty:
        return rows
    drawn = pd.Series(zip(rows["token"], rows["metric"], strict=True), rows.index).isin(_PANELS)
    alone = (rows["against"] == "") & (rows["protocol"] == data.sweep.headline)
    kept: pd.DataFrame = rows[alone & drawn]
    return kept


def figure(data: ReportData) -> Any:
    """A line for each variant and kind; panels for KEY's masks and keywords, and SEG's masks."""
    rows = shown(data)
    panels = [p for p in _PANELS if ((rows["token"] == p[0]) & (rows["metric"] == p[1])).any()]
    lines = list(dict.fromkeys(zip(rows["label"], rows["kind"], strict=True)))
    styles = {v.label: look(v.index) for v in data.sweep.variants}
    made = canvas(3.4 * len(panels) + 1.6, 0.9 + 0.26 * len(lines), [])
    axes = made.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (token, metric) in zip(axes, panels, strict=True):
        for row in rows[(rows["token"] == token) & (rows["metric"] == metric)].to_dict("records"):
            place = lines.index((row["label"], row["kind"]))
            filled = float(row["holm"]) <= ALPHA
            difference(ax, place, row, styles[str(row["label"])], filled=filled)
        ax.axvline(0, color=INK, linewidth=0.9)
        ax.set_title(f"{token.upper()} replaced: {BY_NAME[metric].title}")
        ax.set_xlabel("replaced minus untouched, points")
        ax.grid(visible=False, axis="y")
        ax.set_ylim(len(lines) - 0.4, -0.6)
    several = len({label for label, _ in lines}) > 1
    words = [(f"{label}: " if several else "") + kind.replace("_", " ") for label, kind in lines]
    axes[0].set_yticks(range(len(lines)), words)
    return made
