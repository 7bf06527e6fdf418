"""From a sweep's directory to a written report: the only place that knows all the parts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keyseg.config import PROJECT
from keyseg.report import joined, sections
from keyseg.report.data import ReportData
from keyseg.report.figures import drawing
from keyseg.report.figures.style import FIGURE_KINDS
from keyseg.report.files import ReportFiles
from keyseg.report.gallery import examples
from keyseg.report.page import answer, checks, render
from keyseg.report.stats import evaluations as stats_evaluations
from keyseg.report.stats import interventions as stats_interventions
from keyseg.report.stats import scores
from keyseg.report.tables import (
    contrasts,
    crossings,
    export,
    headline,
    interventions,
    printed,
    results,
    runs,
    speed,
    table,
    targets,
)
from keyseg.report.tuning import section as tuning
from keyseg.runs import packages

if TYPE_CHECKING:
    import pandas as pd

    from keyseg.report.store import Sweep

log = logging.getLogger(__name__)

_PUBLISHED = PROJECT / "reports" / "published"


@dataclass(frozen=True)
class Asked:
    """What the caller wants other than the design says; empty = as it says."""

    metrics: Sequence[str]
    baseline: Mapping[str, str]
    formats: Sequence[str]


def build(
    folders: Sequence[Path], out_dir: Path, asked: Asked, *, seed: int, published: Path | None
) -> ReportFiles:
    """See `keyseg.report.build`."""
    packages.load()
    whole = joined.asked(joined.join(folders), asked.metrics, asked.baseline)
    sweep = stats_evaluations.own(whole)
    log.info("%s: %d of %d cells finished", sweep.name, len(sweep.finished), len(sweep.cells))
    log.info("scores with their intervals")
    measured = scores.scores(sweep, seed)
    replaced = stats_interventions.interventions(sweep, seed)
    log.info("contrasts with their intervals and p values")
    differences = scores.contrasts(sweep, seed)
    evaluated = _evaluated(whole, sweep, measured, differences, seed)
    figure_kinds = _figure_kinds(asked.formats)
    paged = "html" in asked.formats
    log.info("tables and gallery" if paged else "tables")
    slices = scores.slices(sweep)
    in_print = printed.load(published or _PUBLISHED, sweep.design.get("published"))
    answers = contrasts.answers(sweep, differences)
    first = headline.table(sweep, measured, in_print)
    data = ReportData(sweep, measured, differences, slices, evaluated, in_print, replaced)
    parts = render.PageContent(
        sweep=sweep,
        answer=answer.answer(sweep, answers, first),
        notices=checks.check(sweep),
        headline=first,
        answers=answers,
        results=_results(sweep, measured, slices, replaced),
        verdicts=contrasts.verdicts(sweep, differences),
        contrasts=contrasts.contrasts(sweep, differences),
        slices=[results.by_slice(sweep, measured, n, values) for n, values in slices.items()],
        published=printed.table(sweep, in_print),
        runs=runs.table(sweep),
        manifest=export.manifest(sweep),
        gallery=examples.build(sweep, seed) if paged else None,
        tunings=tuning.sections(folders, out_dir / "figures", figure_kinds),
        added=sections.filled(data),
    )
    frames = {
        **_derived(sweep, measured, differences, evaluated),
        "published": printed.of(sweep, in_print),
        "runs": parts.runs,
        "manifest": parts.manifest,
        **({"interventions": replaced} if len(replaced) else {}),
    }
    written = export.write(out_dir / "tables", frames, parts.tables)
    figures: dict[str, tuple[Path, ...]] = {}
    if figure_kinds:
        log.info("figures")
        figures = drawing.draw_all(data, out_dir / "figures", figure_kinds)
    pages = render.write(out_dir, parts, figures, asked.formats)
    written += (render.write_tex(out_dir, parts, written, figures),)
    tuned = [figure.files for section in parts.tunings for figure in section.figures]
    drawn = tuple(file for files in (*figures.values(), *tuned) for file in files)

    def kept(files: Iterable[Path]) -> tuple[Path, ...]:
        wanted = []
        for file in files:
            if file.suffix[1:] in asked.formats:
                wanted.append(file)
            else:
                file.unlink()
        return tuple(wanted)

    in_tables, in_figures = kept(written), kept(drawn)
    any_file = next(iter((*pages, *in_tables, *in_figures)))
    return ReportFiles(any_file, out_dir / render.MARKDOWN, in_tables, in_figures)


def conclude(
    folder: Path, *, seed: int = 0
) -> tuple[answer.FirstScreen, list[contrasts.Conclusion]]:
    """What a sweep says by now, without its report: seconds, where that takes minutes.

    Raises:
        FileNotFoundError: no sweep.json there.
    """
    packages.load()
    sweep = joined.join([folder])
    conclusions = contrasts.answers(sweep, scores.contrasts(sweep, seed))
    nothing = printed.load(Path(), [])
    first = headline.table(sweep, scores.scores(sweep, seed), nothing)
    return answer.answer(sweep, conclusions, first), conclusions


def _figure_kinds(formats: Sequence[str]) -> list[str]:
    """What figures are drawn as: a page shows them as SVG; tables and text alone need none."""
    kinds = [kind for kind in FIGURE_KINDS if kind in formats]
    if "html" in formats and "svg" not in kinds:
        kinds.append("svg")
    return kinds


def derived(sweep: Sweep, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The tables that samples alone give: `keyseg verify` derives them again."""
    mine = stats_evaluations.own(sweep)
    measured, differences = scores.scores(mine, seed), scores.contrasts(mine, seed)
    evaluated = _evaluated(sweep, mine, measured, differences, seed)
    return _derived(mine, measured, differences, evaluated)


def _evaluated(
    whole: Sweep, sweep: Sweep, measured: pd.DataFrame, differences: pd.DataFrame, seed: int
) -> list[stats_evaluations.OnTestSet]:
    title = stats_evaluations.own_title(sweep)
    mine = stats_evaluations.OnTestSet(title, sweep, measured, differences)
    return stats_evaluations.evaluations(whole, mine, seed)


def _derived(
    sweep: Sweep,
    measured: pd.DataFrame,
    differences: pd.DataFrame,
    evaluated: Sequence[stats_evaluations.OnTestSet],
) -> dict[str, pd.DataFrame]:
    frames = {
        "results": export.results(sweep, measured),
        "contrasts": differences,
        "slices": measured[measured["slice"] != ""],
    }
    if evaluated:
        frames["evaluations"] = stats_evaluations.tidy(evaluated, "scores")
        frames["evaluation_contrasts"] = stats_evaluations.tidy(evaluated, "contrasts")
    return frames


def _results(
    sweep: Sweep,
    measured: pd.DataFrame,
    slices: Mapping[str, Sequence[str]],
    replaced: pd.DataFrame,
) -> list[table.Table]:
    """Masks, keywords, what there was to name beside the keywords, further measures,
    interventions, cost, learning speed, and which variant overtakes which.
    """
    *scored, cost = results.results(sweep, measured)
    named = targets.table(sweep, slices)
    crossed = crossings.table(sweep, measured)
    replacing = interventions.tables(sweep, replaced)
    some = [*scored, named, *replacing, cost, *speed.tables(sweep), crossed]
    return [each for each in some if each is not None]
