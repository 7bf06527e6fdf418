"""What a tuning writes beside its study: sweep.json, and the trials as plain data."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import RunDirectory
from keyseg.runs.sweep_directory import TRIALS
from keyseg.sweep.cells import Cell
from keyseg.sweep.design import Design, to_json
from keyseg.sweep.launcher import command
from keyseg.sweep.tune.studies import WARM, Arm

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

KEPT = ("cells", "factors", "baseline", "contrasts")
"""What sweep.json says of the comparison at the end."""


class TuningRecord:
    """The files of one tuning. `question`: what it asks, for a reader."""

    def __init__(self, sweep_dir: Path, question: str) -> None:
        self.sweep_dir = sweep_dir
        self.question = question
        self._spans: dict[str, list[tuple[float, float]]] = {}
        self._earlier = _invocations(sweep_dir / TRIALS)
        self._begin: float | None = None

    def begin(self) -> None:
        """Trials are asked for from now on."""
        self._begin = time.time()

    def write_sweep(
        self, compared: Sequence[Cell] = (), contrasts: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """sweep.json: trials are the runs in the folder, its cells are those compared at the end.

        Without any, those of an earlier invocation stay.
        """
        points = [cell.point for cell in compared]
        keys = list(points[0].factors) if points else []
        factors = {k: list(dict.fromkeys(p.factors[k] for p in points)) for k in keys}
        design = Design(
            name=self.sweep_dir.name,
            factors=factors,
            baseline={"settings": "default"} if factors else {},
            points=points,
            question=self.question,
            contrasts=list(contrasts),
        )
        content = to_json(
            design,
            [c.signature for c in compared],
            [c.config.seed for c in compared],
            command(),
            time.time(),
        )
        with sweep_directory.lock(self.sweep_dir):
            before = sweep_directory.read(self.sweep_dir)
            kept = {key: before.get(key) for key in sweep_directory.TRACKED} | {"tune": True}
            if before.get("tune"):
                kept["started"] = before["started"]
                if not compared:
                    kept |= {key: before[key] for key in KEPT if key in before}
            sweep_directory.write(self.sweep_dir, content | kept)

    def write_trials(self, arms: Sequence[Arm], width: int) -> Path:
        """trials.json: all that the report needs, whatever storage the study lies in."""
        first = arms[0].options
        content = {
            "objectives": first.objectives,
            "constraints": first.constraints,
            "sampler": first.sampler,
            "pruner": first.pruner,
            "n_trials": first.n_trials,
            "tune_per": first.tune_per,
            "invocations": [
                *self._earlier,
                *([(self._begin, time.time(), width)] if self._begin is not None else []),
            ],
            "studies": [self._study(arm) for arm in arms],
        }
        file = self.sweep_dir / TRIALS
        temporary = self.sweep_dir / f".{TRIALS}.{os.getpid()}"
        temporary.write_text(json.dumps(content))
        temporary.replace(file)
        return file

    def _study(self, arm: Arm) -> dict[str, Any]:
        from optuna.distributions import distribution_to_json

        space = {d.key: distribution_to_json(d.distribution) for d in arm.question.space}
        return {
            "name": arm.study.study_name,
            "label": arm.label,
            "fixed": list(arm.question.fixed),
            "space": {key: json.loads(text) for key, text in space.items()},
            "default": _defaults(arm),
            "trials": [self._trial(t) for t in arm.study.get_trials(deepcopy=False)],
        }

    def _trial(self, trial: FrozenTrial) -> dict[str, Any]:
        from optuna.distributions import distribution_to_json

        started, ended = trial.datetime_start, trial.datetime_complete
        return {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "params": trial.params,
            "distributions": {k: distribution_to_json(d) for k, d in trial.distributions.items()},
            "values": trial.values,
            "beyond": trial.constraints,
            "intermediate": trial.intermediate_values,
            "started": started.timestamp() if started else None,
            "ended": ended.timestamp() if ended else None,
            "worked": self._worked(trial),
            "cell": trial.user_attrs.get("cell"),
            "error": trial.user_attrs.get("error"),
            "from": trial.user_attrs.get(WARM),
            "enqueued": "fixed_params" in trial.system_attrs,
        }

    def _worked(self, trial: FrozenTrial) -> list[tuple[float, float]]:
        """When a worker was at it, from its run: a trial also waits, and may be told of twice."""
        cell = trial.user_attrs.get("cell")
        if cell is None:
            return []
        key = f"{cell} {trial.number}"
        if key not in self._spans:
            info = RunDirectory(self.sweep_dir / cell).info
            mine = info.get("trial") == trial.number
            spans = [
                (a["started"], a["ended"])
                for a in info.get("attempts") or []
                if mine and a.get("started") and a.get("ended")
            ]
            if not trial.state.is_finished():
                return spans
            self._spans[key] = spans
        return self._spans[key]


def _invocations(file: Path) -> list[Any]:
    """(begin, end, workers) of each invocation before this one."""
    try:
        return list(json.loads(file.read_bytes())["invocations"])
    except (FileNotFoundError, ValueError, KeyError):  # none, or of another version
        return []


def _defaults(arm: Arm) -> dict[str, Any]:
    """What the config has at the keys that are searched; of a group, its option's name."""
    labels = {}
    for dimension in arm.question.space:
        value = OmegaConf.select(arm.base, dimension.key.lstrip("+"), default=None)
        if OmegaConf.is_dict(value):
            value = value.get("name")
        if isinstance(value, bool | int | float | str):
            labels[dimension.key] = value
    return labels
