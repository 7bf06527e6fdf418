"""Trials of a tuning as the report needs them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One trial. `values`: one per objective, of a pruned one its last; times in seconds."""

    number: int
    state: str
    params: Mapping[str, Any]
    values: tuple[float, ...]
    started: float | None
    ended: float | None
    enqueued: bool
    taken_over: bool


@dataclass(frozen=True)
class Study:
    """One study. `space`: key -> the distribution's attributes, and its `name`."""

    label: str
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    space: Mapping[str, Mapping[str, Any]]
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
    def best(self) -> Trial | None:
        """The best in the first objective."""
        return max(self.done, key=lambda t: self.sign * t.values[0], default=None)

    @property
    def states(self) -> dict[str, int]:
        """How many trials there are of each state."""
        return dict(Counter(t.state for t in self.trials))

    def is_log(self, key: str) -> bool:
        """Whether a parameter was searched on a log scale."""
        return bool((self.space.get(key, {}).get("attributes") or {}).get("log"))

    def importances(self, seed: int = 0) -> dict[str, dict[str, float]]:
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
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, evaluator in (
                ("fANOVA", FanovaImportanceEvaluator(seed=seed)),
                ("PED-ANOVA", PedAnovaImportanceEvaluator()),
            ):
                try:
                    found[name] = get_param_importances(study, evaluator=evaluator)
                except (ValueError, RuntimeError, ImportError):
                    continue  # too few trials for this one, or all alike
        return found


def load(content: Mapping[str, Any]) -> list[Study]:
    """Studies of a trials.json."""
    objectives = content["objectives"]
    return [
        Study(
            label=study["label"],
            objectives=tuple(objectives),
            directions=tuple(objectives.values()),
            space=study["space"],
            trials=tuple(_trial(t) for t in study["trials"] if t["state"] != "waiting"),
            raw=tuple(study["trials"]),
        )
        for study in content["studies"]
    ]


def _trial(raw: Mapping[str, Any]) -> Trial:
    return Trial(
        number=raw["number"],
        state=raw["state"],
        params=raw["params"],
        values=tuple(raw["values"] or ()),
        started=raw["started"],
        ended=raw["ended"],
        enqueued=raw["enqueued"],
        taken_over=raw["from"] is not None,
    )
