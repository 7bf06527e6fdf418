"""Score against steps and against GPU-hours of training, where a design varies the budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.figures.style import INK, canvas, look
from keyseg.report.stats.budgets import Curve, crossings, curves
from keyseg.report.store import Sweep
from keyseg.runs.provenance import cost_unit


def varies(sweep: Sweep, scores: pd.DataFrame) -> bool:
    """Whether some variant has results at two budgets."""
    return bool(sweep.metrics and curves(sweep, scores, sweep.metrics[0]))


def figure(sweep: Sweep, scores: pd.DataFrame) -> Any:
    """A line a variant in two panels; filled markers are at a plateau, rings mark crossings."""
    metric = sweep.metrics[0]
    lines = curves(sweep, scores, metric)
    unit = cost_unit(cell.info for cell in sweep.finished)
    drawn = canvas(8.4, 3.3, [])
    axes = drawn.subplots(1, 2, sharey=True)
    titles = {"steps": "optimiser steps", "hours": f"{unit}-hours of training"}
    for ax, (axis, title) in zip(axes, titles.items(), strict=True):
        for curve in lines:
            _draw(ax, curve, axis)
        ax.set_xscale("log")
        ax.set_xlabel(title)
    for crossing in crossings(lines):
        ax = axes[0] if crossing.axis == "steps" else axes[1]
        curve = next(c for c in lines if c.label == crossing.first)
        x, y = _line(curve, crossing.axis)
        height = np.interp(np.log(crossing.at), np.log(x), y)
        ax.plot([crossing.at], [height], "o", markersize=11, color=INK, markerfacecolor="none")
    ticks = sorted({b.steps for c in lines for b in c.budgets})
    axes[0].set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes[0].minorticks_off()
    axes[0].set_ylabel(f"{BY_NAME[metric].title} (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(lines), 4))
    return drawn


def _draw(ax: Any, curve: Curve, axis: str) -> None:
    style = look(curve.index)
    x, y = _line(curve, axis)
    ax.plot(x, y, color=style.colour, linestyle=style.dash, marker=style.marker, label=curve.label)
    for budget in curve.budgets:
        at = getattr(budget, axis)
        if np.isfinite([at, budget.low, budget.high]).all():
            ax.vlines(at, 100 * budget.low, 100 * budget.high, color=style.colour, linewidth=1)
        if not budget.plateau:
            ax.plot(
                [at],
                [100 * budget.value],
                style.marker,
                color=style.colour,
                markerfacecolor="white",
                zorder=3,
            )


def _line(curve: Curve, axis: str) -> tuple[list[float], list[float]]:
    budgets = sorted(curve.budgets, key=lambda b: float(getattr(b, axis)))
    return [getattr(b, axis) for b in budgets], [100 * b.value for b in budgets]
