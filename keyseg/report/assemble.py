"""From a sweep's directory to a written report: the only place that knows all the parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyseg.config import PROJECT
from keyseg.report import (
    ReportFiles,
    checks,
    export,
    gallery,
    joined,
    page,
    plots,
    printed,
    scores,
    tables,
    tuning,
)

PUBLISHED = PROJECT / "reports" / "published"


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
    sweep = joined.asked(joined.join(folders), asked.metrics, asked.baseline)
    measured = scores.scores(sweep, seed)
    held = scores.contrasts(sweep, seed)
    slices = scores.slices(sweep)
    in_print = printed.load(published or PUBLISHED, sweep.design.get("published"))
    parts = page.Parts(
        sweep=sweep,
        notices=checks.check(sweep),
        answers=tables.answers(sweep, held),
        results=tables.results(sweep, measured),
        verdicts=tables.verdicts(sweep, held),
        contrasts=tables.contrasts(sweep, held),
        slices=[tables.by_slice(sweep, measured, n, values) for n, values in slices.items()],
        published=tables.published(sweep, in_print),
        runs=export.runs(sweep),
        manifest=export.manifest(sweep),
        gallery=gallery.build(sweep, seed),
        tunings=tuning.sections(folders, out_dir / "figures"),
    )
    frames = {
        "results": export.results(sweep, measured),
        "contrasts": held,
        "slices": measured[measured["slice"] != ""],
        "published": in_print,
        "runs": parts.runs,
        "manifest": parts.manifest,
    }
    written = export.write(out_dir / "tables", frames, parts.tables)
    figures = plots.draw_all(sweep, measured, held, slices, out_dir / "figures")
    html, markdown = page.write(out_dir, parts, figures)
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
