"""The ablation path: from the baseline to the whole, one change a step."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.figures.style import INK, canvas, look, wrap
from keyseg.report.stats.contrasts import path
from keyseg.report.stats.verdict import NO_RESULT
from keyseg.report.store import Sweep, VariantResult
from keyseg.report.tables.table import percent, word
from keyseg.runs.convergence import SAYS_NOTHING

_WIDE = 8
"""Up to this many steps of all metrics stand side by side, else a metric below the other."""
WORD = 14
"""Letters in a line of a verdict: as wide as an interval."""
_GREY = "#8a8a8a"
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def steps(sweep: Sweep) -> list[VariantResult]:
    """The variants of the path in its order; [] where fewer than two have results."""
    way = path(sweep)
    return way if sum(bool(v.finished) for v in way) > 1 else []


def figure(sweep: Sweep, scores: pd.DataFrame, measured: pd.DataFrame) -> Any:
    """Each variant of the path with its interval, and between two what the change is worth.

    A variant without results keeps its place, and the line is broken there.
    """
    way = steps(sweep)
    metrics = sweep.metrics
    aside = (len(way) - 1) * len(metrics) <= _WIDE
    rows, columns = (1, len(metrics)) if aside else (len(metrics), 1)
    drawing = canvas(11, 3.4 * rows, [])
    axes = drawing.subplots(rows, columns, squeeze=False).ravel()
    main = scores[(scores["slice"] == "") & (scores["protocol"] == sweep.headline)]
    room = 52 // max(len(way) * columns // 2, 1) + 4
    for ax, metric in zip(axes, metrics, strict=True):
        own = main[main["metric"] == metric].set_index("label")
        differences = {
            (row["baseline"], row["label"]): row
            for row in measured.to_dict("records")
            if row["metric"] == metric and row["protocol"] == sweep.headline
        }
        _one(ax, way, own, differences)
        labels = [wrap(v.label, room) + ("" if v.finished else "\n(no result)") for v in way]
        ax.set_xticks(range(len(way)), labels)
        ax.set_title(f"{BY_NAME[metric].title} (%)")
    return drawing


def _one(
    ax: Any,
    way: list[VariantResult],
    own: pd.DataFrame,
    differences: Mapping[tuple[str, str], Mapping[Any, Any]],
) -> None:
    values = 100 * own["value"].reindex([v.label for v in way]).to_numpy(float)
    ax.plot(range(len(way)), values, color=_GREY, linewidth=1, zorder=1)
    for place, (variant, value) in enumerate(zip(way, values, strict=True)):
        if not np.isfinite(value):
            continue
        style = look(variant.index)
        low, high = 100 * own.loc[variant.label, ["low", "high"]].to_numpy(float)
        if np.isfinite([low, high]).all():
            ax.vlines(place, low, high, color=style.colour, linewidth=1.6)
        ax.plot([place], [value], style.marker, color=style.colour, markersize=7)
    ax.set_xlim(-0.5, len(way) - 0.5)
    ax.grid(visible=False, axis="x")
    # Above everything that is drawn, so that no text lies on a line.
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.45 * (high - low))
    for place, (before, after) in enumerate(pairwise(way)):
        row = differences.get((before.label, after.label))
        if row is not None and row["verdict"] != NO_RESULT:
            text = "\n".join(filter(None, _said(row)))
            where = {"xy": (place + 0.5, 0.985), "xycoords": ("data", "axes fraction")}
            ax.annotate(text, **where, ha="center", va="top", fontsize=7.5, color=INK, bbox=BOX)


def _said(row: Mapping[Any, Any]) -> tuple[str, str, str]:
    """Difference, interval and verdict of a step."""
    low, high = float(row["low"]), float(row["high"])
    ends = f"[{percent(low, signed=True)}, {percent(high, signed=True)}]"
    if row["verdict"] == SAYS_NOTHING:
        return "", "", SAYS_NOTHING
    return (
        percent(float(row["difference"]), signed=True),
        ends if np.isfinite([low, high]).all() else "",
        wrap(word(row), WORD),
    )
