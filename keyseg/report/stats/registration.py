"""Which contrasts were declared before there were results, and which came later.

The declaration of a sweep (`runs.declaration`) is frozen at its first submit. A contrast that it
does not hold, a measure or a margin that was added, other looks: whatever they show is exploratory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from keyseg.report.stats.contrasts import Contrast, contrasts
from keyseg.report.store import Sweep
from keyseg.runs import declaration

AT_THE_START, EXPLORATORY = "at the start", "exploratory"

When = Callable[[Contrast, str], str]
"""From a contrast and a measure to one of these; "" where it is not known."""


def of(sweep: Sweep) -> When:
    """When the contrasts of a sweep were declared."""
    first: Mapping[str, Any] | None = sweep.design.get("declared")
    if not first:
        return lambda contrast, metric: ""
    known: Mapping[str, Any] = first["variants"]
    variants = tuple(v for v in sweep.variants if known.get(v.label) == dict(v.factors))
    then = {_what(c) for c in contrasts(replace(sweep, design=first, variants=variants))}
    now = declaration.of(sweep.design)
    looks_changed = now["looks"] != first["looks"]

    def when(contrast: Contrast, metric: str) -> str:
        asked = metric in (first["metrics"] or ())
        same = (now["margin"] or {}).get(metric) == (first["margin"] or {}).get(metric)
        start = _what(contrast) in then and asked and same and not looks_changed
        return AT_THE_START if start else EXPLORATORY

    return when


def _what(contrast: Contrast) -> tuple[float, frozenset[tuple[str, str]]]:
    """What a contrast compares, whatever it is called."""
    return contrast.factor, frozenset((a.label, b.label) for a, b in contrast.pairs)
