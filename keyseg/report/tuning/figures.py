"""Figures of a tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keyseg.report.figures.style import INK, PALETTE
from keyseg.report.tuning.space import contour, parallel, slices
from keyseg.report.tuning.style import BEST, GOOD, QUIET, new_figure
from keyseg.report.tuning.timeline import timeline as time_of
from keyseg.report.tuning.trials import Study, Trial, TuningResults

STATES = {"complete": GOOD, "pruned": QUIET, "fail": BEST}


def common(tuning: TuningResults) -> dict[str, Any]:
    """Figures of all studies together; None for one that there is no data for."""
    return {"best_of_n": best_of_n(tuning.studies), "timeline": timeline(tuning)}


def single(study: Study) -> dict[str, Any]:
    """Figures of one study; None for one that there is no data for."""
    return {
        "history": history(study),
        "pareto": pareto(study) if len(study.objectives) > 1 else None,
        "importances": importances(study),
        "slices": slices(study),
        "contour": contour(study),
        "parallel": parallel(study),
    }


def history(study: Study) -> Any:
    """Value by number, and the best so far."""
    import pandas as pd
    import seaborn as sns

    if not study.done:
        return None
    shown = [t for t in study.trials if t.values and t.state in ("complete", "pruned")]
    kinds = {
        "drawn": ("o", GOOD),
        "known point": ("s", PALETTE[4]),
        "pruned": ("X", QUIET),
        "beyond a constraint": ("v", PALETTE[3]),
    }
    data = pd.DataFrame(
        {
            "trial": [t.number for t in shown],
            study.objectives[0]: [t.values[0] for t in shown],
            "kind": [_kind(t) for t in shown],
        }
    )
    figure = new_figure(8.5, 3.2)
    ax = figure.subplots()
    best = study.sign * np.maximum.accumulate([study.sign * t.values[0] for t in study.allowed])
    ax.step([t.number for t in study.allowed], best, where="post", color=BEST, label="best so far")
    present = [kind for kind in kinds if (data["kind"] == kind).any()]
    sns.scatterplot(
        data, x="trial", y=study.objectives[0], hue="kind", style="kind", hue_order=present,
        style_order=present, palette={k: kinds[k][1] for k in present},
        markers={k: kinds[k][0] for k in present}, s=26, ax=ax,
    )  # fmt: skip
    failed = [t.number for t in study.trials if t.state == "fail"]
    if failed:
        ax.plot(failed, [0.02] * len(failed), "|", color=BEST, markersize=8, label="failed",
                transform=ax.get_xaxis_transform())  # fmt: skip
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _kind(trial: Trial) -> str:
    if trial.state == "pruned":
        return "pruned"
    if not trial.allowed:
        return "beyond a constraint"
    return "known point" if trial.enqueued or trial.taken_over else "drawn"


def best_of_n(studies: Sequence[Study]) -> Any:
    """Expected best of n trials, one line a study."""
    import pandas as pd
    import seaborn as sns

    curves = {s.label or "all trials": expected_best([s.sign * t.values[0] for t in s.allowed])
              for s in studies}  # fmt: skip
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    objective = f"expected best {studies[0].objectives[0]}"
    data = pd.DataFrame(
        [
            {"n completed trials": n, objective: study.sign * value, "study": label}
            for study, (label, curve) in zip(studies, curves.items(), strict=True)
            for n, value in enumerate(curve, start=1)
        ]
    )
    figure = new_figure(8.5, 3)
    ax = figure.subplots()
    several = len(studies) > 1
    sns.lineplot(
        data, x="n completed trials", y=objective, hue="study", style="study",
        palette=[PALETTE[i % len(PALETTE)] for i in range(data["study"].nunique())],
        legend=several, ax=ax,
    )  # fmt: skip
    if several:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
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


def importances(study: Study) -> Any:
    """Importances by fANOVA and PED-ANOVA."""
    import pandas as pd
    import seaborn as sns

    importances_by = study.importances
    if not importances_by:
        return None
    data = pd.DataFrame(
        [
            {"parameter": key, "importance": shares.get(key, 0.0), "method": method}
            for method, shares in importances_by.items()
            for key in study.by_importance()
        ]
    )
    figure = new_figure(7, 0.8 + 0.44 * len(study.space))
    ax = figure.subplots()
    sns.barplot(
        data, y="parameter", x="importance", hue="method", orient="h", saturation=1,
        palette=[GOOD, PALETTE[5]][: len(importances_by)], ax=ax,
    )  # fmt: skip
    ax.set(ylabel="", xlabel="importance (shares of 1)")
    # above the bars: within, it would cover those of a space of few parameters
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, title=None, frameon=False)
    return figure


def timeline(tuning: TuningResults) -> Any:
    """One bar a trial, on the first line that is free."""
    from matplotlib.patches import Patch

    busy = time_of(tuning)
    if busy is None:
        return None
    lines = max(bar.line for bar in busy.bars) + 1
    unit, name = (60, "minutes") if max(b.end for b in busy.bars) > 180 else (1, "seconds")
    figure = new_figure(9.5, 1.1 + 0.26 * lines)
    ax = figure.subplots()
    for bar in busy.bars:
        ax.barh(bar.line, (bar.end - bar.begin) / unit, 0.82, bar.begin / unit, linewidth=0.5,
                color=STATES.get(bar.trial.state, QUIET), edgecolor="white")  # fmt: skip
    for seam in busy.seams:
        ax.axvline(seam / unit, color=INK, linewidth=0.8, linestyle=":")
    ax.set(xlabel=f"{name} of tuning", ylabel="worker", xlim=(0, None), ylim=(lines - 0.4, -0.6))
    title = f"utilisation {100 * busy.used:.1f} %; until the last trial was started "
    ax.set_title(f"{title}{100 * busy.steady:.1f} %", loc="left")
    ax.set_yticks(range(lines), [str(i + 1) for i in range(lines)])
    ax.grid(axis="y", visible=False)
    there = [s for s in STATES if any(bar.trial.state == s for bar in busy.bars)]
    ax.legend(
        handles=[Patch(color=STATES[s], label=s) for s in there],
        loc="center left", bbox_to_anchor=(1.01, 0.5),
    )  # fmt: skip
    return figure


def pareto(study: Study) -> Any:
    """The first two objectives, and the front."""
    import pandas as pd
    import seaborn as sns

    if not study.allowed:
        return None
    signs = [1 if d == "maximize" else -1 for d in study.directions[:2]]
    x, y = study.objectives[:2]
    figure = new_figure(6, 3.8)
    ax = figure.subplots()
    front: list[Trial] = []
    for trial in sorted(
        study.allowed, key=lambda t: (-signs[0] * t.values[0], -signs[1] * t.values[1])
    ):
        if not front or signs[1] * trial.values[1] > signs[1] * front[-1].values[1]:
            front.append(trial)
    data = pd.DataFrame(
        {x: [t.values[0] for t in study.done], y: [t.values[1] for t in study.done]}
    )
    sns.scatterplot(data, x=x, y=y, color=QUIET, s=24, label="dominated", ax=ax)
    ax.step(
        *zip(*[t.values[:2] for t in front], strict=True), "o-", color=BEST, label="Pareto front",
        where="post",
    )  # fmt: skip
    for trial in front:
        ax.annotate(f" {trial.number}", trial.values[:2], fontsize=7, color=INK, va="bottom")
    ax.set(xlabel=f"{x} ({study.directions[0]})", ylabel=f"{y} ({study.directions[1]})")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
