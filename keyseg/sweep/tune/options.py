"""What `hydra/sweeper=optuna` takes, and the checks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from keyseg.config import ConfigError
from keyseg.sweep.tune.objective import bound
from keyseg.train.selection import SELECTED_BY

SAMPLERS = ("tpe", "gp", "cmaes", "nsga2", "nsga3", "random", "qmc", "grid")
PRUNERS = ("none", "median", "hyperband", "wilcoxon")
DIRECTIONS = ("maximize", "minimize")
DEFAULT_OBJECTIVES = {f"val/{SELECTED_BY}": "maximize"}
"""Where none are given: in the schema they would be added to those that are."""


@dataclass
class OptunaConfig:
    """`hydra/sweeper=optuna`.

    `params`: fixed values and search spaces, as overrides. `objectives`: name -> maximize or
    minimize; a name with a slash is a row of metrics.jsonl, one without a number of run.json;
    {} = val/giou. `constraints`: such a name -> '<= 2.5' or '>= 0.3'; what does not keep to them
    is never the best.
    `n_trials`: trials in all (per value of `tune_per`), whatever became of them, those of earlier
    invocations included. `n_jobs`: cells at the same time; null = as many as the launcher takes.
    `seed`: of the sampler; null = the config's seed. `storage`: null = a journal file in the
    sweep's folder, or an Optuna storage URL. `space`: "module:function", called with the config
    and the trial, for spaces that depend on values drawn before. `tune_per`: a swept key, each of
    whose values gets a study and a budget of its own. `enqueue`: points that are tried first.
    `warm_start`: true = all finished cells of other sweeps that fit, or names of sweeps.
    `trial_overrides`: of trials only, not of the runs that are compared at the end. `final`: run
    default and best, read the test split and compare them. `same_errors`: failures with the same
    error in a row that stop the study. `max_failure_rate`: share of all trials that may fail; more
    stop the study; null = any.
    """

    _target_: str = "hydra_plugins.keyseg.OptunaSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    objectives: dict[str, str] = field(default_factory=dict)
    constraints: dict[str, str] = field(default_factory=dict)
    n_trials: int = 30
    n_jobs: int | None = None
    sampler: str = "tpe"
    sampler_args: dict[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_args: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    storage: str | None = None
    study_name: str | None = None
    space: str | None = None
    tune_per: str | None = None
    enqueue: list[dict[str, Any]] = field(default_factory=list)
    warm_start: Any = False
    trial_overrides: list[str] = field(default_factory=list)
    final: bool = True
    same_errors: int = 3
    max_failure_rate: float | None = None

    @property
    def directions(self) -> list[str]:
        """One per objective."""
        return list(self.objectives.values())


def options(values: Mapping[str, Any]) -> OptunaConfig:
    """Checked options.

    Raises:
        ConfigError: a value that is not possible; names it and the ones that are.
    """
    known = {f.name for f in fields(OptunaConfig)}
    given = {key: v for key, v in values.items() if key in known and v not in (None, {})}
    options = OptunaConfig(**{"objectives": dict(DEFAULT_OBJECTIVES), **given})
    for key in ("params", "objectives", "constraints", "sampler_args", "pruner_args"):
        value = getattr(options, key)
        if not isinstance(value, Mapping):
            raise ConfigError(f"hydra.sweeper.{key}={value}: give a mapping, like {{NAME: VALUE}}")
    _one_of("sampler", options.sampler, SAMPLERS)
    _one_of("pruner", options.pruner, PRUNERS)
    for name, direction in options.objectives.items():
        _one_of(f"objectives.{name}", direction, DIRECTIONS)
    for name, text in options.constraints.items():
        bound(name, text)
    if options.constraints and options.sampler == "cmaes":
        raise ConfigError(
            "hydra.sweeper.sampler=cmaes: knows no constraints; use tpe, gp, nsga2 or nsga3"
        )
    rate = options.max_failure_rate
    if rate is not None and not 0 <= rate <= 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate={rate}: must be from 0 to 1")
    for key in ("n_trials", "n_jobs", "same_errors"):
        value = getattr(options, key)
        if value is not None and value < 1:
            raise ConfigError(f"hydra.sweeper.{key}={value}: must be 1 or more")
    if len(options.objectives) > 1 and options.pruner != "none":
        raise ConfigError(
            f"hydra.sweeper.pruner={options.pruner}: with {len(options.objectives)} objectives "
            "nothing can be pruned; take pruner=none or one objective"
        )
    if len(options.objectives) > 1 and options.sampler == "cmaes":
        raise ConfigError(
            "hydra.sweeper.sampler=cmaes: takes one objective; use tpe, gp, nsga2 or nsga3"
        )
    if options.pruner != "none" and "/" not in next(iter(options.objectives)):
        raise ConfigError(
            f"hydra.sweeper.pruner={options.pruner}: the objective "
            f"{next(iter(options.objectives))} is known at the end only; "
            "prune on a row like val/giou"
        )
    if options.pruner == "wilcoxon" and options.objectives != DEFAULT_OBJECTIVES:
        raise ConfigError(
            "hydra.sweeper.pruner=wilcoxon: compares IoUs example by example, so the objective "
            "must be {val/giou: maximize}"
        )
    return options


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value in allowed:
        return
    near = get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"hydra.sweeper.{key}={value}: one of {', '.join(allowed)}.{hint}")
