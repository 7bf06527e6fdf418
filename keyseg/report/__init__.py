"""The report that a sweep writes by itself: tables, figures, a gallery and one page to read them.

Reads sweep.json and the run directories, nothing else; imports neither torch nor mlflow, and at
import time nothing heavy, so that asking for a report starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ReportFiles", "build"]


@dataclass(frozen=True)
class ReportFiles:
    """Where a report lies. `tables`: CSV and TeX; `figures`: PNG and SVG."""

    html: Path
    markdown: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


def build(
    sweep_dir: Path, out_dir: Path, *, seed: int = 0, published: Path | None = None
) -> ReportFiles:
    """Write the report of a sweep, finished or not; holes are shown as holes.

    Args:
        sweep_dir: outputs/<sweep>, with sweep.json and one folder per cell.
        out_dir: where index.html, report.md, tables/ and figures/ go; made if absent. Files of an
            earlier report in it are replaced.
        seed: of every resample and of the examples drawn at random.
        published: folder of CSV files with numbers in print; None = the project's own.

    Raises:
        FileNotFoundError: no sweep.json in `sweep_dir`.
    """
    from keyseg.report import assemble

    return assemble.build(Path(sweep_dir), Path(out_dir), seed=seed, published=published)
