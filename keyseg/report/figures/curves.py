"""Learning curves: losses and val scores against the optimiser step, one panel each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from keyseg.report.figures.style import band, canvas, legend, look
from keyseg.report.store import Sweep, VariantResult
from keyseg.runs.run_directory import is_loss

_PANELS: tuple[tuple[str, str], ...] = (
    ("val/giou", "val gIoU (%)"),
    ("val/ciou", "val cIoU (%)"),
    ("val/keyword_accuracy", "val keyword accuracy (%)"),
    ("train/loss", "train loss, total"),
    ("train/text", "text loss"),
    ("train/bce", "mask loss, BCE"),
    ("train/dice", "mask loss, Dice"),
    ("train/keyword", "keyword loss"),
)
_COLUMNS = 4
_POINTS = 50
"""A noisy curve is averaged in this many bins of steps, so that 12 of them can be read."""


def curve(variant: VariantResult, name: str) -> pd.DataFrame:
    """step, mean, low, high over the seeds of a variant; all runs with rows, finished or not.

    Values that are not finite are left out; more than `_POINTS` steps are averaged in bins.
    """
    parts = []
    for cell in variant.cells:
        rows = cell.metrics[cell.metrics["name"] == name]
        rows = rows[np.isfinite(rows["value"].astype(float))]
        parts.append(rows[["step", "value"]].assign(seed=cell.seed))
    rows = pd.concat(parts) if parts else pd.DataFrame({"step": [], "value": [], "seed": []})
    if rows.empty:
        return pd.DataFrame({"step": [], "mean": [], "low": [], "high": []})
    steps = rows["step"].astype(float)
    if steps.nunique() > _POINTS:
        width = (steps.max() - steps.min()) / _POINTS
        bins = ((steps - steps.min()) // width).clip(upper=_POINTS - 1)
        rows = rows.assign(step=steps.min() + (bins + 0.5) * width)
    by_seed = rows.groupby(["step", "seed"])["value"].mean()
    summary = by_seed.groupby("step").agg(["mean", "min", "max"])
    summary.columns = pd.Index(["mean", "low", "high"])
    return summary.reset_index()


def panels(sweep: Sweep) -> list[tuple[str, str]]:
    """`_PANELS`, and one for each further term of the loss that a cell logged."""
    logged = {str(name) for cell in sweep.cells for name in cell.metrics["name"].unique()}
    known = {name for name, _ in _PANELS}
    more = sorted(name for name in logged - known if is_loss(name))
    return [*_PANELS, *((name, f"{name.removeprefix('train/')} loss") for name in more)]


def learning_curves(sweep: Sweep) -> Any:
    """A figure of all panels, four in a row; a panel without rows says so."""
    shown = panels(sweep)
    rows = -(-len(shown) // _COLUMNS)
    figure = canvas(11, 2.6 * rows, sweep.variants)
    axes = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for ax, (name, title) in zip(axes.flat, shown, strict=False):
        scale = 100 if title.endswith("(%)") else 1
        drawn = [_draw(ax, v, name, scale, len(sweep.variants)) for v in sweep.variants]
        ax.set_title(title)
        ax.margins(x=0.02)
        if not any(drawn):
            _empty(ax)
        elif name.startswith("train/"):
            _log_scale(ax)
    for ax in axes.flat[max(0, len(shown) - _COLUMNS) : len(shown)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("optimiser step")
    legend(figure, sweep.variants)
    return figure


def _draw(ax: Any, variant: VariantResult, name: str, scale: float, variants: int) -> bool:
    points = curve(variant, name)
    if points.empty:
        return False
    style = look(variant.index)
    ax.plot(
        points["step"],
        scale * points["mean"],
        color=style.colour,
        linestyle=style.dash,
        marker=style.marker,
        markevery=_every(len(points), variant.index),
    )
    if (points["high"] > points["low"]).any():
        low, high = scale * points["low"], scale * points["high"]
        band(ax, points["step"], low, high, style.colour, variants)
    return True


def _every(points: int, index: int) -> tuple[int, int]:
    """About six markers on a line, at other places for other variants."""
    gap = max(1, points // 6)
    return (index * max(1, gap // 4)) % gap, gap


def _log_scale(ax: Any) -> None:
    """A logarithmic axis where a loss falls by more than an order of magnitude."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    if values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.5 * values.min())  # the band of a seed that reaches 0 has no end


def _empty(ax: Any, text: Sequence[str] = ("no rows",)) -> None:
    ax.text(
        0.5, 0.5, "\n".join(text), ha="center", va="center", color="#777", transform=ax.transAxes
    )
    ax.set_yticks([])
