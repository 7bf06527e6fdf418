"""What two splits of a data config have in common, as its entries say; no file is read.

Weights chosen on the examples that are reported are chosen on the answer: `refcocog_google` has no
test split, so its test is its val; in print LLM-Seg40K has numbers of validation only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ABOUT = ("slices", "keyword", "keyword_file", "keywords", "texts")
"""Arguments of a reader that do not say which targets it reads."""


def shared_parts(data_cfg: Mapping[str, Any], one: str, other: str) -> list[str]:
    """Source and part that both splits read, like "refcocog val"; [] where there is none."""
    here, there = dict(_parts(data_cfg, one)), dict(_parts(data_cfg, other))
    return [name for part, name in there.items() if part in here]


def _parts(data_cfg: Mapping[str, Any], split: str) -> Iterator[tuple[str, str]]:
    """What is read, whatever the source is called, and a name for it."""
    sources = data_cfg.get("sources") or {}
    for entry in (data_cfg.get("splits") or {}).get(split) or ():
        part = str(entry.get("split", split))
        for name in entry.get("sources") or ():
            spec = sources.get(name) or {}
            read = sorted((k, str(v)) for k, v in spec.items() if k not in _ABOUT)
            yield str([part, read or name]), f"{name} {part}"
