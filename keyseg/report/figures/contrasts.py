"""Figures of contrasts: forest plot, example by example, interaction, cost against quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.figures.style import INK, SEVERAL, canvas, difference, legend, look, wrap
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.verdict import ALPHA, NO_RESULT
from keyseg.report.store import Sweep, VariantResult
from keyseg.runs.convergence import SAYS_NOTHING
from keyseg.runs.provenance import cost_unit

_PANELS = 5
"""Contrasts whose examples are drawn one by one."""
_COLUMNS = 3
NEAR, _FAR = 2, 10
"""Points up to which a folded axis is linear; how many medians away a difference is far."""
_SILENT = (NO_RESULT, SAYS_NOTHING)
"""Verdicts that have no number."""
_POINTS = 2000
"""Points of a scatter plot; more are drawn from, by a fixed seed."""


def speaking(sweep: Sweep, differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of the forest plot that have a place on its axes; the others have words there."""
    rows = differences[differences["protocol"] == sweep.headline]
    rows = rows[rows["metric"].isin(sweep.metrics) & rows["difference"].notna()]
    kept: pd.DataFrame = rows[~rows["verdict"].isin(_SILENT)]
    return kept


def panels(sweep: Sweep, differences: pd.DataFrame) -> list[str]:
    """The metrics that have a panel in the forest plot: those on which some contrast speaks.

    Keyword accuracy against a baseline without KEY says nothing on every row. Where none speaks
    all have a panel, for what the rows lack.
    """
    spoken = set(speaking(sweep, differences)["metric"])
    return [metric for metric in sweep.metrics if metric in spoken] or sweep.metrics


def forest(sweep: Sweep, differences: pd.DataFrame) -> Any:
    """Every contrast on every metric of the design, one row each, with its intervals.

    One without a result keeps its row, and says what is lacking.
    """
    metrics = panels(sweep, differences)
    rows = differences[differences["protocol"] == sweep.headline]
    first = rows.drop_duplicates("contrast")
    names = list(first["contrast"])
    index = {v.label: v.index for v in sweep.variants}
    labels = [_label(row) for row in first.to_dict("records")]
    far = _far(speaking(sweep, differences))
    height = 0.9 + sum(0.16 + 0.17 * (label.count("\n") + 1) for label in labels)
    figure = canvas(11, max(1.6, height), [])
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        own = rows[rows["metric"] == metric].set_index("contrast")
        for place, name in enumerate(names):
            if name in own.index:
                _contrast(
                    ax, place, own.loc[name].to_dict(), index.get(str(own.loc[name, "label"]))
                )
        ax.axvline(0, color=INK, linewidth=0.9)
        ax.set_title(BY_NAME[metric].title)
        lower = " (lower is better)" if BY_NAME[metric].better < 0 else ""
        ax.set_xlabel(f"difference, points{lower}")
        if far:
            _fold(ax)
        ax.grid(visible=False, axis="y")
        ax.set_ylim(len(names) - 0.4, -0.6)
    axes[0].set_yticks(range(len(names)), labels)
    return figure


def _far(rows: pd.DataFrame) -> bool:
    """Whether a few differences are so large that the others could not be told from 0."""
    ends = rows[["low", "high"]].astype(float).abs().max(axis=1).dropna()
    return len(ends) > 2 and bool(ends.max() > _FAR * max(ends.median(), 0.01))


def _fold(ax: Any) -> None:
    """An axis of points that is linear near 0 and logarithmic beyond, and says so."""
    from matplotlib.ticker import NullLocator

    ax.set_xscale("symlog", linthresh=NEAR, linscale=1.2)
    left, right = (1.5 * end if abs(end) > NEAR else end for end in ax.get_xlim())
    ax.set_xlim(left, right)  # room for a marker at the edge
    ticks = [t for t in (1, 2, 5, 20, 50, 100) if t <= max(-left, right)]
    ax.set_xticks([t for t in (*(-t for t in reversed(ticks)), 0, *ticks) if left <= t <= right])
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}".replace("-", "−"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"{ax.get_xlabel()} (linear to ±{NEAR}, logarithmic beyond)")


def _label(row: Mapping[Any, Any]) -> str:
    """A contrast's name, and in brackets below it what it lacks of the design."""
    silent = row["verdict"] in _SILENT
    said = (str(row["sentence"]) if silent else str(row["at"]), "" if silent else str(row["hole"]))
    about = "; ".join(filter(None, said))
    name = _two_lines(str(row["contrast"]))
    return f"{name}\n{wrap(f'({about})', 44)}" if about else name


