"""All sweeps at a glance, from sweep.json and run.json alone: no curve is read.

What `keyseg status` shows without a name. SLURM is asked once for all of them, and only where a
cell went there and has not ended.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError
from keyseg.runs import sweep_directory
from keyseg.runs.provenance import cost_unit, hours
from keyseg.runs.run_directory import (
    DONE,
    FAILED,
    PRUNED,
    QUEUED,
    RUNNING,
    STOPPED,
    RunDirectory,
    now,
)
from keyseg.sweep.progress import duration
from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.pool import Submission
from keyseg.sweep.slurm.queue import Jobs, Key, SlurmError
from keyseg.sweep.slurm.reconcile import job_and_state
from keyseg.sweep.status import LOST, watches

_COLUMNS = ("sweep", "state", "cells", "done", "failed", "running", "hours", "last change")
_DAYS = 2 * 86400.0
"""Seconds after which a change has a date instead of an age."""


@dataclass(frozen=True)
class SweepSummary:
    """A sweep in one line. `states`: how many cells are in each; `changed`: seconds since the epoch
    of the last write to a run, None before the first. `hours`: GPU-hours, or CPU-hours (`unit`).
    """

    name: str
    states: Mapping[str, int]
    hours: float
    unit: str
    changed: float | None
    waits: bool = False
    """Whether a job of it waits on a cluster, or its command is between two cells."""

    @property
    def cells(self) -> int:
        """How many there are."""
        return sum(self.states.values())

    @property
    def failed(self) -> int:
        """Cells that failed, or whose job ended without a word."""
        return self.states.get(FAILED, 0) + self.states.get(LOST, 0)

    @property
    def state(self) -> str:
        """What the sweep is as a whole: running, queued, stopped, failed or done."""
        if self.states.get(RUNNING):
            return RUNNING
        ended = self.states.get(DONE, 0) + self.states.get(PRUNED, 0)
        if ended == self.cells:
            return DONE
        if ended + self.failed == self.cells:
            return FAILED
        return QUEUED if self.waits else STOPPED


@dataclass(frozen=True)
class _Cell:
    """A run and what its run.json said when it was read."""

    run: RunDirectory
    info: Mapping[str, Any]
    submission: Submission | None


def summaries(folders: Sequence[Path]) -> tuple[list[SweepSummary], list[str], str | None]:
    """Every sweep; what is wrong with those that cannot be read; why SLURM does not answer."""
    sweeps: dict[Path, list[_Cell]] = {}
    damaged = []
    for folder in folders:
        try:
            sweeps[folder] = _cells(folder)
        except ConfigError as error:  # of one sweep: the others are shown
            damaged.append(str(error))
    names = {c.submission.name for cells in sweeps.values() for c in cells if c.submission}
    jobs, trouble = Jobs(), None
    if names:
        try:
            jobs = queue.look(names)
        except SlurmError as error:
            trouble = str(error)
    rows = [_summary(folder, cells, jobs, trouble) for folder, cells in sweeps.items()]
    return rows, damaged, trouble


def _cells(folder: Path) -> list[_Cell]:
    cells = []
    for watch in watches(folder):
        info = watch.run.info
        over = info.get("status") in (DONE, PRUNED, FAILED)
        cells.append(_Cell(watch.run, info, None if over else Submission.read(watch.run)))
    return cells


def _summary(folder: Path, cells: Sequence[_Cell], jobs: Jobs, trouble: str | None) -> SweepSummary:
    spent = [cost for cell in cells if isfinite(cost := hours(cell.info))]
    shared = Counter(c.submission.key for c in cells if c.submission)
    states = [_state(cell, jobs, shared, asked=trouble is None) for cell in cells]
    return SweepSummary(
        folder.name,
        Counter(states),
        sum(spent),
        cost_unit(cell.info for cell in cells),
        max((moment for cell in cells for moment in _written(cell.run)), default=None),
        any(s == QUEUED and c.submission for s, c in zip(states, cells, strict=True))
        or (QUEUED in states and sweep_directory.at_work(folder)),
    )


def _state(cell: _Cell, jobs: Jobs, shared: Mapping[Key, int], *, asked: bool) -> str:
    record = cell.submission
    if record is not None:
        several = shared[record.key] > 1
        _, state = job_and_state(cell.run, record, jobs, asked=asked, behind_others=several)
        if state is not None:
            return state
    status = str(cell.info.get("status", QUEUED))
    if status == RUNNING and not cell.run.busy:
        return STOPPED
    return STOPPED if status == QUEUED and cell.info.get("attempts") else status


def _written(run: RunDirectory) -> Iterable[float]:
    for file in (run.path / "run.json", run.metrics_file):
        try:
            yield file.stat().st_mtime
        except FileNotFoundError:
            continue


def table(rows: Sequence[SweepSummary]) -> list[str]:
    """The sweeps as lines of text, the one that changed last at the end."""
    ordered = sorted(rows, key=lambda row: row.changed or 0.0)
    units = {row.unit for row in rows}
    hours_title = f"{units.pop()}-hours" if len(units) == 1 else "hours"
    header = [hours_title if title == "hours" else title for title in _COLUMNS]
    lines = [header]
    for row in ordered:
        unit = f" {row.unit}" if hours_title == "hours" else ""
        counts = [row.cells, row.states.get(DONE, 0), row.failed, row.states.get(RUNNING, 0)]
        lines.append(
            [
                row.name,
                row.state,
                *(str(count) if count else "-" for count in counts),
                f"{row.hours:.2f}{unit}",
                _ago(row.changed),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = (0, 1, len(header) - 1)
    return [
        "  ".join(
            text.ljust(width) if place in words else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _ago(moment: float | None) -> str:
    if moment is None:
        return "never"
    age = max(0.0, now() - moment)
    if age > _DAYS:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
    return f"{duration(age)} ago"
