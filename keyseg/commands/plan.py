"""`keyseg plan SWEEP`: what of a sweep is still to run, and what that costs."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan, prod
from pathlib import Path
from statistics import fmean
from typing import Any

from keyseg.commands.sweeps import find_sweep
from keyseg.config import PROJECT, ConfigError, resolve_path
from keyseg.runs import sweep_directory
from keyseg.runs.looks import LookPlan, contrast_lines, ended
from keyseg.runs.looks import read as read_looks
from keyseg.runs.provenance import cost_unit, hours
from keyseg.runs.run_directory import DONE, RunDirectory, state_of
from keyseg.runs.sweep_directory import TRIALS
from keyseg.runs.titles import by_reason, title_of
from keyseg.sweep import ranges
from keyseg.sweep.stale import StaleCheck


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plan", help="what of a sweep is still to run, and what it costs")
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep, or a file in sweeps/")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    except ConfigError:
        lines_of_file = unstarted(options.sweep)
        if lines_of_file is None:
            raise
        print("\n".join(lines_of_file))
        return 0
    design = sweep_directory.read(sweep_dir)
    if not design:
        raise ConfigError(f"'{options.sweep}' holds single runs; only a sweep has a plan")
    command = str(design.get("command") or "its first command")
    if design.get("tune"):
        shown = trials(sweep_dir, command)
    else:
        plan = read(sweep_dir)
        shown = lines(plan, command) + looks_ahead(sweep_dir, design, plan)
    print("\n".join(shown))
    return 0


@dataclass(frozen=True)
class Todo:
    """A cell without results. `state`: missing, queued, failed, running, stopped, pruned."""

    label: str
    seed: int | None
    state: str
    overrides: Sequence[str]
    hours: float


@dataclass(frozen=True)
class Plan:
    """A sweep's cells: how many are done, which are not; `hours` is NaN where none is done.

    `spent`: hours so far, of cells that are not done too. `unit`: GPU or CPU. `stale`: lines on
    cells that are done, but not with today's code, data and weights.
    """

    cells: int
    done: int
    todo: Sequence[Todo]
    spent: float
    unit: str
    stale: Sequence[str] = ()

    @property
    def hours(self) -> float:
        """What all that is left costs."""
        return sum(todo.hours for todo in self.todo)


def read(sweep_dir: Path) -> Plan:
    """Read the plan off sweep.json and the run directories.

    A cell costs what its variant's finished cells took on average, or, where its variant has
    none, all finished cells.
    """
    entries = sweep_directory.read(sweep_dir).get("cells") or []
    infos = [_info(sweep_dir / entry["signature"]) for entry in entries]
    took: dict[str, list[float]] = {}
    for entry, info in zip(entries, infos, strict=True):
        if info.get("status") == DONE and isfinite(cost := hours(info)):
            took.setdefault(entry["label"], []).append(cost)
    every = [cost for of_label in took.values() for cost in of_label]
    todo = [
        Todo(
            str(entry["label"]),
            entry.get("seed"),
            _state(sweep_dir / entry["signature"], info),
            list(entry.get("overrides") or []),
            fmean(took.get(entry["label"]) or every or [nan]),
        )
        for entry, info in zip(entries, infos, strict=True)
        if info.get("status") != DONE
    ]
    unit = cost_unit(info for info in infos if info.get("status") == DONE)
    spent = sum(cost for cost in map(hours, infos) if isfinite(cost))
    return Plan(
        len(entries), len(entries) - len(todo), todo, spent, unit, _stale(sweep_dir, entries)
    )


def lines(plan: Plan, command: str) -> list[str]:
    """The plan as it is printed."""
    out = [f"{plan.done} of {plan.cells} cells done, {plan.spent:.2f} {plan.unit}-hours so far"]
    out += plan.stale
    if not plan.todo:
        return [*out, "nothing is left to run"]
    width = max(len(todo.label) for todo in plan.todo)
    for todo in plan.todo:
        known = isfinite(todo.hours)
        cost = f"{todo.hours:6.2f} {plan.unit}-hours" if known else "cost unknown"
        out.append(f"  {todo.label:<{width}}  seed {todo.seed}  {todo.state:<11}  {cost}")
    states = ", ".join(f"{n} {state}" for state, n in Counter(t.state for t in plan.todo).items())
    cost = (
        f"about {plan.hours:.2f} {plan.unit}-hours"
        if isfinite(plan.hours)
        else "cost unknown until one cell is done"
    )
    out.append(f"{len(plan.todo)} to run ({states}): {cost}")
    return [*out, f"run them with  {command}"]


def looks_ahead(sweep_dir: Path, design: Mapping[str, Any], plan: Plan) -> list[str]:
    """Contrasts with their boundary, and what seeds that are still to come cost at most; [] where
    seeds do not come by looks."""
    looks = LookPlan.of(design)
    if looks is None:
        return []
    planned = design.get("planned") or []
    out = contrast_lines(looks, read_looks(sweep_dir))
    if not planned or ended(looks, read_looks(sweep_dir)):
        return [*out, "no more seeds come"]
    each = plan.spent / plan.done if plan.done else nan
    cost = f", {len(planned) * each:.2f} {plan.unit}-hours" if isfinite(each) else ""
    return [*out, f"after that at most {len(planned)} cells more{cost}, of what is still open"]


def trials(sweep_dir: Path, command: str) -> list[str]:
    """The plan of a tuning: trials that have ended, of all that it may ask for."""
    file = sweep_dir / TRIALS
    content = json.loads(file.read_text()) if file.exists() else {"studies": []}
    own = [t for s in content["studies"] for t in s["trials"] if t["from"] is None]
    states = Counter(t["state"] for t in own if t["state"] not in ("waiting", "running"))
    budget = content.get("n_trials", 0) * len(content["studies"])
    counts = ", ".join(f"{n} {state}" for state, n in states.items())
    of = f" of {budget}" if budget else ""
    out = f"{sum(states.values())}{of} trials done" + (f" ({counts})" if counts else "")
    return [out, f"run the rest with  {command}"]


def unstarted(name: str, folder: Path = PROJECT / "sweeps") -> list[str] | None:
    """Lines on a file in sweeps/ that was never started; None if there is no such file."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    file = folder / f"{name}.yaml"
    if not file.exists():
        return None
    sweeper = OmegaConf.select(OmegaConf.load(file), "hydra.sweeper") or {}
    params: Mapping[str, Any] = sweeper.get("params") or {}
    if "n_trials" in sweeper:  # a tuning: its parameters have ranges, and no cells
        count = f"0 of {sweeper['n_trials']} trials done ({', '.join(params)})"
    else:
        parser = OverridesParser.create()
        sizes = {
            key: sum(1 for _ in override.sweep_string_iterator())
            for key, value in params.items()
            if (override := ranges.parse(parser, [f"{key}={value}"])[0]).is_sweep_override()
        }
        shape = " x ".join(f"{size} {key}" for key, size in sizes.items())
        count = f"0 of {prod(sizes.values())} cells done ({shape})"
    return [
        count,
        "cost unknown until one cell is done",
        f"run them with  python run.py -m +sweeps={name}",
    ]


def _stale(sweep_dir: Path, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    look = StaleCheck()
    reasons: list[tuple[str, str]] = []
    for entry in entries:
        run = RunDirectory(sweep_dir / entry["signature"])
        if run.config_file.exists():
            title = title_of(entry["label"], entry.get("seed"))
            reasons += [(title, reason) for reason in look.reasons(run)]
    if not reasons:
        return []
    ways = "stale=rerun runs them again, stale=keep takes them as they are"
    return [*(f"stale: {line}" for line in by_reason(reasons)), ways]


def _info(path: Path) -> dict[str, Any]:
    return dict(RunDirectory(path).info) if (path / "run.json").exists() else {}


def _state(path: Path, info: Mapping[str, Any]) -> str:
    return state_of(RunDirectory(path), info) if info.get("status") else "missing"
