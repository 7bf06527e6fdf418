"""Cells that were not trained here: another system's masks, and who says that they are its."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMPORTED = "imported"
"""The key of run.json that holds it, and the word that stands beside such a cell everywhere."""


def of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says of an import: system, file, sha256, said_by, form; {} of our own cells."""
    told = info.get(IMPORTED)
    return dict(told) if isinstance(told, Mapping) else {}


def label(system: str) -> str:
    """The name of a system in tables, figures and the gallery, where it can be no variant's."""
    return f"{system} ({IMPORTED})"
