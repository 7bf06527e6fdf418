"""Keys that matter in some cells only, as a temperature does where its loss has weight.

    only_where: {loss.keyword.temperature: {loss.keyword.weight: 0.5}}

Elsewhere the key is dropped: it is no factor of those cells, they run with the default, and cells
that differed in nothing else are one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from keyseg.config import ConfigError

Conditions = Mapping[str, Mapping[str, list[Any]]]
"""Key -> the values of other keys at which it matters."""


def conditions(given: Any, values: Mapping[str, Sequence[Any]]) -> Conditions:
    """The block `only_where` with a list of values for every key; {} without one.

    Args:
        given: the block.
        values: what the sweep gives each of its keys.

    Raises:
        ConfigError: it is no such block, or names a key or value that the sweep does not have.
    """
    where = "ablation.only_where"
    if not isinstance(given or {}, Mapping):
        raise ConfigError(f"{where}={given}: give {{key: {{other key: value}}}}")
    conditions: dict[str, dict[str, list[Any]]] = {}
    for key, condition in (given or {}).items():
        if not isinstance(condition, Mapping) or not condition:
            raise ConfigError(
                f"{where}.{key}={condition}: give the values at which it matters, like "
                "{loss.keyword.weight: 0.5}"
            )
        conditions[key] = {k: v if isinstance(v, list) else [v] for k, v in condition.items()}
        for other, wanted in ((key, []), *conditions[key].items()):
            if other not in values:
                raise ConfigError(
                    f"{where}: {other} is not set by the sweep; it sets {', '.join(values)}"
                )
            for value in wanted:
                if value not in values[other]:
                    raise ConfigError(
                        f"{where}.{key}: {other}={value} is no value of the sweep; {other} takes "
                        f"{', '.join(map(str, values[other]))}"
                    )
    return conditions


def dropped(cell: Mapping[str, Any], when: Conditions) -> set[str]:
    """Keys of a cell that cannot matter there; one whose condition is dropped cannot either."""
    out: set[str] = set()

    def fails(condition: Mapping[str, list[Any]]) -> bool:
        return any(k in out or cell.get(k) not in wanted for k, wanted in condition.items())

    while (failing := {key for key, condition in when.items() if fails(condition)}) != out:
        out = failing
    return out


def identity(cell: Mapping[str, Any]) -> str:
    """What tells cells apart once keys are dropped."""
    return json.dumps(cell, sort_keys=True)
