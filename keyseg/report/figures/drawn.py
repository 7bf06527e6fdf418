"""The points of a figure that says nothing of its data: of a tuning, of another package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd


def points(figure: Any) -> pd.DataFrame:
    """Panel, axes and place of every point of its lines, markers and bars (their far end)."""
    columns = ["panel", "x_label", "y_label", "series", "x", "y"]
    return pd.DataFrame(list(_points(figure)), columns=columns)


def _points(figure: Any) -> Iterator[tuple[str, str, str, str, Any, Any]]:
    for ax in figure.axes:
        where = (ax.get_title() or ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel())
        for number, line in enumerate(ax.lines):
            name = _name(line, f"line {number}")
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                yield (*where, name, x, y)
        for number, marks in enumerate(ax.collections):
            for x, y in np.asarray(marks.get_offsets()) if len(marks.get_offsets()) > 1 else ():
                yield (*where, _name(marks, f"points {number}"), x, y)
        for number, bar in enumerate(ax.patches):
            if hasattr(bar, "get_x") and hasattr(bar, "get_width"):
                name = _name(bar, f"bar {number}")
                yield (*where, name, bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height())


def _name(artist: Any, otherwise: str) -> str:
    label = str(artist.get_label())
    return otherwise if label.startswith("_") or not label else label