def _two_lines(name: str) -> str:
    """A contrast's name; a long one with its second variant on lines of its own."""
    if len(name) <= 44:
        return wrap(name, 60)
    first, minus, second = name.partition(" − ")
    return wrap(first, 44) + (f"\n− {wrap(second, 42)}" if minus else "")


def _contrast(ax: Any, place: int, row: Mapping[Any, Any], index: int | None) -> None:
    if row["verdict"] in _SILENT or not np.isfinite(float(row["difference"])):
        where = {"xy": (0.5, place), "xycoords": ("axes fraction", "data")}
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        look_ = {"color": "#6a6a6a", "fontsize": 8, "bbox": box}
        ax.annotate(row["verdict"], **where, ha="center", va="center", **look_)
        return
    style = SEVERAL if index is None else look(index)
    for source, shift, dash in (("images", -0.17, "-"), ("seeds", 0.17, ":")):
        ends = 100 * np.array([row[f"low_{source}"], row[f"high_{source}"]], float)
        if np.isfinite(ends).all():
            ax.plot(ends, [place + shift] * 2, dash, color=style.colour, linewidth=1, marker="|")
    main = "both" if row["seeds"] > 1 else "images"
    difference(ax, place, row, style, filled=float(row[f"holm_{main}"]) <= ALPHA)


def pictured(sweep: Sweep) -> bool:
    """Whether a contrast of two variants has results, to be drawn example by example."""
    return any(c.plain and not c.open for c in declared(sweep))


def paired(sweep: Sweep) -> Any:
    """IoU against IoU on every example, a panel a contrast; then the differences' ECDF."""
    import seaborn as sns

    shown = pairs(sweep)
    columns = min(len(shown) + 1, _COLUMNS)
    rows = -(-(len(shown) + 1) // columns)
    figure = canvas(3.6 * columns, 3.3 * rows, [c.of for c, _ in shown])
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    axes, last = grid[: len(shown)], grid[len(shown)]
    for ax in grid[len(shown) + 1 :]:
        ax.set_axis_off()
    for ax, (contrast, both) in zip(axes, shown, strict=False):
        style = look(contrast.of.index)
        drawn = both.sample(min(len(both), _POINTS), random_state=0)
        size, alpha = (12, 0.7) if len(drawn) < 500 else (4, 0.4)
        edge = {"s": size, "color": style.colour, "alpha": alpha, "linewidth": 0}
        ax.scatter(drawn["against"], drawn["of"], rasterized=True, **edge)
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        ax.set_xlabel(wrap(f"IoU, {contrast.against.label}", 40))
        ax.set_ylabel(wrap(f"IoU, {contrast.of.label}", 32))
        gap = both["of"] - both["against"]
        sns.ecdfplot(x=100 * gap, ax=last, color=style.colour, linestyle=style.dash)
        above, below = 100 * (gap > 0).mean(), 100 * (gap < 0).mean()
        ax.set_title(f"{above:.0f} % above, {below:.0f} % below", fontsize=8)
    last.axvline(0, color=INK, linewidth=0.8)
    last.set(xlabel="difference of IoU, points", ylabel="share of examples", title="ECDF")
    last.set_ylim(0, 1)
    legend(figure, [c.of for c, _ in shown])
    return figure


def pairs(sweep: Sweep) -> list[tuple[Contrast, pd.DataFrame]]:
    """The contrasts that are drawn example by example, each with IoU of both sides by id."""
    shown = [c for c in declared(sweep) if c.plain][:_PANELS]
    drawn = [(c, _both(c, sweep.headline)) for c in shown]
    return [(c, both) for c, both in drawn if len(both)]


def _both(contrast: Contrast, protocol: str) -> pd.DataFrame:
    """`of` and `against`: mean IoU over common seeds (else all) on the examples of both."""
    seeds = contrast.shared_seeds

    def mean(variant: VariantResult) -> pd.Series[float]:
        cells = [c for c in variant.finished if not seeds or c.seed in seeds]
        parts = [c.samples[c.samples["protocol"] == protocol] for c in cells]
        if not parts:
            return pd.Series(dtype=float)
        rows = pd.concat([part[["id", "iou"]] for part in parts])
        means: pd.Series[float] = rows.groupby("id")["iou"].mean()
        return means

    return pd.DataFrame({"of": mean(contrast.of), "against": mean(contrast.against)}).dropna()


def two_factors(sweep: Sweep) -> list[str]:
    """The design's first two factors that vary; [] where fewer do."""
    factors = sweep.design.get("factors") or {}
    names = [k for k in factors if len(_values(sweep, k)) > 1]
    return names[:2] if len(names) > 1 else []


def _values(sweep: Sweep, key: str) -> list[str]:
    """The values of a factor, in the design's order."""
    return list(dict.fromkeys(str(v.factors[key]) for v in sweep.variants if key in v.factors))


def combinations(sweep: Sweep, scores: pd.DataFrame) -> pd.DataFrame:
    """row, column, giou in percent: every variant in the grid of the first two factors."""
    rows, columns = two_factors(sweep)
    part = _giou(sweep, scores)["value"]
    every = {key: _values(sweep, key) for key in (rows, columns)}

    def of(variant: VariantResult, key: str) -> list[str]:
        """Its value; all of them where the factor was dropped, because it cannot matter there."""
        return [str(variant.factors[key])] if key in variant.factors else every[key]

    return pd.DataFrame(
        [
            (row, column, 100 * float(part[v.label]))
            for v in sweep.variants
            if v.label in part
            for row in of(v, rows)
            for column in of(v, columns)
        ],
        columns=["row", "column", "giou"],
    )


def interaction(sweep: Sweep, scores: pd.DataFrame) -> Any:
    """gIoU over two factors as a heat map."""
    import seaborn as sns

    rows, columns = two_factors(sweep)
    every = {key: _values(sweep, key) for key in (rows, columns)}
    frame = combinations(sweep, scores)
    grid = frame.pivot_table("giou", "row", "column").reindex(
        index=every[rows], columns=every[columns]
    )
    grid.columns = pd.Index([wrap(name, 16) for name in grid.columns])
    grid.index = pd.Index([wrap(name, 24) for name in grid.index])
    # 0.075 inch: a letter of 8 point.
    width = max([0.95, *(0.075 * len(line) for x in grid.columns for line in x.splitlines())])
    lines = max(x.count("\n") for x in grid.columns)
    height = 1.3 + 0.15 * lines + 0.45 * grid.shape[0]
    figure = canvas(1.9 + width * grid.shape[1], height, [])
    ax = figure.subplots()
    style = {"cmap": "cividis", "annot": True, "fmt": ".1f", "linewidths": 1}
    sns.heatmap(grid, ax=ax, cbar_kws={"label": "gIoU (%)"}, **style)
    ax.set(xlabel=columns, ylabel=rows)
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=0)
    return figure


