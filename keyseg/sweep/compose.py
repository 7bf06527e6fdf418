"""The configs of many cells in the time of a few: what cells share is composed once.

Hydra loads every YAML file again for each cell, and checks every value again: a tenth of a second a
cell. Cells that choose the same files differ in single values only. Where nothing else is made of
those values (no interpolation reads them), they are put into a config that was composed and checked
before; everything else takes Hydra's way. The result is the same, or it is a fault here.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keyseg.config import ConfigError, RunConfig, check, flatten, validate

Compose = Callable[[Sequence[str]], DictConfig]
"""From the overrides of a cell to its composed config, as Hydra makes it."""

_INTERPOLATION = re.compile(r"\$\{([^${}]*)\}")
_PLAIN = (bool, int, float, str, type(None))


class NotShared(Exception):  # noqa: N818 (no mistake: Hydra does it)
    """This cell needs a config of its own."""


class Composer:
    """Configs of cells, typed and checked, one after the other."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._bases: dict[tuple[str, ...], _Base | None] = {}

    def __call__(self, overrides: Sequence[str]) -> RunConfig:
        """The config of a cell.

        Raises:
            ConfigError: a value is wrong.
        """
        try:
            run = self._shared(overrides)
        except NotShared:
            return validate(self._compose(overrides))
        check(run)
        return run

    def _shared(self, overrides: Sequence[str]) -> RunConfig:
        parsed = [_value(text) for text in overrides]
        own = tuple(t for t, one in zip(overrides, parsed, strict=True) if one is None)
        values = [one for one in parsed if one is not None]
        if own not in self._bases:
            try:
                self._bases[own] = _Base.of(self._compose(own))
            except (ConfigError, HydraException, OmegaConfBaseException):
                self._bases[own] = None  # without the values it makes no config
        base = self._bases[own]
        if base is None:
            raise NotShared
        return base.with_values(values)


@dataclass(frozen=True)
class _Base:
    """A config that cells share. `reads`: keys that its interpolations read; None: not known."""

    packed: bytes
    keys: frozenset[str]
    reads: frozenset[str] | None

    @classmethod
    def of(cls, composed: DictConfig) -> _Base:
        """The base in a composed config."""
        plain = OmegaConf.to_container(composed, resolve=False)
        run = validate(composed)
        return cls(pickle.dumps(run), frozenset(flatten(run)), _reads(plain))

    def with_values(self, values: Sequence[tuple[str, Any]]) -> RunConfig:
        """A copy with these values."""
        if self.reads is None:
            raise NotShared
        run: RunConfig = pickle.loads(self.packed)  # made above, in this process
        for key, value in values:
            if key not in self.keys or any(_overlap(key, read) for read in self.reads):
                raise NotShared
            _put(run, key, _typed(key, json.dumps(value)))
        return run


@cache
def _value(override: str) -> tuple[str, Any] | None:
    """Key and value of an override that sets one plain value; None for any other."""
    parsed = OverridesParser.create().parse_override(override)
    ordinary = not (parsed.is_delete() or parsed.is_add() or parsed.is_force_add())
    if not ordinary or parsed.is_sweep_override() or parsed.package is not None:
        return None
    value = parsed.value()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, _PLAIN) and not (isinstance(v, str) and "$" in v) for v in values):
        return None
    key = parsed.key_or_group
    whole_group = "." not in key and key not in _leaves()
    return None if value == "???" or whole_group else (key, value)


@cache
def _leaves() -> frozenset[str]:
    """Keys of a run itself, not of one of its groups."""
    return frozenset(key for key, value in vars(RunConfig()).items() if isinstance(value, _PLAIN))


@cache
def _typed(key: str, value: str) -> Any:
    """A value, given as JSON, as the schema has it: 2 as 2.0 where that is a float."""
    schema = _schema()
    try:
        OmegaConf.update(schema, key, json.loads(value))
    except OmegaConfBaseException:  # Hydra's way ends in the error as users know it
        raise NotShared from None
    node = OmegaConf.select(schema, key)
    return OmegaConf.to_object(node) if OmegaConf.is_config(node) else node


@cache
def _schema() -> DictConfig:
    """Takes any key of a run, and one value after the other."""
    schema: DictConfig = OmegaConf.structured(RunConfig)
    return schema


def _put(run: RunConfig, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = run
    for name in parents:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    value = copy(value)  # what is kept of it must not change with the run
    if isinstance(node, dict):
        node[last] = value
    else:
        setattr(node, last, value)


def _reads(plain: Any) -> frozenset[str] | None:
    """Keys that the interpolations of a config read; None where they cannot all be known."""
    names: set[str] = set()
    for text in texts_in(plain):
        while inner := _INTERPOLATION.search(text):
            name = inner[1].strip()
            if ":" in name and not name.startswith("oc.env:"):
                return None  # a resolver, which may read anything
            if ":" not in name:
                if name.startswith(".") or "[" in name or "?" in name:
                    return None
                names.add(name)
            text = text[: inner.start()] + "?" + text[inner.end() :]
        if "${" in text:
            return None
    return frozenset(names)


def texts_in(plain: Any) -> Iterator[str]:
    """Every text of nested mappings and lists."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, Mapping):
        for value in plain.values():
            yield from texts_in(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from texts_in(value)


def _overlap(one: str, other: str) -> bool:
    """Whether one key is the other, or lies in it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
