"""Warm starts: finished cells of other sweeps as trials that somebody else has paid for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from keyseg.config import NOT_IN_SIGNATURE, ConfigError, RunConfig, flatten, validate
from keyseg.runs.run_directory import DONE, RunDirectory
from keyseg.sweep.tune.objective import NoValue, values, violations
from keyseg.sweep.tune.studies import WARM, Arm

MAY_DIFFER = (*NOT_IN_SIGNATURE, "evaluation.protocols", "loss.name")
"""Keys in which a cell may differ from a trial: they do not change what it learns."""


def warm_start(arm: Arm, outputs: Path, own: Path, wanted: Any) -> int:
    """Add every fitting finished cell as a trial, once; how many were added.

    A cell fits if it differs from a trial of this arm in the searched keys only, and its values of
    these lie in the space. Added trials do not count towards the budget.

    Raises:
        ConfigError: a sweep is named that does not exist.
    """
    from optuna.trial import create_trial

    space = {d.key.lstrip("+"): d for d in arm.question.space}
    fixed = _rest(validate(arm.base), list(space))
    there = {t.user_attrs.get(WARM) for t in arm.study.get_trials(deepcopy=False)}
    added = 0
    for run in _finished(outputs, own, wanted):
        if str(run.path) in there:
            continue
        try:
            config = run.config
            flat = flatten(config)
            point = {key: flat.get(key, flat.get(f"{key}.name")) for key in space}
            if _rest(config, list(space)) != fixed:
                continue
            if not all(space[key].contains(value) for key, value in point.items()):
                continue
            numbers = values(run, list(arm.options.objectives))
            beyond = violations(run, arm.options.constraints)
        except (ConfigError, NoValue, OSError, ValueError):
            continue  # of another version, or without this objective: no help, and no harm
        arm.study.add_trial(
            create_trial(
                params={space[key].key: value for key, value in point.items()},
                distributions={d.key: d.distribution for d in space.values()},
                values=numbers,
                user_attrs={WARM: str(run.path)},
                system_attrs={f"constraints:{name}": value for name, value in beyond.items()},
            )
        )
        added += 1
    return added


def _finished(outputs: Path, own: Path, wanted: Any) -> Iterator[RunDirectory]:
    names = [wanted] if isinstance(wanted, str) else wanted
    if names is True:
        names = sorted(p.name for p in outputs.iterdir() if p.is_dir()) if outputs.is_dir() else []
    for name in names or ():
        folder = outputs / str(name)
        if not folder.is_dir():
            raise ConfigError(f"hydra.sweeper.warm_start: there is no sweep '{name}' in {outputs}")
        if folder == own:
            continue
        for file in sorted(folder.glob("*/run.json")):
            run = RunDirectory(file.parent)
            if run.status == DONE:
                yield run


def _rest(config: RunConfig, searched: Sequence[str]) -> dict[str, Any]:
    """What must be the same: all that is neither searched nor free to differ."""
    return {
        key: value
        for key, value in flatten(config).items()
        if not any(fnmatch(key, pattern) for pattern in MAY_DIFFER)
        and not any(key == name or key.startswith(f"{name}.") for name in searched)
    }
