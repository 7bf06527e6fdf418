"""Where a training begins, if not at its backbones: `model.start`, settled before a cell is frozen.

Loads no torch: which parts are taken is decided where the model is built (`keyseg.train.start`).
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

from keyseg.config import ConfigError, ModelConfig, RunConfig, resolve_path
from keyseg.runs import disk, finding
from keyseg.runs.run_directory import RunDirectory

_SIDES = ("language", "mask")
_BACKBONES = ("name", *_SIDES, "llava", "sam", "sam_type")
"""Keys of `model` that come with the weights that were trained on top of them."""
_SAME = ("lora.r", "lora.targets", "projection_layers")
"""Keys of `model` that give what is trained its names and sizes."""


def settle(cfg: RunConfig) -> None:
    """Put the run that `model.start` names into the config: its place, its hash, its backbones.

    Raises:
        ConfigError: there is none of this name, it is not finished, or of other sizes.
    """
    choice = cfg.model
    choice.start_hash = ""
    if not choice.start:
        choice.start = None
        return
    if choice.init == "random":
        raise ConfigError(
            f"model.start={choice.start} does not go with model.init=random: what was trained "
            "stands on its own backbones"
        )
    run = find(str(choice.start), str(resolve_path(cfg.paths.outputs)))
    own = run.config.model
    for side in _SIDES:
        ours, theirs = (_family(model, side) for model in (choice, own))
        if ours != theirs:
            raise ConfigError(
                f"model.start={choice.start}: its {side} side is {theirs}, that of model="
                f"{choice.name} {ours}: another family cannot take its weights; choose model=NAME"
            )
    for name in _BACKBONES:
        setattr(choice, name, deepcopy(getattr(own, name)))
    check(cfg, run.config)
    choice.start_hash = _hash(run.best_file, run.best_file.stat().st_mtime_ns)
    choice.start = str(run.path.resolve())


@lru_cache(maxsize=64)
def find(name: str, outputs: str) -> RunDirectory:
    """The run of this name.

    Raises:
        ConfigError: there is none that is finished.
    """
    try:
        runs = finding.find_all_finished(Path(outputs), name)  # an import has one run
    except ConfigError as error:
        raise ConfigError(f"model.start={name}: {error}") from error
    if len(runs) > 1:
        listed = ", ".join(f"{name}/{run.path.name}" for run in runs[:3])
        raise ConfigError(f"model.start={name}: {len(runs)} runs; choose one: {listed}")
    return runs[0]


def check(cfg: RunConfig, of: RunConfig) -> None:
    """Whether what was trained under the config `of` fits into a model of `cfg`.

    Raises:
        ConfigError: it is of other sizes; names the key to set.
    """
    for key in _SAME:
        ours, theirs = (_value(c, key) for c in (cfg, of))
        if ours != theirs:
            raise ConfigError(
                f"model.start={cfg.model.start}: it has model.{key}={_shown(theirs)}, this run "
                f"{_shown(ours)}: set model.{key}={_shown(theirs)}"
            )
    if (cfg.model.tokens.rows, of.model.tokens.rows) == ("new", "all"):
        raise ConfigError(
            f"model.start={cfg.model.start}: it trained all rows of the vocabulary: set "
            "model.tokens.rows=all"
        )
    tables = [c.loss.keyword.table for c in (cfg, of) if c.model.tokens.n_keys]
    if sorted(tables) == ["own", "trained"]:  # of other widths under one name
        raise ConfigError(
            f"model.start={cfg.model.start}: it has loss.keyword.table={tables[1]}, this run "
            f"{tables[0]}: set loss.keyword.table={tables[1]}, or frozen for a new one"
        )
    ours, theirs = cfg.model.tokens.seg, of.model.tokens.seg
    if ours != theirs:
        raise ConfigError(
            f"model.start={cfg.model.start}: its SEG is {theirs}, this run's {ours}: set "
            f"model.tokens.seg={theirs}"
        )


def _family(model: ModelConfig, side: str) -> str:
    return str(getattr(model, side)["_target_"]).rpartition(".")[2]


def _value(cfg: RunConfig, key: str) -> object:
    value: object = cfg.model
    for name in key.split("."):
        value = getattr(value, name)
    return sorted(value) if isinstance(value, list) else value


def _shown(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


@lru_cache(maxsize=64)
def _hash(file: Path, changed: int) -> str:
    """16 hex digits of what a run trained; `changed`: when, so that it is looked at again."""
    return disk.sha256(file)[:16]
