"""Trials of a tuning as the report needs them: a trials.json, and nothing else."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from keyseg.runs.sweep_directory import TRIALS


@dataclass(frozen=True)
class Trial:
    """One trial. `values`: one per objective, of a pruned one its last.

    `allowed`: whether it keeps to the constraints.
    `worked`: (begin, end) of each attempt of its worker, seconds since the epoch.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: tuple[float, ...]
    worked: tuple[tuple[float, float], ...]
    enqueued: bool
    taken_over: bool
    allowed: bool = True


@dataclass(frozen=True)
class Invocation:
    """One call of the command: when its controller was at work, and with how many workers."""

    begin: float
    end: float
    workers: int


@dataclass(frozen=True)
class Study:
    """One study. `space`: key -> its distribution (name and attributes), those of a hook too.

    `default`: what the config has where nothing is searched; keys without one are missing.
    """

    label: str
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    space: Mapping[str, Mapping[str, Any]]
    default: Mapping[str, Any]
    trials: tuple[Trial, ...]
    raw: tuple[Mapping[str, Any], ...]

    @property
    def sign(self) -> int:
        """1 where more is better in the first objective, else -1."""
        return 1 if self.directions[0] == "maximize" else -1

    @cached_property
    def done(self) -> tuple[Trial, ...]:
        """Completed trials."""
        return tuple(t for t in self.trials if t.state == "complete" and t.values)

    @cached_property
    def allowed(self) -> tuple[Trial, ...]:
        """Completed trials that keep to the constraints: one of these is the best."""
        return tuple(t for t in self.done if t.allowed)

    @cached_property
    def best(self) -> Trial | None:
        """The best in the first objective, the earliest of equals."""
        return max(self.allowed, key=lambda t: self.sign * t.values[0], default=None)

    @property
    def states(self) -> dict[str, int]:
        """How many trials there are of each state."""
        return dict(Counter(t.state for t in self.trials if not t.taken_over))

    @property
    def hours(self) -> float:
        """Worker time of all trials."""
        return sum(end - begin for t in self.trials for begin, end in t.worked) / 3600

    def is_log(self, key: str) -> bool:
        """Whether a parameter was searched on a log scale."""
        return bool((self.space.get(key, {}).get("attributes") or {}).get("log"))

    def choices(self, key: str) -> list[str] | None:
        """The values of a categorical parameter as text; None for a number."""
        choices = (self.space[key].get("attributes") or {}).get("choices")
        return None if choices is None else [str(value) for value in choices]

    def ends(self, key: str) -> tuple[float, float]:
        """Lowest and highest value of a number."""
        attributes = self.space[key]["attributes"]
        return float(attributes["low"]), float(attributes["high"])

    @cached_property
    def importances(self) -> dict[str, dict[str, float]]:
        """Parameter importances by method; {} where there are too few trials for any."""
        if len(self.done) < 4 or len({t.values[0] for t in self.done}) < 2:
            return {}
        import optuna
        from optuna.distributions import json_to_distribution
        from optuna.importance import (
            FanovaImportanceEvaluator,
            PedAnovaImportanceEvaluator,
            get_param_importances,
        )

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction=optuna.study.StudyDirection[self.directions[0].upper()]
        )
        for trial in self.raw:
            if trial["state"] == "complete":
                kinds = {k: json_to_distribution(d) for k, d in trial["distributions"].items()}
                study.add_trial(
                    optuna.trial.create_trial(
                        params=trial["params"], distributions=kinds, value=trial["values"][0]
                    )
                )
        importances = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, evaluator in (
                ("fANOVA", FanovaImportanceEvaluator(seed=0)),
                ("PED-ANOVA", PedAnovaImportanceEvaluator()),
            ):
                try:
                    importances[name] = get_param_importances(study, evaluator=evaluator)
                except (ValueError, RuntimeError, ImportError):
                    continue  # too few trials for this one, or all alike
        return importances

    def by_importance(self) -> list[str]:
        """Keys, the most important first: by the mean of the methods, else as they were given."""
        methods = self.importances.values()
        return sorted(self.space, key=lambda key: -sum(shares.get(key, 0) for shares in methods))


@dataclass(frozen=True)
class TuningResults:
    """All studies of one sweep, which share its workers."""

    name: str
    sampler: str
    pruner: str
    studies: tuple[Study, ...]
    invocations: tuple[Invocation, ...]


def load(sweep_dir: Path) -> TuningResults | None:
    """The tuning of a sweep; None where nothing was tuned.

    Raises:
        ValueError: trials.json cannot be read.
    """
    file = sweep_dir / TRIALS
    if not file.exists():
        return None
    try:
        return parse(sweep_dir.name, json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {error}); the sweep's command, given "
            "again, writes it anew"
        ) from error


def parse(name: str, content: Mapping[str, Any]) -> TuningResults:
    """A tuning from the content of trials.json."""
    objectives = content["objectives"]
    return TuningResults(
        name=name,
        sampler=content["sampler"],
        pruner=content["pruner"],
        studies=tuple(_study(raw, objectives) for raw in content["studies"]),
        invocations=tuple(Invocation(*raw) for raw in content["invocations"]),
    )


def _study(raw: Mapping[str, Any], objectives: Mapping[str, str]) -> Study:
    trials = [t for t in raw["trials"] if t["state"] != "waiting"]
    space = dict(raw["space"])
    for trial in trials:  # a hook's parameters are known from its trials only
        for key, text in trial["distributions"].items():
            space.setdefault(key, json.loads(text))
    return Study(
        label=raw["label"],
        objectives=tuple(objectives),
        directions=tuple(objectives.values()),
        space=space,
        default=raw["default"],
        trials=tuple(_trial(t) for t in trials),
        raw=tuple(raw["trials"]),
    )


def _trial(raw: Mapping[str, Any]) -> Trial:
    return Trial(
        number=raw["number"],
        state=raw["state"],
        params=raw["params"],
        values=tuple(raw["values"] or ()),
        worked=tuple((begin, end) for begin, end in raw["worked"]),
        enqueued=raw["enqueued"],
        taken_over=raw["from"] is not None,
        allowed=all(value <= 0 for value in (raw.get("beyond") or {}).values()),
    )
