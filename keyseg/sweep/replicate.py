"""How a design is repeated: over the seeds that it gives, or over as many as the answer takes.

    ablation:
      replicate: {key: seed, until: verdict, first: 3, at_most: 10, looks: [3, 4, 6, 8, 10]}

or `until=verdict` on the command line of any sweep. And where not every variant need be trained to
every budget, `drop_behind: 20` (`drops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override

from keyseg.config import ConfigError
from keyseg.runs.drops import BUDGET
from keyseg.runs.looks import FAMILIES, LOOKS

_VERDICT = "verdict"
_SEED = "seed"
_FIRST, _AT_MOST = LOOKS[0], LOOKS[-1]
_LEAST, _MOST = 2, 100
"""Seeds of a look: one seed cannot speak of variants."""

_KEYS = ("key", "until", "first", "at_most", "looks", "family")
"""Of `ablation.replicate`, where it is a mapping."""


class Replicate(NamedTuple):
    """Which key repeats, and at how many seeds each look is taken; () for a fixed number."""

    key: str
    at: tuple[int, ...]
    family: str


def replicate(block: Any, until: str | None = None) -> Replicate:
    """What `ablation.replicate` says, and `until` of the command line.

    Raises:
        ConfigError: an unknown key, or looks that do not rise from `first` to `at_most`.
    """
    given: Mapping[str, Any] = block if isinstance(block, Mapping) else {"key": block}
    for key in given:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"ablation.replicate.{key}: no such key.{hint} Keys: {', '.join(_KEYS)}"
            )
    key, until = str(given.get("key") or _SEED), until or given.get("until")
    if until not in (None, _VERDICT):
        raise ConfigError(f"ablation.replicate.until={until}: must be {_VERDICT}, or left out")
    family = given.get("family") or FAMILIES[0]
    if family not in FAMILIES:
        raise ConfigError(
            f"ablation.replicate.family={family}: must be one of {', '.join(FAMILIES)}"
        )
    if until is None:
        if rest := [k for k in _KEYS[2:] if given.get(k) is not None]:
            raise ConfigError(
                f"ablation.replicate.{rest[0]} does nothing without until: {_VERDICT} beside it"
            )
        return Replicate(key, (), family)
    if key != _SEED:
        raise ConfigError(f"ablation.replicate.key={key}: looks add seeds, so it must be {_SEED}")
    return Replicate(key, _looks(given), family)


def _looks(given: Mapping[str, Any]) -> tuple[int, ...]:
    """Seeds at each look; those that are not said follow `first` and `at_most`."""
    listed = given.get("looks")
    if listed is not None and (not isinstance(listed, Sequence) or isinstance(listed, str)):
        raise ConfigError(f"ablation.replicate.looks={listed}: give a list, like {list(LOOKS)}")
    first = given.get("first") or (listed[0] if listed else _FIRST)
    most = given.get("at_most") or (listed[-1] if listed else max(_AT_MOST, _number(first)))
    between = [n for n in listed or LOOKS if listed or _number(first) < n < _number(most)]
    at = tuple(between) if listed else (first, *between, most)[: 1 if first == most else None]
    rises = all(_number(a) < _number(b) for a, b in pairwise(at))
    if not rises or not _number(at[0]) >= _LEAST or not _number(at[-1]) <= _MOST:
        raise ConfigError(
            f"ablation.replicate.looks={list(at)}: numbers of seeds must rise, from at least "
            f"{_LEAST} to at most {_MOST}"
        )
    if (at[0], at[-1]) != (first, most):
        raise ConfigError(
            f"ablation.replicate: looks {list(at)} do not go from first={first} to at_most={most}"
        )
    return at


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"ablation.replicate: {value} is no number of seeds")
    return value


def with_all_seeds(
    parsed: Sequence[list[Override]], asked: Replicate, seed: int, parse: Callable[[str], Override]
) -> tuple[list[list[Override]], tuple[int, ...]]:
    """The overrides of every cell that may come, variant by variant; and the seeds in order.

    The seeds that the command gives come first, then those that follow the largest of them.

    Args:
        parsed: overrides of each cell of the command.
        asked: with looks.
        seed: of a cell that sets none.
        parse: from text to an override.

    Raises:
        ConfigError: seeds that are no numbers, or more of them than the last look has.
    """
    variants: dict[tuple[str, ...], list[Override]] = {}
    given: dict[int, None] = {}
    for overrides in parsed:
        own = [o for o in overrides if o.get_key_element() == _SEED]
        value = own[-1].value() if own else seed
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"seed={value}: looks count on from the seeds, which must be numbers")
        given[value] = None
        rest = [o for o in overrides if o.get_key_element() != _SEED]
        variants.setdefault(tuple(str(o.input_line) for o in rest), rest)
    if len(given) > asked.at[-1]:
        raise ConfigError(
            f"the sweep gives {len(given)} seeds, and until={_VERDICT} takes at most "
            f"{asked.at[-1]} (ablation.replicate: {{at_most: ...}})"
        )
    after = range(max(given) + 1, max(given) + 1 + asked.at[-1] - len(given))
    seeds = (*given, *after)
    every = [[*rest, parse(f"{_SEED}={n}")] for rest in variants.values() for n in seeds]
    return every, seeds


def drop_behind(given: Any, factors: Mapping[str, Sequence[Any]], *, looks: bool) -> float | None:
    """`ablation.drop_behind`, checked; None where nothing is dropped.

    Raises:
        ConfigError: it is no number of points, there are no budgets, or seeds come by looks, too.
    """
    if given is None:
        return None
    what = f"ablation.drop_behind={given}"
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 100:
        raise ConfigError(f"{what}: give points of 100, like 20")
    if len(factors.get(BUDGET, ())) < 2:
        raise ConfigError(f"{what}: needs several budgets, like {BUDGET}=100,200,800")
    if looks:
        raise ConfigError(f"{what} does not go with until=verdict: take one of them")
    return float(given)
