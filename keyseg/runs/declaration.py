"""What a sweep declares before there are results: the part of its design that claims rest on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEYS = ("question", "baseline", "contrasts", "path", "metrics", "margin", "looks", "drop_behind")
"""Of sweep.json."""


def of(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """The declaration of a sweep.json, with the factors of each variant by its label, and seeds."""
    every = [*(sweep.get("cells") or []), *(sweep.get("planned") or [])]
    variants = {str(cell["label"]): dict(cell["factors"]) for cell in every}
    content = {key: sweep.get(key) for key in _KEYS}
    seeds = sorted({cell["seed"] for cell in every})
    whole = json.dumps({**content, "variants": variants, "seeds": seeds})
    plain: dict[str, Any] = json.loads(whole)
    return plain


def first(before: Mapping[str, Any], now: Mapping[str, Any], moment: float) -> dict[str, Any]:
    """The declaration that stands: that of the first submit of a design, frozen ever since.

    `before`, `now`: the sweep.json that is replaced, and the new one. A design without a cell in
    common with the one before is another one, and declares itself.
    """
    if before.get("declared") and _cells(before) & _cells(now):
        return dict(before["declared"])
    declared = of(now)
    return {"digest": digest(declared), "frozen": moment, **declared}


def _cells(sweep: Mapping[str, Any]) -> set[str]:
    lists = (sweep.get(key) or [] for key in ("cells", "planned"))
    return {cell["signature"] for some in lists for cell in some}


def digest(declared: Mapping[str, Any]) -> str:
    """12 hex digits of a declaration."""
    text = json.dumps(declared, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tested(declared: Mapping[str, Any]) -> str:
    """The same of all but the question's wording: designs that are tested alike."""
    return digest({key: value for key, value in declared.items() if key != "question"})
