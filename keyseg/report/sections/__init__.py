"""Further sections of reports: id, title, place on the page, and what fills them.

A section is a function under `@section`, in a file beside this one or in a package of one's own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyseg.report.data import ReportData
from keyseg.report.tables.table import Table

SECTION_PLACES = ("head", "verdicts", "results", "tuning", "slices", "learning", "gallery", "runs")
"""Parts of the page that a section may stand behind, in its order."""

Block = str | Table
"""A paragraph, or a table."""

Fill = Callable[[ReportData], Sequence[Block]]
"""Returns nothing where the sweep has nothing to say there: the section is left out."""


@dataclass(frozen=True)
class PageSection:
    """A section. id: of its place in the page; place: the part that it stands behind."""

    id: str
    title: str
    place: str
    fill: Fill


@dataclass(frozen=True)
class FilledSection:
    """A section with what it holds in one report."""

    id: str
    title: str
    place: str
    blocks: Sequence[Block]

    @property
    def tables(self) -> list[Table]:
        """Those among the blocks."""
        return [block for block in self.blocks if isinstance(block, Table)]


SECTIONS: dict[str, PageSection] = {}
"""Every further section by id, in the order in which those of one place are shown."""


def section(id: str, *, title: str, place: str = "learning") -> Callable[[Fill], Fill]:
    """Give reports one more section, which the function below fills.

    Raises:
        ValueError: there is no such place, or another section has the id.
    """
    if place not in SECTION_PLACES:
        raise ValueError(f"section {id}: place {place}; {', '.join(SECTION_PLACES)}")

    def define(fill: Fill) -> Fill:
        known = SECTIONS.get(id)
        if known is not None and known.fill is not fill:
            raise ValueError(f"section {id}: there is one of this id, '{known.title}'")
        SECTIONS[id] = PageSection(id, title, place, fill)
        return fill

    return define


def filled(data: ReportData) -> list[FilledSection]:
    """The sections that this sweep has something for."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    parts = []
    for each in SECTIONS.values():
        if blocks := list(each.fill(data)):
            parts.append(FilledSection(each.id, each.title, each.place, blocks))
    return parts
