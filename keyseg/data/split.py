"""A `data` group of which one split alone is read, as its test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyseg.config import ConfigError


def as_test(data_cfg: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The group with `split` for its test and nothing else.

    `split`: one of the group's own (train, val, test), or one that its entries name (testA).

    Raises:
        ConfigError: there is none of this name; says what there is.
    """
    splits = data_cfg["splits"]
    entries = [dict(entry) for entry in splits.get(split) or []]
    if not entries:
        every = [dict(entry) for of_split in splits.values() for entry in of_split or []]
        entries = [entry for entry in every if entry.get("split") == split]
        if not entries:
            known = dict.fromkeys([*splits, *(str(e["split"]) for e in every if "split" in e)])
            raise ConfigError(f"split {split}: data={data_cfg['name']} has {', '.join(known)}")
    named = [{**entry, "split": entry.get("split", split)} for entry in entries]
    return {**data_cfg, "splits": {"test": named}}
