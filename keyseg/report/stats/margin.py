"""How small a difference must be to count as none: the margin of every measure.

A sweep's file declares it in points (`ablation.margin: {giou: 1}`, or one number for all of its
metrics), because what is negligible is for whoever asks to say, before the results. Inside, and in
CSV files, it is a fraction like every score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyseg.metrics import BY_NAME, Measure

SCORE_MARGIN = 0.02
"""Two points: what two trainings of one variant often differ by."""
FAILURE = 0.01
"""One point of rates of failure, which are a few percent themselves."""


def default(measure: Measure) -> float:
    """The margin of a measure that the sweep's file says nothing of."""
    return FAILURE if measure.better < 0 else SCORE_MARGIN


def margins(design: Mapping[str, Any]) -> dict[str, float]:
    """The margin of every measure, a fraction; `design`: the content of sweep.json."""
    given = _declared(design)
    return {name: given.get(name, default(measure)) for name, measure in BY_NAME.items()}


def sentence(design: Mapping[str, Any], metrics: list[str]) -> str:
    """ "gIoU 1 point (declared), cIoU 2 points (by default)"."""
    given, in_force = _declared(design), margins(design)
    return ", ".join(
        f"{BY_NAME[name].title} {counted(in_force[name])} "
        f"({'declared' if name in given else 'by default'})"
        for name in metrics
    )


def counted(margin: float) -> str:
    """0.02 -> "2 points", 0.01 -> "1 point"."""
    text = number(margin)
    return f"{text} {'point' if text == '1' else 'points'}"


def number(margin: float) -> str:
    """0.015 -> "1.5"."""
    return f"{100 * margin:.4g}"


def _declared(design: Mapping[str, Any]) -> dict[str, float]:
    points: Mapping[str, float] = design.get("margin") or {}
    return {name: value / 100 for name, value in points.items()}
