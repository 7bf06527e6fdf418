"""The values of a trial, read off its finished run, and whether they keep to the constraints."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from keyseg.config import ConfigError
from keyseg.runs.run_directory import Row, RunDirectory
from keyseg.train.selection import SELECTED_BY


class NoValue(ValueError):  # noqa: N818 (a reason, told with the trial)
    """A run ended without a value that can be told."""


BOUND = re.compile(r"\s*([<>]=)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")
"""Of a constraint: `<= 2.5`."""


def bound(name: str, text: object) -> tuple[int, float]:
    """Sign and limit of a constraint, which is kept where sign * (value - limit) <= 0.

    Raises:
        ConfigError: it is none.
    """
    try:
        sign, limit = BOUND.fullmatch(str(text)).groups()  # type: ignore[union-attr]
        return (1 if sign == "<=" else -1), float(limit)
    except (AttributeError, ValueError) as error:
        raise ConfigError(
            f"hydra.sweeper.constraints.{name}={text}: give a bound in quotes, like '<= 2.5'"
        ) from error


def violations(run: RunDirectory, constraints: Mapping[str, str]) -> dict[str, float]:
    """By how much a run is beyond each bound; 0 or less where it keeps to it.

    Raises:
        NoValue: as of `values`.
    """
    bounds = [bound(name, text) for name, text in constraints.items()]
    limits = zip(constraints, bounds, values(run, list(constraints)), strict=True)
    return {name: sign * (value - limit) for name, (sign, limit), value in limits}


def values(run: RunDirectory, objectives: Sequence[str]) -> list[float]:
    """One number per objective.

    A row of val is read at the step whose weights the run keeps, which is never the untrained
    model's of a run that trains; any other row is the last of its name; a name without a slash is
    a number of run.json.

    Raises:
        NoValue: there is none, or it is no finite number; says which names there are.
    """
    rows = run.rows()
    numbers = [_value(run, rows, name) for name in objectives]
    for name, value in zip(objectives, numbers, strict=True):
        if not math.isfinite(value):
            raise NoValue(f"{name} is {value}")
    return numbers


def _value(run: RunDirectory, rows: Sequence[Row], name: str) -> float:
    if "/" not in name:
        number = run.info.get(name)
        if isinstance(number, int | float):
            return float(number)
        numbers = sorted(k for k, v in run.info.items() if isinstance(v, int | float))
        raise NoValue(f"run.json has no number '{name}'; numbers: {', '.join(numbers)}")
    mine = [row for row in rows if row.name == name]
    if not mine:
        names = sorted({row.name for row in rows})
        raise NoValue(f"the run has no row '{name}'; rows: {', '.join(names) or 'none'}")
    deciding = [
        row for row in rows if row.name == f"val/{SELECTED_BY}" and math.isfinite(row.value)
    ]
    deciding = [row for row in deciding if row.step > 0] or deciding
    if name.startswith("val/") and deciding:
        kept = max(deciding, key=lambda row: (row.value, -row.step)).step
        mine = [row for row in mine if row.step == kept] or mine
    return mine[-1].value
