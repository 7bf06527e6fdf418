"""What a tuning leaves: its trials as plain data, the best values as overrides and as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from keyseg.sweep.tune.arms import WARM, Arm
from keyseg.sweep.tune.space import overrides

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TRIALS = "trials.json"


def write_trials(sweep_dir: Path, arms: Sequence[Arm], width: int) -> Path:
    """Write trials.json: all that the report needs, whatever storage the study lies in."""
    first = arms[0].options
    content = {
        "objectives": first.objectives,
        "sampler": first.sampler,
        "pruner": first.pruner,
        "n_trials": first.n_trials,
        "tune_per": first.tune_per,
        "workers": width,
        "studies": [_study(arm) for arm in arms],
    }
    file = sweep_dir / TRIALS
    temporary = sweep_dir / f".{TRIALS}.{os.getpid()}"
    temporary.write_text(json.dumps(content))
    temporary.replace(file)
    return file


def best_overrides(arm: Arm, trial: FrozenTrial) -> list[str]:
    """The parameters of a trial, as one types them."""
    return overrides(trial.params, arm.question.space)


def write_best(sweep_dir: Path, arm: Arm, trial: FrozenTrial, command: str) -> Path:
    """Write the best values as a file that can be copied to sweeps/."""
    groups, values = {}, {}
    for key, value in trial.params.items():
        plain = key.lstrip("+")
        node = OmegaConf.select(arm.base, plain) if "/" not in plain else None
        if "/" in plain or (OmegaConf.is_dict(node) and not isinstance(value, dict)):
            groups[plain] = value
        else:
            values[plain] = value
    config = OmegaConf.create()
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    if groups:
        defaults = [{f"override /{key}": value} for key, value in groups.items()]
        config = OmegaConf.create({"defaults": defaults, **config})
    name = f"best-{arm.label}" if arm.label else "best"
    file = sweep_dir / f"{name}.yaml"
    scores = ", ".join(
        f"{n} {v:.6g}" for n, v in zip(arm.options.objectives, trial.values, strict=True)
    )
    head = (
        "# @package _global_\n"
        f"# Best of {arm.used()} trials of study {arm.study.study_name}: trial {trial.number}, "
        f"{scores}.\n#\n#   {command}\n#\n"
        f"# Copied to sweeps/tuned.yaml: python run.py +sweeps=tuned\n"
    )
    file.write_text(head + OmegaConf.to_yaml(config))
    return file


def pareto(arm: Arm) -> list[FrozenTrial]:
    """Trials that no other beats in all objectives, best in the first objective first."""
    sign = -1 if arm.options.directions[0] == "minimize" else 1
    return sorted(arm.study.best_trials, key=lambda t: -sign * t.values[0])


def _study(arm: Arm) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    space = {d.key: json.loads(distribution_to_json(d.distribution)) for d in arm.question.space}
    trials = [_trial(t) for t in arm.study.get_trials(deepcopy=False)]
    return {
        "name": arm.study.study_name,
        "label": arm.label,
        "fixed": list(arm.question.fixed),
        "space": space,
        "trials": trials,
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    started, ended = trial.datetime_start, trial.datetime_complete
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "params": trial.params,
        "distributions": {k: distribution_to_json(d) for k, d in trial.distributions.items()},
        "values": trial.values,
        "intermediate": trial.intermediate_values,
        "started": started.timestamp() if started else None,
        "ended": ended.timestamp() if ended else None,
        "cell": trial.user_attrs.get("cell"),
        "error": trial.user_attrs.get("error"),
        "from": trial.user_attrs.get(WARM),
        "enqueued": "fixed_params" in trial.system_attrs,
    }
