"""Figures of a tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keyseg.report.style import COLOURS, INK
from keyseg.report.tuning_data import Study, Trial

BEST, QUIET = COLOURS[1], "#9a9a9a"


def draw(study: Study, workers: int) -> dict[str, Any]:
    """All figures of one study; None for one that there is no data for."""
    two = len(study.objectives) > 1
    return {
        "history": history(study),
        "pareto": pareto(study) if two else None,
        "slices": slices(study),
        "parallel": parallel(study),
        "importances": importances(study),
        "timeline": timeline(study, workers),
    }


def history(study: Study) -> Any:
    """Value by number, and the best so far."""
    if not study.done:
        return None
    figure = _figure(8, 3)
    ax = figure.subplots()
    for hollow in (False, True):
        mine = [t for t in study.done if t.enqueued == hollow]
        face = "none" if hollow else COLOURS[0]
        ax.scatter(
            [t.number for t in mine], [t.values[0] for t in mine], 16, facecolors=face,
            edgecolors=COLOURS[0], linewidths=0.9,
        )  # fmt: skip
    pruned = [t for t in study.trials if t.state == "pruned" and t.values]
    ax.scatter([t.number for t in pruned], [t.values[0] for t in pruned], 14, QUIET, marker="x")
    failed = [t.number for t in study.trials if t.state == "fail"]
    ax.plot(failed, [0.02] * len(failed), "|", color=BEST, transform=ax.get_xaxis_transform())
    best = study.sign * np.maximum.accumulate([study.sign * t.values[0] for t in study.done])
    ax.step([t.number for t in study.done], best, where="post", color=BEST)
    ax.set(xlabel="trial", ylabel=study.objectives[0])
    return figure


def best_of_n(studies: Sequence[Study]) -> Any:
    """Expected best of n trials, one line a study."""
    if not any(len(s.done) > 1 for s in studies):
        return None
    figure = _figure(8, 3)
    ax = figure.subplots()
    for i, study in enumerate(studies):
        curve = expected_best([study.sign * t.values[0] for t in study.done])
        colour = COLOURS[i % len(COLOURS)]
        label = study.label or "all trials"
        ax.plot(range(1, len(curve) + 1), study.sign * curve, color=colour, label=label)
    ax.set(xlabel="n trials", ylabel=f"expected best {studies[0].objectives[0]}")
    ax.legend()
    return figure


def expected_best(values: Sequence[float]) -> np.ndarray[Any, Any]:
    """Mean best of n of these values drawn without replacement, for every n; shape (len,).

    The i-th smallest (1-based) of N is the best of n with probability C(i-1, n-1) / C(N, n).
    """
    ranked = np.sort(np.asarray(values, dtype=float))
    total = len(ranked)
    curve = np.empty(total)
    for n in range(1, total + 1):
        weight = np.zeros(total)
        weight[total - 1] = n / total
        for i in range(total - 1, n - 1, -1):  # C(i-1, n-1) from C(i, n-1)
            weight[i - 1] = weight[i] * (i - n + 1) / i
        curve[n - 1] = weight @ ranked
    return curve


def slices(study: Study) -> Any:
    """Value against each parameter."""
    keys = list(study.space)
    if not study.done or not keys:
        return None
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = _figure(10, 2.6 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for ax in axes[len(keys) :]:
        ax.set_axis_off()
    for ax, key in zip(axes, keys, strict=False):
        shown = [t for t in study.done if key in t.params]
        if "choices" in (study.space[key].get("attributes") or {}):
            names = [str(c) for c in study.space[key]["attributes"]["choices"]]
            x = [names.index(str(t.params[key])) for t in shown]
            ax.set_xticks(range(len(names)), names)
        else:
            x = [t.params[key] for t in shown]
            if study.is_log(key):
                ax.set_xscale("log")
        ax.scatter(x, [t.values[0] for t in shown], 14, [t.number for t in shown], cmap="Blues",
                   edgecolors=COLOURS[0], linewidths=0.5)  # fmt: skip
        ax.set_title(key)
    figure.supylabel(study.objectives[0], fontsize=8.5, color=INK)
    return figure


def parallel(study: Study) -> Any:
    """One line a trial through all parameters."""
    keys = list(study.space)
    shown = [t for t in study.done if all(k in t.params for k in keys)]
    if len(shown) < 2 or len(keys) < 2:
        return None
    import matplotlib as mpl

    figure = _figure(max(6, 1.9 * len(keys)), 3.4)
    ax = figure.subplots()
    values = np.array([study.sign * t.values[0] for t in shown])
    rank = values.argsort().argsort() / (len(shown) - 1)
    for i in values.argsort():
        line = [_scaled(study, k, shown[i].params[k]) for k in keys]
        best = i == values.argmax()
        colour = BEST if best else mpl.colormaps["Blues"](0.15 + 0.8 * rank[i])
        ax.plot(range(len(keys)), line, color=colour, linewidth=1.8 if best else 0.8)
    for i, key in enumerate(keys):
        low, high = _ends(study, key)
        ax.text(i, -0.03, low, ha="center", va="top", fontsize=7)
        ax.text(i, 1.03, high, ha="center", va="bottom", fontsize=7)
    ax.set_xticks(range(len(keys)), [k.rpartition(".")[0] + ".\n" + k.rpartition(".")[2]
                                     if "." in k else k for k in keys])  # fmt: skip
    ax.set(yticks=[], ylim=(-0.12, 1.12))
    return figure


def importances(study: Study) -> Any:
    """Importances by fANOVA and PED-ANOVA."""
    found = study.importances()
    if not found:
        return None
    keys = sorted(study.space, key=lambda k: next(iter(found.values())).get(k, 0))
    figure = _figure(7, 0.8 + 0.42 * len(keys))
    ax = figure.subplots()
    for i, (method, shares) in enumerate(found.items()):
        places = np.arange(len(keys)) + (0.2 - 0.4 * i if len(found) > 1 else 0)
        ax.barh(places, [shares.get(k, 0) for k in keys], 0.38, color=COLOURS[i], label=method)
    ax.set_yticks(range(len(keys)), keys)
    ax.set(xlabel="importance", xlim=(0, None))
    ax.legend(loc="lower right")
    return figure


def timeline(study: Study, workers: int) -> Any:
    """One bar a trial, on the first line that is free."""
    shown = [t for t in study.trials if t.started and t.ended and not t.taken_over]
    if not shown:
        return None
    lines, used = lanes(shown, workers)
    start = min(float(t.started or 0) for t in shown)
    colours = {"complete": COLOURS[0], "pruned": QUIET, "fail": BEST}
    figure = _figure(9, 0.9 + 0.22 * (max(lines) + 1))
    ax = figure.subplots()
    for trial, line in zip(shown, lines, strict=True):
        begin, end = float(trial.started or 0) - start, float(trial.ended or 0) - start
        ax.barh(line, (end - begin) / 60, 0.8, begin / 60, color=colours.get(trial.state, QUIET),
                edgecolor="white", linewidth=0.4)  # fmt: skip
    ax.set(xlabel="minutes", ylabel="worker", title=f"utilisation {100 * used:.0f} %")
    ax.set_yticks([])
    return figure


def lanes(trials: Sequence[Trial], workers: int) -> tuple[list[int], float]:
    """A line for each trial, and the share of all workers' time that trials took."""
    ends: list[float] = []
    placed = {}
    for trial in sorted(trials, key=lambda t: float(t.started or 0)):
        begin, end = float(trial.started or 0), float(trial.ended or 0)
        line = next((i for i, free in enumerate(ends) if free <= begin), len(ends))
        ends[line:] = [end, *ends[line + 1 :]]
        placed[trial.number] = line
    begins = [float(t.started or 0) for t in trials]
    span = max(float(t.ended or 0) for t in trials) - min(begins)
    busy = sum(float(t.ended or 0) - float(t.started or 0) for t in trials)
    return [placed[t.number] for t in trials], min(1.0, busy / (workers * span)) if span else 1.0


