"""Colours and size of the figures of a tuning."""

from __future__ import annotations

from typing import Any

from keyseg.report.figures.style import PALETTE

GOOD, BEST, QUIET = PALETTE[0], PALETTE[1], "#9a9a9a"


def new_figure(width: float, height: float) -> Any:
    """A figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
