"""Figures over the search space of a tuning: slices, contour, parallel coordinates."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from keyseg.report.figures.style import INK, PALETTE
from keyseg.report.tuning.style import BEST, GOOD, QUIET, new_figure
from keyseg.report.tuning.trials import Study, Trial


def slices(study: Study) -> Any:
    """Value against each parameter, the most important first."""
    import seaborn as sns

    keys = study.by_importance()
    if not study.done or not keys:
        return None
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = new_figure(10, 2.7 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for ax in axes[len(keys) :]:
        ax.set_axis_off()
    blues = sns.color_palette("Blues", as_cmap=True)
    late = {t.number: blues(t.number / max(1, study.done[-1].number)) for t in study.done}
    for ax, key in zip(axes, keys, strict=False):
        names = study.choices(key)
        if names is not None:
            ax.set_xticks(range(len(names)), names)
            ax.set_xlim(-0.5, len(names) - 0.5)
        else:
            _whole_range(ax, study, key)
        shown = [t for t in study.done if key in t.params]
        sns.scatterplot(
            x=[_number(study, key, t.params[key]) for t in shown], y=[t.values[0] for t in shown],
            hue=[t.number for t in shown], palette=late, edgecolor=GOOD, linewidth=0.5, s=24,
            legend=False, ax=ax,
        )  # fmt: skip
        best = study.best
        if best is not None and key in best.params:
            ax.plot(_number(study, key, best.params[key]), best.values[0], "D", color=BEST,
                    markersize=5, label="best")  # fmt: skip
        if _has_default(study, key):
            ax.axvline(_number(study, key, study.default[key]), color=INK, linestyle=":",
                       linewidth=1, label="default")  # fmt: skip
        ax.set_title(key)
        ax.set(xlabel="", ylabel="")
    handles = {h.get_label(): h for ax in axes for h in ax.get_legend_handles_labels()[0]}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=2)
    figure.supylabel(study.objectives[0], fontsize=8.5, color=INK)
    return figure


def contour(study: Study) -> Any:
    """The value over the two most important parameters that are numbers."""
    numbers = [key for key in study.by_importance() if study.choices(key) is None]
    if len(numbers) < 2:
        return None
    x, y = numbers[:2]
    surface = _surface(study, x, y)
    if surface is None:
        return None
    import matplotlib as mpl

    figure = new_figure(6.6, 4.4)
    ax = figure.subplots()
    values = surface[2]
    levels = np.linspace(values.min(), values.max(), 10)
    drawn = ax.tricontourf(mpl.tri.Triangulation(*surface[:2]), values, levels=levels,
                           cmap="Blues" if study.sign > 0 else "Blues_r")  # fmt: skip
    figure.colorbar(drawn, ax=ax, label=study.objectives[0], format="%.3g")
    for state, marker, face in (("complete", "o", "white"), ("pruned", "X", QUIET)):
        shown = [t for t in study.trials if t.state == state and x in t.params and y in t.params]
        if shown:
            ax.plot(*_places(study, x, y, shown), marker, color=face, markeredgecolor=INK,
                    markeredgewidth=0.6, markersize=5, label=state)  # fmt: skip
    failed = [t for t in study.trials if t.state == "fail" and x in t.params and y in t.params]
    if failed:
        ax.plot(*_places(study, x, y, failed), "+", color=BEST, markersize=8, label="failed")
    if study.best is not None and x in study.best.params and y in study.best.params:
        ax.plot(*_places(study, x, y, [study.best]), "D", color=BEST, markeredgecolor="white",
                markersize=8, label="best")  # fmt: skip
    if _has_default(study, x) and _has_default(study, y):
        ax.plot(_place(study, x, study.default[x]), _place(study, y, study.default[y]), "*",
                color=PALETTE[4], markeredgecolor=INK, markersize=11, label="default")  # fmt: skip
    for axis, key, limit in ((ax.xaxis, x, ax.set_xlim), (ax.yaxis, y, ax.set_ylim)):
        low, high = (_place(study, key, end) for end in study.ends(key))
        limit(low - 0.03 * (high - low), high + 0.03 * (high - low))
        if study.is_log(key):
            _ticks_of_logarithms(axis, *study.ends(key))
    ax.set(xlabel=x, ylabel=y)
    ax.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _surface(study: Study, x: str, y: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Places and mean values of completed trials; None where they span no area."""
    values_at: dict[tuple[float, float], list[float]] = defaultdict(list)
    for trial in study.done:
        if x in trial.params and y in trial.params:
            place = _place(study, x, trial.params[x]), _place(study, y, trial.params[y])
            values_at[place].append(trial.values[0])
    points = np.array(list(values_at), dtype=float).reshape(-1, 2)
    values = np.array([np.mean(v) for v in values_at.values()])
    if len(points) < 4 or np.ptp(values) == 0 or np.linalg.matrix_rank(points - points[0]) < 2:
        return None
    return points[:, 0], points[:, 1], values


