"""Cells that were not trained here: another system's masks or weights, and who says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keyseg.runs.run_directory import now

IMPORTED = "imported"
"""The key of run.json that holds it, and the word that stands beside such a cell everywhere."""

SYSTEM = "system"
"""The factor of their sweep: whose they are."""
OF_WEIGHTS = "weights"
"""The form of an import that is a model, and can be asked; all others are masks."""


def of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says of an import: system, file, sha256, said_by, form; {} of our own cells."""
    origin = info.get(IMPORTED)
    return dict(origin) if isinstance(origin, Mapping) else {}


def masks_only(info: Mapping[str, Any]) -> bool:
    """Whether it is another system's masks, and there is no model behind them."""
    origin = of(info)
    return bool(origin) and origin.get("form") != OF_WEIGHTS


def label(system: str) -> str:
    """The name of a system in tables, figures and the gallery, where it can be no variant's."""
    return f"{system} ({IMPORTED})"


def cell(system: str, key: str, seed: int) -> dict[str, Any]:
    """What sweep.json says of one: key is its signature."""
    return {
        "signature": key,
        "label": label(system),
        "factors": {SYSTEM: system},
        "seed": seed,
        "overrides": [],
    }


def design(
    name: str, system: str, command: str, cells: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """sweep.json: one variant, the system."""
    return {
        "name": name,
        "question": None,
        "baseline": {},
        "factors": {SYSTEM: [system]},
        "replicate": "seed",
        "metrics": ["giou", "ciou"],
        "contrasts": [],
        "published": None,
        "command": command,
        "started": now(),
        "mlflow_parent": None,
        IMPORTED: system,
        "cells": list(cells),
    }
