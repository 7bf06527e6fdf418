"""What of a design is still to run, and what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, prod
from pathlib import Path
from statistics import fmean
from typing import Any

from keyseg import sweepdir
from keyseg.config import PROJECT
from keyseg.rundir import DONE, FAILED, RUNNING, RunDirectory


@dataclass(frozen=True)
class Todo:
    """A cell without results. `state`: missing, queued, failed, running, interrupted, pruned."""

    label: str
    seed: int | None
    state: str
    overrides: Sequence[str]
    hours: float


@dataclass(frozen=True)
class Plan:
    """A sweep's cells: how many are done, which are not; `hours` is NaN where none is done."""

    cells: int
    done: int
    todo: Sequence[Todo]
    spent: float
    unit: str

    @property
    def hours(self) -> float:
        """What all that is left costs."""
        return sum(todo.hours for todo in self.todo)


def read(sweep_dir: Path) -> Plan:
    """Read the plan off sweep.json and the run directories.

    A cell costs what its variant's finished cells took on average, or, where its variant has
    none, all finished cells.
    """
    entries = sweepdir.read(sweep_dir).get("cells") or []
    infos = [_info(sweep_dir / entry["signature"]) for entry in entries]
    took: dict[str, list[float]] = {}
    for entry, info in zip(entries, infos, strict=True):
        if info.get("status") == DONE and isinstance(info.get("minutes"), int | float):
            took.setdefault(entry["label"], []).append(info["minutes"] / 60)
    every = [hours for of_label in took.values() for hours in of_label]
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
    hardware = [info.get("hardware") for info in infos if info.get("status") == DONE]
    unit = "CPU" if hardware and all(h and not h.get("gpus") for h in hardware) else "GPU"
    return Plan(len(entries), len(entries) - len(todo), todo, sum(every), unit)


def lines(plan: Plan, command: str) -> list[str]:
    """The plan as it is printed."""
    out = [f"{plan.done} of {plan.cells} cells done, {plan.spent:.2f} {plan.unit}-hours"]
    if not plan.todo:
        return [*out, "nothing is left to run"]
    width = max(len(todo.label) for todo in plan.todo)
    for todo in plan.todo:
        cost = (
            f"{todo.hours:6.2f} {plan.unit}-hours" if todo.hours == todo.hours else "cost unknown"
        )
        out.append(f"  {todo.label:<{width}}  seed {todo.seed}  {todo.state:<11}  {cost}")
    states = ", ".join(f"{n} {state}" for state, n in Counter(t.state for t in plan.todo).items())
    cost = (
        f"about {plan.hours:.2f} {plan.unit}-hours"
        if plan.hours == plan.hours
        else "cost unknown until one cell is done"
    )
    out.append(f"{len(plan.todo)} to run ({states}): {cost}")
    return [*out, f"run them with  {command}"]


def unstarted(name: str, folder: Path = PROJECT / "sweeps") -> list[str] | None:
    """Lines on a file in sweeps/ that was never started; None if there is no such file."""
    from omegaconf import OmegaConf

    file = folder / f"{name}.yaml"
    if not file.exists():
        return None
    params: Mapping[str, Any] = OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") or {}
    values = {key: str(value).split(",") for key, value in params.items()}
    shape = " x ".join(f"{len(v)} {key}" for key, v in values.items())
    return [
        f"0 of {prod(map(len, values.values()))} cells done ({shape})",
        "cost unknown until one cell is done",
        f"run them with  python run.py -m +sweeps={name}",
    ]


def _info(path: Path) -> dict[str, Any]:
    return dict(RunDirectory(path).info) if (path / "run.json").exists() else {}


def _state(path: Path, info: Mapping[str, Any]) -> str:
    status = str(info.get("status") or "missing")
    if status == RUNNING and not RunDirectory(path).busy:
        return "interrupted"
    return FAILED if status == FAILED else status
