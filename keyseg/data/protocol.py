"""What the test split of a `data` group is made of, as run.json keeps it: no paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_data(data_cfg: Mapping[str, Any], evaluation_texts: str) -> dict[str, Any]:
    """The part of a protocol that is the data's: name, entries of test, sources, texts."""
    return {
        "data": data_cfg["name"],
        "splits": data_cfg["splits"].get("test"),
        "sources": _sources(data_cfg),
        "texts": _texts(data_cfg, evaluation_texts),
    }


def _texts(data_cfg: Mapping[str, Any], evaluation_texts: str) -> str:
    """Which expressions of a test target count: "all", the "first", "all and first" by entry."""
    entries = data_cfg["splits"].get("test") or ()
    named = {str(entry.get("texts", "all")) for entry in entries} or {"all"}
    return "first" if evaluation_texts == "first" else " and ".join(sorted(named))


def _sources(data_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """How the sources of test are read: division into splits, sentences, keywords."""
    used = {name for entry in data_cfg["splits"].get("test") or () for name in entry["sources"]}
    keys = ("dataset", "split_by", "texts", "keyword", "keyword_file", "keywords", "targets")
    return {
        name: {key: spec[key] for key in keys if key in spec}
        for name, spec in data_cfg["sources"].items()
        if name in used
    }
