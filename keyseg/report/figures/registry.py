"""The figures that reports have: name, title, caption, place on the page, and what draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from keyseg.report.data import ReportData

FIGURE_PLACES = ("verdicts", "results", "slices", "learning")
"""Sections of the page that hold figures, in its order. A section that a page lacks hands its
figures on to the last one, which every page has."""

Points = Callable[[ReportData], pd.DataFrame]
"""Returns what a figure is drawn from, as a table."""
Draw = Callable[[ReportData], Any]
"""Returns a matplotlib figure; None where the sweep has no data for it."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure. name: of its files, too; place: one of `FIGURE_PLACES`.

    wanted: whether a sweep has data for it, where that is known before it is drawn. data: what it
    shows, for a CSV beside it; None = the points as they were drawn.
    """

    name: str
    title: str
    caption: str
    place: str
    draw: Draw
    wanted: Callable[[ReportData], bool] = lambda _: True
    data: Points | None = None


FIGURES: dict[str, ReportFigure] = {}
"""Every figure by name, in the order in which pages show them within a place."""


def register(figure: ReportFigure) -> None:
    """Give reports one more figure.

    Raises:
        ValueError: there is no such place, or another figure has the name.
    """
    if figure.place not in FIGURE_PLACES:
        raise ValueError(f"figure {figure.name}: place {figure.place}; {', '.join(FIGURE_PLACES)}")
    known = FIGURES.get(figure.name)
    if known is not None and known.draw is not figure.draw:
        raise ValueError(f"figure {figure.name}: there is one of this name, '{known.title}'")
    FIGURES[figure.name] = figure


def figure(
    name: str, *, title: str, caption: str, place: str = "learning", data: Points | None = None
) -> Callable[[Draw], Draw]:
    """`register` for what stands below: a function that draws.

    Raises:
        ValueError: see `register`.
    """

    def define(draw: Draw) -> Draw:
        register(ReportFigure(name, title, caption, place, draw, data=data))
        return draw

    return define
