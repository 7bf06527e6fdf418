"""The best values of a tuning: as overrides to paste, and as a file for sweeps/."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from rich.console import Console

from keyseg.config import NOT_IN_SIGNATURE
from keyseg.runs.disk import file_name
from keyseg.sweep import finish
from keyseg.sweep.launcher import command
from keyseg.sweep.tune.space import exact, overrides
from keyseg.sweep.tune.studies import Arm

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def best_overrides(arm: Arm, trial: FrozenTrial) -> list[str]:
    """The parameters of a trial, as one types them."""
    return overrides(trial.params, arm.question.space)


def write_best(sweep_dir: Path, arm: Arm, trial: FrozenTrial, command: str) -> Path:
    """Write the best values as a file that can be copied to sweeps/.

    What all trials had in common because it was asked for (`optim.steps=50`, the value of
    `tune_per`) is in it, too: the best values are the best with these.
    """
    groups, values = {}, {}
    params = exact(trial.params, arm.question.space)
    for key, value in [*_asked(arm.question.fixed), *params.items()]:
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
    name = f"best-{file_name(arm.label)}" if arm.label else "best"
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


def print_best(sweep_dir: Path, arm: Arm, console: Console) -> None:
    """The best values as overrides to paste, and where the file with them is."""
    from optuna.trial import TrialState

    name = f"{arm.label}: " if arm.label else ""
    states = [t.state for t in arm.study.get_trials(deepcopy=False)]
    count = {s: states.count(s) for s in (TrialState.PRUNED, TrialState.FAIL)}
    ended = ", ".join(f"{n} {s.name.lower()}" for s, n in count.items() if n)
    best = arm.best()
    if best is None:
        text = f"{name}no trial has a value{_not_allowed(arm)}{f' ({ended})' if ended else ''}"
        finish.print_line(console, text, "red")
        return
    tried = f"{name}best of {arm.used()} trials{f' ({ended})' if ended else ''}"
    shown = pareto(arm) if len(arm.options.objectives) > 1 else [best]
    for trial in shown:
        scores = ", ".join(
            f"{n} {v:.4g}" for n, v in zip(arm.options.objectives, trial.values, strict=True)
        )
        finish.print_line(console, f"{tried}: trial {trial.number}, {scores}")
        variant = arm.question.fixed[-1:] if arm.label else ()
        finish.print_line(console, "  " + _pasted([*variant, *best_overrides(arm, trial)]))
    file = write_best(sweep_dir, arm, best, command())
    finish.print_line(console, f"  as a file for sweeps/: {finish.short_path(file)}")


def _not_allowed(arm: Arm) -> str:
    """ " that keeps to ..." where it is the constraints that leave none."""
    bounds = ", ".join(f"{name} {text}" for name, text in arm.options.constraints.items())
    return f" that keeps to {bounds}" if bounds else ""


def _asked(fixed: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values of overrides that can change a result."""
    lines = []
    for override in OverridesParser.create().parse_overrides(list(fixed)):
        key = override.key_or_group
        free = any(fnmatch(key, pattern) for pattern in (*NOT_IN_SIGNATURE, "sweeps"))
        if not free and not override.is_delete():
            lines.append((key, override.value()))
    return lines


def _pasted(overrides: Sequence[str]) -> str:
    return " ".join(shlex.quote(o) for o in overrides)
