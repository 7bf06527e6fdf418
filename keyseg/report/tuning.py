"""The report of a tuning: tuning.html beside index.html, from trials.json alone."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from keyseg.report import overlay, tuning_plots
from keyseg.report.style import figure_style, save
from keyseg.report.tuning_data import Study, load

TRIALS = "trials.json"

CAPTIONS = {
    "history": (
        "History",
        "Value of every trial by its number; line: the best so far. Hollow: points that were "
        "enqueued; crosses: pruned, at their last value; ticks at the foot: failed.",
    ),
    "best_of_n": (
        "Expected best of n",
        "Mean best value of n trials drawn without replacement from those of each study (Dodge et "
        "al. 2019). A variant that was tuned harder reaches further to the right.",
    ),
    "parallel": (
        "Parallel coordinates",
        "One line a completed trial through its parameters, each scaled to the range searched; "
        "dark: good. The best is drawn in orange.",
    ),
    "slices": ("Slices", "Value against each parameter, on the scale it was searched on."),
    "importances": (
        "Importances",
        "Share of the value's variance that a parameter explains: fANOVA over all completed "
        "trials, and PED-ANOVA, which asks what tells the best tenth from the rest.",
    ),
    "timeline": (
        "Timeline",
        "One bar a trial from the moment it was asked for until it was told, on as many lines as "
        "there were workers; utilisation: their share of the time from first to last.",
    ),
    "pareto": (
        "Pareto front",
        "Completed trials in the first two objectives; joined: those that no other beats in both.",
    ),
}


def build(sweep_dir: Path, out_dir: Path) -> Path | None:
    """Write tuning.html and its figures; its path, or None where nothing was tuned.

    Raises:
        ValueError: trials.json cannot be read.
    """
    file = sweep_dir / TRIALS
    if not file.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}); start the sweep again") from error
    studies = load(content)
    folder = out_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [_head(sweep_dir.name, content, studies)]
    with figure_style():
        shared = {"best_of_n": tuning_plots.best_of_n(studies)}
        blocks += _figures(shared, folder, "")
        for study in studies:
            if len(studies) > 1:
                blocks.append(f"<h2>{escape(study.label)}</h2>")
            blocks += _figures(
                tuning_plots.draw(study, int(content["workers"])), folder, study.label
            )
    page = out_dir / "tuning.html"
    css = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    page.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>'
        f"{escape(sweep_dir.name)} · tuning</title><style>{css}</style></head>"
        f"<body>{''.join(blocks)}</body></html>",
        encoding="utf-8",
    )
    return page


def _figures(drawn: dict[str, Any], folder: Path, label: str) -> list[str]:
    blocks = []
    for name, figure in drawn.items():
        if figure is None:
            continue
        stem = f"tuning_{name}_{label}" if label else f"tuning_{name}"
        _, svg, _ = save(figure, folder, stem)
        title, caption = CAPTIONS[name]
        blocks.append(
            f'<figure class="plot" id="{escape(stem)}"><img src="{overlay.file_uri(svg)}" '
            f'alt="{escape(title)}"><figcaption><b>{escape(title)}.</b> {escape(caption)}'
            "</figcaption></figure>"
        )
    return blocks


def _head(name: str, content: dict[str, Any], studies: list[Study]) -> str:
    lines = []
    for study in studies:
        count = ", ".join(f"{n} {state}" for state, n in study.states.items())
        best = study.best
        if best is not None:
            values = ", ".join(
                f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
                for key, value in best.params.items()
            )
            score = f"{study.objectives[0]} {best.values[0]:.4g}"
            count += f"; best: trial {best.number}, {score}: {values}"
        lines.append(f"<li><b>{escape(study.label or name)}</b> {escape(count)}</li>")
    method = f"sampler {content['sampler']}, pruner {content['pruner']}"
    return (
        f'<header><p class="kicker">keyseg · report of a tuning</p><h1>{escape(name)}</h1>'
        f"<p>{escape(method)}, {content['workers']} at a time. Values are those of val; the test "
        f'split is in <a href="index.html">index.html</a>.</p><ul>{"".join(lines)}</ul></header>'
    )
