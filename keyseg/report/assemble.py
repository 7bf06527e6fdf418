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
from keyseg.report.files import ReportFiles
from keyseg.report.gallery import examples
from keyseg.report.page import checks, render
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
    sweep = joined.asked(joined.join(folders), asked.metrics, asked.baseline)
    log.info("%s: %d of %d cells finished", sweep.name, len(sweep.finished), len(sweep.cells))
    log.info("scores with their intervals")
    measured = scores.scores(sweep, seed)
    replaced = stats_interventions.interventions(sweep, seed)
    log.info("contrasts with their intervals and p values")
    differences = scores.contrasts(sweep, seed)
    log.info("tables and gallery")
    slices = scores.slices(sweep)
    in_print = printed.load(published or _PUBLISHED, sweep.design.get("published"))
    parts = render.PageContent(
        sweep=sweep,
        notices=checks.check(sweep),
        headline=headline.table(sweep, measured, in_print),
        answers=contrasts.answers(sweep, differences),
        results=_results(sweep, measured, slices, replaced),
        verdicts=contrasts.verdicts(sweep, differences),
        contrasts=contrasts.contrasts(sweep, differences),
        slices=[results.by_slice(sweep, measured, n, values) for n, values in slices.items()],
        published=printed.table(sweep, in_print),
        runs=runs.table(sweep),
        manifest=export.manifest(sweep),
        gallery=examples.build(sweep, seed),
        tunings=tuning.sections(folders, out_dir / "figures"),
        added=sections.filled(ReportData(sweep, measured, differences, slices)),
    )
    frames = {
        "results": export.results(sweep, measured),
        "contrasts": differences,
        "slices": measured[measured["slice"] != ""],
        "published": in_print,
        "runs": parts.runs,
        "manifest": parts.manifest,
        **({"interventions": replaced} if len(replaced) else {}),
    }
    log.info("figures")
    written = export.write(out_dir / "tables", frames, parts.tables)
    figures = drawing.draw_all(sweep, measured, differences, slices, out_dir / "figures")
    html, markdown = render.write(out_dir, parts, figures)
    set_too = figures if "pdf" in asked.formats else {}
    written += (render.write_tex(out_dir, parts, written, set_too),)
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

    in_tables, in_figures, pages = kept(written), kept(drawn), kept((html, markdown))
    first = next(iter((*pages, *in_tables, *in_figures)))
    return ReportFiles(first, markdown, in_tables, in_figures)


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
    replacing = interventions.table(sweep, replaced)
    some = [*scored, named, replacing, cost, *speed.tables(sweep), crossed]
    return [found for found in some if found is not None]
