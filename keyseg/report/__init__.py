"""The report that a sweep writes by itself: tables, figures, a gallery and one page to read them.

Reads sweep.json and the run directories, nothing else; imports neither torch nor mlflow, and at
import time nothing heavy, so that asking for a report starts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from keyseg.report.files import FORMATS, ReportFiles

__all__ = ["FORMATS", "ReportFiles", "build", "write_overview"]


def build(
    sweep_dir: Path,
    out_dir: Path,
    *,
    seed: int = 0,
    published: Path | None = None,
    joined: Sequence[Path] = (),
    metrics: Sequence[str] = (),
    baseline: Mapping[str, str] | None = None,
    formats: Sequence[str] = FORMATS,
) -> ReportFiles:
    """Write the report of a sweep, finished or not; holes are shown as holes.

    Args:
        sweep_dir: outputs/<sweep>, with sweep.json and one folder per cell.
        out_dir: where index.html, report.md, tables/ and figures/ go; made if absent. Files of an
            earlier report in it are replaced.
        seed: of every resample and of the examples drawn at random.
        published: folder of CSV files with numbers in print; None = the project's own.
        joined: more sweeps, read as one with the first.
        metrics: what verdicts are given on; () = what the design states.
        baseline: factors of the variant that all others are held against, instead of the
            contrasts that the design declares.
        formats: which of `FORMATS` are kept.

    Raises:
        FileNotFoundError: no sweep.json in `sweep_dir`.
        ConfigError: a metric or a baseline that the sweep does not have.
    """
    from keyseg.report import assemble  # draws and computes: seconds of imports

    folders = [Path(sweep_dir), *map(Path, joined)]
    asked = assemble.Asked(tuple(metrics), dict(baseline or {}), tuple(formats))
    return assemble.build(folders, Path(out_dir), asked, seed=seed, published=published)


def write_overview(reports: Path) -> Path | None:
    """Write the page of all sweeps whose reports lie in this folder (reports/out); its path.

    None where there is no report, or another index.html than ours.
    """
    from keyseg.report.page import overview  # a template engine

    return overview.write(Path(reports))
