"""The config of a trial, made from its arm's checked config instead of composing it anew.

Composing and merging a schema takes a tenth of a second, most of the work between two trials. A
value that is put into a typed leaf needs neither: only the ranges have to be looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from keyseg.config import RunConfig, check_values
from keyseg.sweep.compose import texts_in


def with_values(
    base: RunConfig, composed: DictConfig, params: Mapping[str, Any]
) -> RunConfig | None:
    """`base` with these values in it; None where that takes a composition.

    `composed`: what `base` was checked from. A key of an open group, of a list, of another type
    than its value so far, or that another value is interpolated from, is not put in here.

    Raises:
        ConfigError: a value outside its range.
    """
    references = [t for t in texts_in(OmegaConf.to_container(composed, resolve=False)) if "${" in t]
    config = copy.deepcopy(base)
    for key, value in params.items():
        *parents, leaf = key.split(".")
        node: Any = config
        for parent in parents:
            node = getattr(node, parent, None) if is_dataclass(node) else None
        now = getattr(node, leaf, None) if is_dataclass(node) else None
        if isinstance(now, float) and type(value) is int:
            value = float(value)
        if now is None or type(now) is not type(value) or any(leaf in r for r in references):
            return None
        if not isinstance(value, bool | int | float | str):
            return None
        setattr(node, leaf, value)
    check_values(config)
    return config
