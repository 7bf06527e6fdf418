"""Figures of test scores: slices, precision curves, keyword against mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keyseg.metrics import RIGHT_MASK, THRESHOLDS, with_keyword
from keyseg.report.figures.style import INK, band, canvas, legend, look, wrap
from keyseg.report.store import Sweep, VariantResult

OUTCOMES: tuple[tuple[str, str, str], ...] = (
    ("both right", "#3b6f9e", ""),
    ("keyword right, mask wrong", "#f2a65a", "////"),
    ("keyword wrong, mask right", "#b9d4e8", "...."),
    ("both wrong", "#e4e4e4", ""),
)
_PANELS = 4
"""Slices that are drawn; the tables have all."""
FEW = 5
"""A fifth with fewer examples than this has no keyword accuracy worth a point."""


def by_slice(sweep: Sweep, scores: pd.DataFrame, slices: Mapping[str, Sequence[str]]) -> Any:
    """gIoU of every variant in every slice, with intervals; one panel a slice, two in a row."""
    names = list(slices)[:_PANELS]
    variants = [v for v in sweep.variants if v.finished]
    part = scores[(scores["protocol"] == sweep.headline) & (scores["metric"] == "giou")]
    rows = [names[i : i + 2] for i in range(0, len(names), 2)]
    figure = canvas(11, 2.6 * len(rows), variants)
    grid = figure.add_gridspec(len(rows), 1)
    first = None
    for place, row in enumerate(rows):
        widths = [len(slices[name]) + 0.4 for name in row]
        cells = grid[place].subgridspec(1, len(row), width_ratios=widths)
        letters = 84 // max(1, sum(len(slices[name]) for name in row)) + 4
        for column, name in enumerate(row):
            ax = figure.add_subplot(cells[column], sharey=first)
            first = first or ax
            _slice(ax, part[part["slice"] == name], slices[name], variants, letters)
            ax.set_title(name.replace("_", " "))
            if column == 0:
                ax.set_ylabel("gIoU (%)")
            else:
                ax.tick_params(labelleft=False)
    legend(figure, variants, line=False)
    return figure


def _slice(
    ax: Any,
    rows: pd.DataFrame,
    values: Sequence[str],
    variants: Sequence[VariantResult],
    letters: int,
) -> None:
    places = {value: i for i, value in enumerate(values)}
    for k, variant in enumerate(variants):
        own = rows[rows["label"] == variant.label]
        shift = (k - (len(variants) - 1) / 2) * min(0.8 / len(variants), 0.17)
        at = own["group"].map(places).to_numpy(float) + shift
        value = 100 * own["value"].to_numpy(float)
        low, high = 100 * own["low"].to_numpy(float), 100 * own["high"].to_numpy(float)
        style = look(variant.index)
        ax.vlines(at, low, high, color=style.colour, linewidth=1.3)
        ax.plot(at, value, linestyle="none", color=style.colour, marker=style.marker)
    counts = rows.groupby("group")["examples"].max()
    ticks = [f"{wrap(v, letters)}\n(n = {int(counts.get(v, 0))})" for v in places]
    ax.set_xticks(list(places.values()), ticks)
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.grid(visible=False, axis="x")


IOU_GRID = np.linspace(0, 1, 101)
"""Thresholds of the precision curves."""


def shares_above(variant: VariantResult, protocol: str) -> np.ndarray:
    """(seeds, len(IOU_GRID)): share of a cell's examples whose IoU is above each threshold."""
    return np.array(
        [
            _share_above(cell.samples.loc[cell.samples["protocol"] == protocol, "iou"], IOU_GRID)
            for cell in variant.finished
        ]
    )