def parallel(study: Study) -> Any:
    """One line a trial through all parameters; a parameter that it does not have is a gap."""
    keys = list(study.space)
    shown = [t for t in study.done if any(k in t.params for k in keys)]
    if len(shown) < 2 or len(keys) < 2:
        return None
    import matplotlib as mpl

    figure = new_figure(max(6.5, 1.9 * len(keys)), 3.6)
    ax = figure.subplots()
    values = np.array([study.sign * t.values[0] for t in shown])
    rank = values.argsort().argsort() / (len(shown) - 1)
    colours = mpl.colormaps["Blues"]
    for i in values.argsort():
        params = shown[i].params
        line = [_share(study, k, params[k]) if k in params else np.nan for k in keys]
        best = shown[i] is study.best
        ax.plot(range(len(keys)), line, color=BEST if best else colours(0.15 + 0.8 * rank[i]),
                linewidth=2 if best else 0.8, marker="o" if best else ".",
                markersize=4 if best else 2.5)  # fmt: skip
    for i, key in enumerate(keys):
        ax.plot([i, i], [0, 1], color=INK, linewidth=0.7)
        names = study.choices(key)
        if names is None:
            low, high = (f"{end:g}" for end in study.ends(key))
            ax.text(i, -0.03, low, ha="center", va="top", fontsize=7)
            ax.text(i, 1.03, high, ha="center", va="bottom", fontsize=7)
        for name in names or ():
            ax.text(i + 0.04, _share(study, key, name), name, va="center", fontsize=7)
    ax.set_xticks(range(len(keys)), [_two_lines(k) for k in keys])
    ax.set(yticks=[], ylim=(-0.12, 1.12), xlim=(-0.3, len(keys) - 0.7))
    ax.spines["left"].set_visible(False)
    bar = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), mpl.colors.ListedColormap(
        [colours(0.15 + 0.8 * q) for q in np.linspace(0, 1, 64)]))  # fmt: skip
    legend = figure.colorbar(bar, ax=ax, ticks=[0, 1])
    legend.ax.set_yticklabels(["worst", "best"])
    legend.set_label(f"rank by {study.objectives[0]}")
    legend.outline.set_visible(False)
    return figure


def _two_lines(key: str) -> str:
    head, dot, tail = key.rpartition(".")
    return f"{head}{dot}\n{tail}" if dot else key


def _places(study: Study, x: str, y: str, trials: list[Trial]) -> tuple[list[float], list[float]]:
    return (
        [_place(study, x, t.params[x]) for t in trials],
        [_place(study, y, t.params[y]) for t in trials],
    )


def _number(study: Study, key: str, value: Any) -> float:
    """A value as a number: a choice by its place among the others."""
    names = study.choices(key)
    return float(value if names is None else names.index(str(value)))


def _place(study: Study, key: str, value: Any) -> float:
    """The same, or its logarithm where that is the scale it was searched on."""
    number = _number(study, key, value)
    return float(np.log10(number)) if study.is_log(key) else number


def _has_default(study: Study, key: str) -> bool:
    """Whether the value that the config has lies in the space."""
    if key not in study.default:
        return False
    value, names = study.default[key], study.choices(key)
    if names is not None:
        return str(value) in names
    low, high = study.ends(key)
    return isinstance(value, int | float) and low <= value <= high


def _share(study: Study, key: str, value: Any) -> float:
    """0 to 1 within the range searched."""
    names = study.choices(key)
    if names is not None:
        return names.index(str(value)) / max(1, len(names) - 1)
    low, high = (_place(study, key, end) for end in study.ends(key))
    return (_place(study, key, value) - low) / ((high - low) or 1)


def _whole_range(ax: Any, study: Study, key: str) -> None:
    """The x axis on the scale of a number, as far as it was searched."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    low, high = study.ends(key)
    if study.is_log(key):
        margin = (high / low) ** 0.04
        ax.set_xscale("log")
        ax.set_xlim(low / margin, high * margin)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.04 * (high - low)
        ax.set_xlim(low - margin, high + margin)


def _ticks_of_logarithms(axis: Any, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten; of the powers alone where there are many."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1, 2, 5) if len(powers) < 4 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    axis.set_ticks([np.log10(tick) for tick in inside], [f"{tick:g}" for tick in inside])
