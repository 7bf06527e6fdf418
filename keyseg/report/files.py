"""What a report is written as: its formats, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FORMATS = ("html", "md", "csv", "tex", "svg", "png", "pdf")


@dataclass(frozen=True)
class ReportFiles:
    """Where a report lies. `tables`: CSV and TeX; `figures`: PNG, SVG and PDF.

    Where only some formats were asked for, `html` is the first file that was written.
    """

    html: Path
    markdown: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
