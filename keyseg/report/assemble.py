"""From a sweep's directory to a written report: the only place that knows all the parts."""

from __future__ import annotations

from pathlib import Path

from keyseg.config import PROJECT
from keyseg.report import (
    ReportFiles,
    checks,
    export,
    gallery,
    page,
    plots,
    printed,
    scores,
    store,
    tables,
    tuning,
)

PUBLISHED = PROJECT / "reports" / "published"


def build(sweep_dir: Path, out_dir: Path, *, seed: int, published: Path | None) -> ReportFiles:
    """See `keyseg.report.build`."""
    sweep = store.load(sweep_dir)
    measured = scores.scores(sweep, seed)
    held = scores.contrasts(sweep, seed)
    slices = scores.slices(sweep)
    in_print = printed.load(published or PUBLISHED, sweep.design.get("published"))
    parts = page.Parts(
        sweep=sweep,
        notices=checks.check(sweep),
        answers=tables.answers(sweep, held),
        results=tables.results(sweep, measured),
        contrasts=tables.contrasts(sweep, held),
        slices=[tables.by_slice(sweep, measured, n, values) for n, values in slices.items()],
        published=tables.published(sweep, in_print),
        runs=export.runs(sweep),
        manifest=export.manifest(sweep),
        gallery=gallery.build(sweep, seed),
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
    figures = plots.draw_all(sweep, measured, slices, out_dir / "figures")
    html, markdown = page.write(out_dir, parts, figures)
    tuning.build(sweep_dir, out_dir)
    return ReportFiles(html, markdown, written, tuple(f for pair in figures.values() for f in pair))
