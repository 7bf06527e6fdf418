"""The live page of a sweep, in parts that are renewed one by one: texts only, nothing is read here.

What the parts show is read by whoever serves the page (`keyseg report --watch`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from keyseg.report.figures.style import DASHES, look
from keyseg.report.page.answer import FirstScreen
from keyseg.report.tables.contrasts import Conclusion

HERE = Path(__file__).parent
LIVE_PARTS = ("head", "verdicts", "curves", "cells")
"""What is renewed by itself: ids on the page."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 560, 250, 46, 26, 30, 10
"""Of a chart, in its own units; right of the axis the half of its last number has room."""
_POINTS = 240
"""Points of a line: more are thinned out."""


@dataclass(frozen=True)
class Series:
    """One line of a chart. `index`: of the variant, for its colour; points: (step, value)."""

    title: str
    index: int
    points: Sequence[tuple[int, float]]


def whole(heading: str, parts: Mapping[str, str], version: int) -> str:
    """The page with its parts as they are now."""
    values = {"heading": heading, "parts": parts, "version": version, "names": LIVE_PARTS}
    values |= {n.replace(".", "_"): _file(n) for n in ("style.css", "live.js")}
    text: str = _environment().get_template("live.html.j2").render(values)
    return text


def part(name: str, **values: Any) -> str:
    """One part of the page, from what its macro in live_parts.html.j2 takes."""
    module: Any = _environment().get_template("live_parts.html.j2").module
    return str(getattr(module, name)(**values)).strip()


def head(answer: FirstScreen | None, progress: str, notes: Sequence[str], report: str) -> str:
    """Where the sweep stands. `notes`: what a reader should know; `report`: its page, or ""."""
    return part("head", answer=answer, progress=progress, notes=notes, report=report)


def verdicts(
    answer: FirstScreen | None, conclusions: Sequence[Conclusion], *, working: bool = False
) -> str:
    """What the cells that are done say, marked interim until all are.

    `working`: whether they are just being asked again.
    """
    interim = answer is not None and answer.state == "interim"
    return part(
        "verdicts",
        answer=answer,
        conclusions=conclusions,
        interim=interim,
        colours=_colours(conclusions),
        working=working,
    )


def _colours(conclusions: Sequence[Conclusion]) -> list[str]:
    return ["" if one.index is None else look(one.index).colour for one in conclusions]


def cells(headers: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """The table of cells. `rows`: state, texts, and the last line of an error, "" without one."""
    return part("cells", headers=headers, rows=rows)


def curves(charts: Mapping[str, Sequence[Series]], variants: Sequence[tuple[int, str]]) -> str:
    """A chart for each measure, and whose colour is whose."""
    drawn = {
        title: chart(series) for title, series in charts.items() if any(s.points for s in series)
    }
    legend = [(look(index).colour, _dash(index), label) for index, label in variants]
    return part("curves", charts=drawn, legend=legend)


def chart(series: Sequence[Series]) -> dict[str, Any]:
    """Lines and ticks of a chart in its own units: y grows downward, as SVG has it."""
    from matplotlib.ticker import MaxNLocator  # loads much

    points = [p for one in series for p in one.points if isfinite(p[1])]
    steps, values = [step for step, _ in points], [value for _, value in points]
    across = MaxNLocator(6, integer=True).tick_values(0, max([*steps, 1]))
    upward = MaxNLocator(5).tick_values(min(values), max(values))
    left, right = float(across[0]), float(max([*steps, 1]))
    low, high = float(upward[0]), float(upward[-1])

    def x(step: float) -> float:
        return round(_LEFT + (step - left) / (right - left or 1) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        room = _HEIGHT - _BOTTOM - _TOP
        return round(_TOP + (high - value) / (high - low or 1) * room, 1)

    lines = []
    for one in series:
        kept = [(s, v) for s, v in _thinned(one.points) if isfinite(v)]
        colour, dash = look(one.index).colour, _dash(one.index)
        path = " ".join(f"{x(step)},{y(value)}" for step, value in kept)
        lines.append({"title": one.title, "colour": colour, "dash": dash, "path": path})
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "foot": _HEIGHT - _BOTTOM,
        "across": [(x(float(t)), f"{t:g}") for t in across if left <= t <= right],
        "upward": [(y(float(t)), f"{t:g}") for t in upward],
        "lines": [line for line in lines if line["path"]],
    }


def _dash(index: int) -> str:
    """The dash of a variant's lines as SVG has it; "" of a line without gaps."""
    dash = look(index).dash
    return "" if dash == DASHES[0] else " ".join(f"{1.6 * part:g}" for part in dash[1])


def _thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """At most about `_POINTS`, each the mean of its neighbours; the last one stays."""
    size = -(-len(points) // _POINTS)
    if size < 2:
        return points
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(v for _, v in group) / len(group)) for group in groups]


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
