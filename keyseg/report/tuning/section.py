"""The part of a report that tells how the best settings were found, from trials.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyseg.report.figures.style import FIGURE_KINDS, figure_style, save
from keyseg.report.tuning import figures
from keyseg.report.tuning.trials import Study, Trial, TuningResults, load

CAPTIONS = {
    "best_of_n": (
        "Expected best of n",
        "Mean best val value of n trials drawn without replacement from the completed ones of each "
        "study (Dodge et al. 2019), as if their order did not matter. A variant that was tuned "
        "harder reaches further to the right; compare variants at the same n.",
    ),
    "timeline": (
        "Timeline",
        "One bar a trial while its worker was at it, from the run directories; dotted: where one "
        "invocation of the command ended and the next began. Utilisation: the share of all "
        "workers' time that they had a trial; the last trials of a budget run out one by one.",
    ),
    "history": (
        "History",
        "Value of every trial by its number. Known points were enqueued or taken over; pruned "
        "trials stand at their last value; ticks at the foot: failed.",
    ),
    "pareto": (
        "Pareto front",
        "Completed trials in the first two objectives; joined, with their numbers: those that no "
        "other beats in both.",
    ),
    "importances": (
        "Importances",
        "fANOVA (Hutter et al. 2014): share of the value's variance over the space that a "
        "parameter explains. PED-ANOVA (Watanabe et al. 2023): what tells the best tenth of the "
        "trials from the others. Both are estimates from completed trials, rough below a few "
        "dozen.",
    ),
    "slices": (
        "Slices",
        "Value of completed trials against each parameter, on the scale it was searched on, the "
        "most important first; darker: later.",
    ),
    "contour": (
        "Contour",
        "The two most important numbers (mean of both importances). Colour: value, linear between "
        "completed trials; the other parameters vary as well, so neighbours may differ.",
    ),
    "parallel": (
        "Parallel coordinates",
        "One line a completed trial through its parameters, each on the scale it was searched on; "
        "dark: good. Orange: the best.",
    ),
}


@dataclass(frozen=True)
class Figure:
    """One figure on the page. `files`: those that were wanted, in the order of `FIGURE_KINDS`."""

    name: str
    title: str
    caption: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class StudySection:
    """One study, or what all share (`label` None). `rows`: parameter, default, best."""

    label: str | None
    summary: str
    rows: Sequence[tuple[str, str, str]]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Section:
    """How one sweep was tuned."""

    name: str
    method: str
    parts: Sequence[StudySection]

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [figure for part in self.parts for figure in part.figures]


def sections(
    sweeps: Iterable[Path], folder: Path, kinds: Sequence[str] = FIGURE_KINDS
) -> list[Section]:
    """Draw the figures of all sweeps that were tuned into `folder`; without `kinds`, none.

    Raises:
        ValueError: a trials.json cannot be read.
    """
    tunings = [tuning for sweep in sweeps if (tuning := load(sweep)) is not None]
    if not tunings:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [
        section(tuning, folder, tuning.name if i else "", kinds) for i, tuning in enumerate(tunings)
    ]


def section(
    tuning: TuningResults, folder: Path, prefix: str = "", kinds: Sequence[str] = FIGURE_KINDS
) -> Section:
    """One tuning; `prefix`: what its files are told apart by from another's."""
    several = len(tuning.studies) > 1
    parts = []
    with figure_style():
        for study in tuning.studies:
            pictures = figures.single(study) if kinds else {}
            drawn = _save(pictures, folder, [prefix, study.label], kinds)
            label = study.label if several else None
            parts.append(StudySection(label, summary(study), _rows(study), drawn))
        common = _save(figures.common(tuning) if kinds else {}, folder, [prefix], kinds)
    workers = sorted({call.workers for call in tuning.invocations})
    method = f"Sampler {tuning.sampler}, pruner {tuning.pruner}"
    method += f", {' or '.join(map(str, workers))} at a time." if workers else "."
    first = StudySection(None, "", [], common)
    return Section(tuning.name, method, [first, *parts] if several else [*parts, first])


def summary(study: Study) -> str:
    """What became of a study, in a sentence."""
    count = ", ".join(f"{n} {state}" for state, n in study.states.items()) or "no trial yet"
    taken = sum(t.taken_over for t in study.trials)
    count += f", {taken} taken over from other sweeps" if taken else ""
    spent = f"; {study.hours:.1f} hours of workers" if study.hours >= 0.05 else ""
    best = study.best
    if best is None:
        kept = " that keeps to the constraints" if study.done else ""
        return f"{count}{spent}; none has a value{kept}."
    scores = ", ".join(
        f"{name} {value:.4g}" for name, value in zip(study.objectives, best.values, strict=True)
    )
    return f"{count}{spent}; best: trial {best.number}, {scores}."


def _rows(study: Study) -> list[tuple[str, str, str]]:
    best: Trial | None = study.best
    if best is None:
        return []
    return [
        (key, _shown(study.default.get(key)), _shown(best.params.get(key)))
        for key in study.by_importance()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _save(
    drawn: Mapping[str, Any], folder: Path, labels: Sequence[str], kinds: Sequence[str]
) -> list[Figure]:
    return [
        Figure(
            name,
            *CAPTIONS[name],
            save(drawing, folder, "_".join(["tuning", name, *filter(None, labels)]), kinds),
        )
        for name, drawing in drawn.items()
        if drawing is not None
    ]
