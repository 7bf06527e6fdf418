"""Variants that were plainly behind at a small budget and are not trained longer: drops.json.

As with looks (`runs.looks`), a budget is judged once, and what was judged is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError
from keyseg.runs import disk, sweep_directory
from keyseg.runs.sweep_directory import label_of

BUDGET = "optim.steps"
"""The factor whose values are the budgets."""

DROPS_FILE = "drops.json"


@dataclass(frozen=True)
class Drop:
    """A variant (without its budget) that is behind another by more than it may.

    `difference`: to that one, below 0; `p`: that it is not, corrected for all pairs.
    """

    variant: str
    behind: str
    difference: float
    p: float


@dataclass(frozen=True)
class JudgedBudget:
    """A budget at which all variants were compared. `drops`: those that are trained no longer."""

    steps: int
    metric: str
    margin: float
    drops: tuple[Drop, ...]
    samples: Mapping[str, str]


JudgeBudget = Callable[[Path, int], JudgedBudget]
"""Compares the variants of a sweep's folder at a budget. Handed in: a sweep does not know how."""


def variant(factors: Mapping[str, Any]) -> str:
    """What a variant is called without its budget."""
    return label_of({key: value for key, value in factors.items() if key != BUDGET})


def read(sweep_dir: Path) -> list[JudgedBudget]:
    """The budgets that were judged, in order.

    Raises:
        ConfigError: the file cannot be read; names it.
    """
    file = sweep_dir / DROPS_FILE
    try:
        entries = json.loads(file.read_bytes())["budgets"]
        return [
            JudgedBudget(**{**each, "drops": tuple(Drop(**drop) for drop in each["drops"])})
            for each in entries
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}): it holds what was dropped, put it back from a copy; "
            "name=OTHER begins a sweep that judges anew"
        ) from error


def judge(sweep_dir: Path, steps: int, compare: JudgeBudget) -> JudgedBudget:
    """What was judged at this budget; it is judged now where it was not before."""
    with sweep_directory.lock(sweep_dir, "drops", timeout=600):
        before = read(sweep_dir)
        for each in before:
            if each.steps == steps:
                return each
        now = compare(sweep_dir, steps)
        content = {"budgets": [asdict(each) for each in [*before, now]]}
        disk.replace(sweep_dir / DROPS_FILE, json.dumps(content, indent=1).encode())
        return now