def precision(sweep: Sweep) -> Any:
    """Share of test examples whose IoU is above X, for every X; a panel a protocol."""
    variants = [v for v in sweep.variants if v.finished]
    figure = canvas(4.4 * max(len(sweep.protocols), 1.5), 3.6, variants)
    axes = figure.subplots(1, len(sweep.protocols), sharey=True, squeeze=False)[0]
    marks = [int(100 * x + 0.5) for x in THRESHOLDS]
    for ax, protocol in zip(axes, sweep.protocols, strict=True):
        for variant in variants:
            shares = shares_above(variant, protocol)
            style = look(variant.index)
            mean = 100 * np.mean(shares, 0)
            dash = {"linestyle": style.dash, "marker": style.marker, "markevery": marks}
            ax.plot(IOU_GRID, mean, color=style.colour, **dash)
            if len(shares) > 1:
                low, high = 100 * np.min(shares, 0), 100 * np.max(shares, 0)
                band(ax, IOU_GRID, low, high, style.colour, len(variants))
        ax.set(xlabel="X", xlim=(0, 1), ylim=(0, 100), title=protocol.replace("_", "-"))
    figure.get_layout_engine().set(wspace=0.05)
    axes[0].set_ylabel("examples with IoU > X (%)")
    legend(figure, variants)
    return figure


def keyword(sweep: Sweep) -> Any:
    """Left: keyword accuracy among examples of like IoU. Right: the four outcomes."""
    variants = [v for v in sweep.variants if v.finished and v.key_asked]
    labels = [wrap(v.label, 30) for v in variants]
    lines = sum(max(2, label.count("\n") + 1) for label in labels)
    figure = canvas(11, max(3.7, 1.3 + 0.165 * lines), variants)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    edges = np.linspace(0, 1, 6)
    shares = []
    for variant in variants:
        accuracy, outcomes = keyword_and_mask(variant, sweep.headline)
        style = look(variant.index)
        dash = {"linestyle": style.dash, "marker": style.marker}
        left.plot((edges[:-1] + edges[1:]) / 2, accuracy, color=style.colour, **dash)
        shares.append(outcomes)
    left.set(xlim=(0, 1), ylim=(0, 102), xlabel="IoU, in fifths", ylabel="keyword accuracy (%)")
    left.set_title("keyword accuracy against IoU")
    left.set_xticks(edges)
    figure.get_layout_engine().set(wspace=0.05)
    _bars(right, np.array(shares), labels)
    legend(figure, variants)
    return figure


def keyword_and_mask(variant: VariantResult, protocol: str) -> tuple[np.ndarray, list[float]]:
    """Percent: keyword accuracy in each fifth of IoU (NaN of few examples), and of `OUTCOMES`."""
    rows = pd.concat([c.samples for c in variant.finished])
    rows = rows[(rows["protocol"] == protocol) & with_keyword(rows)]
    rows = rows[np.isfinite(rows["iou"].astype(float))]
    hit, good = rows["keyword_rank"] == 0, rows["iou"] >= RIGHT_MASK
    bins = np.clip(np.digitize(rows["iou"], np.linspace(0, 1, 6)[1:-1]), 0, 4)
    by_bin = hit.groupby(bins).agg(["mean", "size"]).reindex(range(5))
    accuracy = 100 * by_bin["mean"].where(by_bin["size"] >= FEW).to_numpy(float)
    cells = [hit & good, hit & ~good, ~hit & good, ~hit & ~good]
    return accuracy, [100 * float(c.mean()) if len(rows) else 0.0 for c in cells]


def _bars(ax: Any, shares: np.ndarray, labels: Sequence[str]) -> None:
    """Stacked bars, (variants, 4) percent, with their values where there is room."""
    from matplotlib.transforms import offset_copy

    start = np.zeros(len(shares))
    for k, (title, colour, hatch) in enumerate(OUTCOMES):
        width = shares[:, k]
        look_ = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.6}
        ax.barh(range(len(shares)), width, left=start, height=0.68, label=title, **look_)
        for row, value in enumerate(width):
            if value >= 6:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
                ax.text(
                    start[row] + value / 2,
                    row,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="white" if k == 0 else INK,
                    bbox=box if hatch else None,
                )
        start = start + width
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(0, 100), xlabel="share of examples with a keyword (%)")
    ax.set_title("keyword and mask (right: IoU ≥ 0.5)")
    below = offset_copy(ax.transAxes, ax.figure, x=-0.1, y=-0.48, units="inches")
    box = {"bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
    ax.legend(loc="upper left", ncols=2, **box)


def _share_above(iou: pd.Series[float], grid: np.ndarray) -> np.ndarray:
    values = np.sort(iou.dropna().to_numpy(float))
    if not len(values):
        return np.full(len(grid), np.nan)
    return np.asarray(1 - np.searchsorted(values, grid, side="right") / len(values))
