"""Where each cell of a sweep stands, read from run directories only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from keyseg.config import ConfigError
from keyseg.runs import convergence, sweep_directory
from keyseg.runs.run_directory import (
    DONE,
    FAILED,
    PRUNED,
    QUEUED,
    RUNNING,
    STOPPED,
    DamagedError,
    Row,
    RunDirectory,
    is_loss,
    now,
    parse_rows,
    state_of,
    stored_config,
)
from keyseg.runs.titles import unique_titles

TESTING, LOST = "testing", "lost"
"""States beyond run.json's: the steps are done and the test split is read; its job ended without a
word."""

_TAIL = 4096
"""Bytes at the end of metrics.jsonl that show how a run ended."""

_LASTING = (DONE, PRUNED, FAILED, QUEUED, LOST, STOPPED)
"""States of which nothing changes while the files do not."""


@dataclass(frozen=True)
class CellStatus:
    """One line of the table. Times in seconds, scores as fractions; None: not known yet."""

    title: str
    path: Path
    state: str = QUEUED
    step: int = 0
    steps: int | None = None
    seconds_per_step: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    val: Mapping[str, float] = field(default_factory=dict)
    val_step: int = -1
    """Of the last evaluation on val; -1: none yet."""
    left: float | None = None
    seconds: float | None = None
    error: str | None = None
    training: str = ""
    """Whether it has converged, by what it has shown so far."""
    device: str = ""
    """What it computes on, as torch calls it."""
    job: str = ""
    node: str = ""
    """Where it works; in brackets why it waits, as squeue shows both."""
    advice: str = ""
    """Why it waits and what to do, where that does not pass by itself."""


class Watch:
    """Follows one run directory; a call reads only what was added since the last."""

    def __init__(
        self, run: RunDirectory, title: str, steps: int | None = None, *, tests: bool = True
    ) -> None:
        """`steps`: of the whole run, where the caller knows them; else its config is read.

        `tests`: whether the run reads the test split; a tuner's trial does not.
        """
        self.run = run
        self.title = title
        self._file = (0, 0)  # inode and offset
        self._last: dict[str, Row] = {}
        self._first: Row | None = None
        self._curve: list[Row] = []  # what tells whether it has converged
        self._tail_only = False
        self._steps = steps
        self._tests = tests
        self._info_file = run.path / "run.json"
        self._shown: tuple[Any, CellStatus] | None = None
        self._damaged: str | None = None

    def read(self, state: str | None = None) -> CellStatus:
        """The status now. `state`: what the caller knows better than run.json."""
        seen = (state, _stamp(self._info_file), _stamp(self.run.metrics_file))
        if self._shown is None or self._shown[0] != seen:
            status = self._read(state)
            lasting = status.state in _LASTING and (state, status.state) != (None, STOPPED)
            self._shown = (seen, status) if lasting else None
            return status
        return self._shown[1]

    def _read(self, state: str | None) -> CellStatus:
        info = self.run.info
        attempts = info.get("attempts") or []
        status = str(info.get("status", QUEUED))
        ended = status in (DONE, PRUNED, FAILED) and "convergence" in info
        self._read_rows(since=float((attempts or [{}])[-1].get("started") or 0), ended=ended)
        steps = self._read_steps(info)
        step = max([row.step for row in self._last.values()] or [0])
        state = state or state_of(self.run, info)
        val_step = max([r.step for n, r in self._last.items() if n.startswith("val/")] or [-1])
        if state == RUNNING and self._tests and steps is not None and val_step >= steps:
            state = TESTING
        speed = self._value("train/seconds_per_step")
        return CellStatus(
            title=self.title,
            path=self.run.path,
            state=state,
            step=step,
            steps=steps,
            seconds_per_step=speed,
            losses={
                name.removeprefix("train/"): row.value
                for name, row in self._last.items()
                if is_loss(name)
            },
            val={
                name.removeprefix("val/"): row.value
                for name, row in self._last.items()
                if name.startswith("val/")
            },
            val_step=val_step,
            left=self._left(step, steps, speed) if state == RUNNING else None,
            seconds=_seconds(attempts),
            error=str(info.get("error") or "") if status == FAILED else self._damaged,
            device=str(info.get("device") or ""),
            training=self._training(info) if val_step > 0 or status in (DONE, FAILED) else "",
        )

    def _training(self, info: Mapping[str, Any]) -> str:
        if self._tail_only:
            return str(info["convergence"].get("word") or "")
        return convergence.of_rows(self._curve, info).word or ""

    def _value(self, name: str) -> float | None:
        row = self._last.get(name)
        return row.value if row else None

    def _left(self, step: int, steps: int | None, speed: float | None) -> float | None:
        """Seconds to the last step, at the pace of this attempt with its evaluations in it."""
        if steps is None:
            return None
        last = self._last.get("train/loss")
        if last and self._first and last.step > self._first.step:
            speed = (last.time - self._first.time) / (last.step - self._first.step)
        return (steps - step) * speed if speed is not None else None

    def _read_rows(self, since: float, *, ended: bool = False) -> None:
        try:
            with self.run.metrics_file.open("rb") as file:
                stat = self.run.metrics_file.stat()
                inode, offset = self._file
                anew = stat.st_ino != inode or stat.st_size < offset  # truncated
                if anew or (self._tail_only and not ended):
                    self._forget()
                new = self._new_lines(file, stat.st_size, ended=ended)
        except FileNotFoundError:
            self._forget()
            return
        try:
            rows = parse_rows(self.run.metrics_file, new)
        except DamagedError as error:  # of this run; the others are shown
            self._damaged = str(error)
            return
        self._damaged = None
        for row in rows:
            self._last[row.name] = row
            if row.name in (convergence.SCORE, convergence.RATE):
                self._curve.append(row)
            first_is_old = self._first is None or self._first.time < since
            if row.name == "train/loss" and row.time >= since and first_is_old:
                self._first = row
        self._file = (stat.st_ino, self._file[1] + new.rfind(b"\n") + 1)

    def _forget(self) -> None:
        self._file, self._last, self._first, self._curve = (0, 0), {}, None, []
        self._tail_only = False

    def _new_lines(self, file: BinaryIO, size: int, *, ended: bool) -> bytes:
        """What was not read yet; of a run that ended its last lines, where they show enough."""
        inode, offset = self._file
        if ended and offset == 0 and size > _TAIL:
            file.seek(size - _TAIL)
            tail = file.read().partition(b"\n")[2]
            if b'"val/' in tail and b'"train/loss"' in tail:
                self._tail_only, self._file = True, (inode, size - len(tail))
                return tail
        file.seek(offset)
        return file.read()

    def _read_steps(self, info: Mapping[str, Any]) -> int | None:
        if self._steps is None and "tests" in info:
            self._tests = info["tests"]
        elif self._steps is None and self.run.config_file.exists():  # a run from before that
            try:
                loaded = stored_config(self.run.config_file)
                self._steps = loaded["optim"]["steps"]
                self._tests = bool(loaded["evaluation"]["protocols"])
            except (ConfigError, KeyError, TypeError):  # whoever works on the run says so
                return info.get("steps")
        steps = info.get("steps")
        return self._steps if steps is None else steps


def watches(sweep_dir: Path) -> list[Watch]:
    """One watch per cell of a sweep; of a tuning and of single runs, one per run in the folder."""
    sweep = sweep_directory.read(sweep_dir)
    cells = sweep.get("cells")
    if cells is not None:
        cells = [*cells, *sweep.get("earlier", [])]
    if cells is None or sweep.get("tune"):
        runs = [RunDirectory(file.parent) for file in sorted(sweep_dir.glob("*/run.json"))]
        listed = sorted(((run.info, run) for run in runs), key=lambda one: _trial(one[0]))
        labels = [(str(i.get("label") or r.path.name), i.get("seed"), r) for i, r in listed]
    else:
        labels = [(c["label"], c["seed"], RunDirectory(sweep_dir / c["signature"])) for c in cells]
    titles = unique_titles((label, seed, run.path.name) for label, seed, run in labels)
    return [Watch(run, title) for title, (_, _, run) in zip(titles, labels, strict=True)]


def _trial(info: Mapping[str, Any]) -> tuple[str, float]:
    """Where a run of a tuning stands among the others: by its study, and its trial's number."""
    trial = info.get("trial")
    return str(info.get("study") or ""), float("inf") if trial is None else float(trial)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Tells a file from what it was before, and from what replaces it."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _seconds(attempts: list[dict[str, float]]) -> float | None:
    """Time spent on a run: attempts that ended, and the one at work.

    How long an attempt worked that was killed without a word is not known; it counts nothing.
    """
    spent = [a["seconds"] for a in attempts if a.get("seconds")]
    if attempts and attempts[-1].get("started") and not attempts[-1].get("ended"):
        spent.append(now() - attempts[-1]["started"])
    return sum(spent) if spent else None