def pareto(study: Study) -> Any:
    """The first two objectives, and the front."""
    if not study.done:
        return None
    signs = [1 if d == "maximize" else -1 for d in study.directions[:2]]
    figure = _figure(5, 3.6)
    ax = figure.subplots()
    ax.scatter(*zip(*[t.values[:2] for t in study.done], strict=True), 14, QUIET)
    front: list[tuple[float, ...]] = []
    for trial in sorted(
        study.done, key=lambda t: (-signs[0] * t.values[0], -signs[1] * t.values[1])
    ):
        if not front or signs[1] * trial.values[1] > signs[1] * front[-1][1]:
            front.append(trial.values[:2])
    ax.plot(*zip(*front, strict=True), "o-", color=BEST)
    ax.set(xlabel=study.objectives[0], ylabel=study.objectives[1])
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _scaled(study: Study, key: str, value: Any) -> float:
    """0 to 1 within the range searched."""
    attributes = study.space[key]["attributes"]
    if "choices" in attributes:
        names = [str(c) for c in attributes["choices"]]
        return names.index(str(value)) / max(1, len(names) - 1)
    low, high = float(attributes["low"]), float(attributes["high"])
    if study.is_log(key):
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / ((high - low) or 1))


def _ends(study: Study, key: str) -> tuple[str, str]:
    attributes = study.space[key]["attributes"]
    if "choices" in attributes:
        return str(attributes["choices"][0]), str(attributes["choices"][-1])
    return f"{attributes['low']:g}", f"{attributes['high']:g}"
