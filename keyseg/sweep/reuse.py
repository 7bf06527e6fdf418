"""Nothing runs twice, in no folder: a cell that another sweep has is taken over by a link.

The link lies where the run directory would, and says whose it is. It is made to a run of the same
signature that is done with today's code, data and backbones, that is at work, or that waits. What
runs a linked cell works in that one directory, under its one lock, whichever sweep started it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import filelock

from keyseg.runs.run_directory import DONE, QUEUED, RUNNING, RunDirectory
from keyseg.runs.titles import in_brief
from keyseg.sweep.cells import Cell
from keyseg.sweep.stale import StaleCheck

_WAIT = 60.0  # seconds


def others(cells: Sequence[Cell]) -> list[str]:
    """What `take_over` would say, before anything is written."""
    outputs, look = cells[0].path.parent.parent, StaleCheck()
    by: dict[str, list[str]] = {}
    for cell in cells:
        if not cell.path.exists() and (other := _other(cell, outputs, look)):
            by.setdefault(other.parent.name, []).append(cell.title)
    return _lines(by)


def take_over(cells: Sequence[Cell], *, wanted: bool, create: bool = False) -> list[str]:
    """Link the cells that have no run directory to those of other sweeps; what to say of it.

    Args:
        cells: of one sweep.
        wanted: `reuse` of the command; without it nothing is linked.
        create: make the directories of all others, so that whoever comes next links to them.
    """
    outputs = cells[0].path.parent.parent
    outputs.mkdir(parents=True, exist_ok=True)
    look = StaleCheck()
    by: dict[str, list[str]] = {}
    with filelock.FileLock(outputs / ".reuse.lock", timeout=_WAIT):
        for cell in cells:
            if cell.path.is_symlink() and not cell.path.exists():
                cell.path.unlink()  # the other sweep was deleted
            if cell.path.exists() or cell.rerun:
                continue
            other = _other(cell, outputs, look) if wanted else None
            if other is not None:
                _link(cell.path, other)
                by.setdefault(other.parent.name, []).append(cell.title)
            elif create:
                cell.create()
    return _lines(by)


def _lines(by: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"taken over from {sweep} (links): {in_brief(titles)}" for sweep, titles in by.items()]


def _other(cell: Cell, outputs: Path, look: StaleCheck) -> Path | None:
    """The run directory of this cell in another sweep: one that is done before one at work."""
    fitting: dict[str, Path] = {}
    for file in sorted(outputs.glob(f"*/{cell.signature}/run.json")):
        run = RunDirectory(file.parent)
        own = run.path.parent == cell.path.parent or run.path.is_symlink()
        info = run.info
        if own or "damaged" in info or "trial" in info:
            continue
        status = str(info.get("status"))
        if status == DONE:
            fits = bool(info.get("code")) and not look.reasons(run, cell.config)
        else:
            fits = status in (RUNNING, QUEUED) and not look.reasons(run, cell.config)
        if fits:
            fitting.setdefault(status, run.path)
    return next((fitting[s] for s in (DONE, RUNNING, QUEUED) if s in fitting), None)


def _link(path: Path, other: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(other, path.parent), target_is_directory=True)