def _giou(sweep: Sweep, scores: pd.DataFrame) -> pd.DataFrame:
    """gIoU of the whole test split under the headline protocol, by label."""
    whole = (scores["metric"] == "giou") & (scores["slice"] == "")
    return scores[whole & (scores["protocol"] == sweep.headline)].set_index("label")


def cost(sweep: Sweep, scores: pd.DataFrame) -> Any:
    """gIoU against GPU-hours and against trained parameters, one point a variant."""
    variants = [v for v in sweep.variants if v.finished]
    part = _giou(sweep, scores)
    figure = canvas(8.4, 3.1, variants)
    axes = figure.subplots(1, 2, sharey=True)
    device = cost_unit(cell.info for cell in sweep.finished)
    hours = {v.label: v.hours for v in variants}
    scale, unit = (1, "hours") if max(hours.values(), default=0.0) >= 2 else (60, "minutes")
    trained = {v.label: v.mean("trainable_parameters") / 1e6 for v in variants}
    sides = (
        ({label: scale * spent for label, spent in hours.items()}, f"{device}-{unit} of a run"),
        (trained, "trained parameters, millions"),
    )
    for ax, (at_label, title) in zip(axes, sides, strict=True):
        for variant in variants:
            style = look(variant.index)
            value, low, high = (
                100 * part.loc[[variant.label], ["value", "low", "high"]].to_numpy()[0]
            )
            at = at_label[variant.label]
            if np.isfinite([at, low, high]).all():
                ax.vlines(at, low, high, color=style.colour, linewidth=1.2)
            ax.plot([at], [value], style.marker, color=style.colour)
        ax.set_xlabel(title)
        ax.set_xlim(0, 1.08 * ax.get_xlim()[1])  # from 0: small differences of cost look small
    axes[0].set_ylabel("gIoU (%)")
    legend(figure, variants, line=False)
    return figure
