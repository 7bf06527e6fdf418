"""Every cell done exactly once: starts cells on a pool, notices how they end, and waits for others.

A cell that is done is found, not run. A cell that another process works on is waited for. A cell
that ends in any other way than done is failed, with the reason in its run.json, and the others go
on. Cells may be added at any time, so a sweep and a tuner use the same supervisor.
"""

from __future__ import annotations

import signal
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from keyseg.runs import provenance
from keyseg.runs.disk import DiskFullError
from keyseg.runs.run_directory import (
    DONE,
    EXIT_BUSY,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    PRUNED,
    QUEUED,
    RUNNING,
    RunBusy,
    RunDirectory,
)
from keyseg.sweep.cells import Cell
from keyseg.sweep.pool import Ended, Pool

NO_SPACE = "no space left to write to (paths.outputs); make room, and give the same command again"

_MOST_YIELDS = 20
"""How often a worker may step back from a lock that is then free, before that is an error."""


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: done, failed or pruned. `before`: it had before we came.

    `error`: why it failed, where its run.json does not say so: there was no room, or it holds the
    results that were to be replaced.
    """

    cell: Cell
    status: str
    before: bool = False
    error: str | None = None


class Supervisor:
    """Keeps a pool busy with cells until each has an outcome."""

    def __init__(self, pool: Pool, *, max_attempts: int = 1) -> None:
        """`max_attempts`: how often a cell is started whose machine is lost each time."""
        self.pool = pool
        self.max_attempts = max_attempts
        self.outcomes: list[Outcome] = []
        self._queue: deque[Cell] = deque()
        self._working: dict[Path, Cell] = {}
        self._elsewhere: dict[Path, Cell] = {}
        self._yields: dict[Path, int] = {}
        self._losses: dict[Path, int] = {}

    def add(self, cell: Cell) -> None:
        """Take a cell in; it starts with one of the next calls of `step`."""
        run = cell.begin()
        if run is None:
            self._elsewhere[cell.path] = cell
            return
        if "damaged" in run.info:
            self._end(cell, FAILED)
            return
        if run.status in (DONE, PRUNED):
            self._end(cell, run.status, before=True)
            return
        if run.info.get("error"):
            run.update(error=None)
        run.freeze(cell.config)  # same signature; what only concerns speed may have changed
        self._queue.append(cell)

    @property
    def active(self) -> bool:
        """Whether a cell has no outcome yet."""
        return bool(self._queue or self._working or self._elsewhere)

    def states(self) -> dict[Path, str]:
        """What we know better than run.json: who waits here, who is at work here or elsewhere."""
        at_work = dict.fromkeys([*self._working, *self._elsewhere], RUNNING)
        waiting = [*[cell.path for cell in self._queue], *self.pool.waiting()]
        return at_work | dict.fromkeys(waiting, QUEUED)

    def step(self) -> list[Outcome]:
        """Look once at all cells, start what can start; the outcomes since the last call."""
        before = len(self.outcomes)
        for ended in self.pool.poll():
            self._settle(self._working.pop(ended.path), ended)
        for path, cell in list(self._elsewhere.items()):
            run = cell.open()
            if not run.busy:
                del self._elsewhere[path]
                if run.status in (DONE, PRUNED, FAILED):
                    self._end(cell, run.status)
                else:  # whoever worked on it was stopped
                    self._queue.append(cell)
        while self._queue and self.pool.free() > 0:
            cell = self._queue.popleft()
            run = cell.open()
            if run.busy:  # another launching process was faster
                self._elsewhere[cell.path] = cell
                continue
            if run.status == DONE:
                self._end(cell, DONE)
                continue
            self._working[cell.path] = cell
            self.pool.start(run, threads=cell.config.runtime.threads or run.info.get("threads"))
        return self.outcomes[before:]

    def stop(self) -> None:
        """Stop our workers; their runs go on from their last checkpoint when started again."""
        for path in self.pool.stop():
            run = RunDirectory(path)
            if run.status == RUNNING and not run.busy:
                close_attempt(run, "stopped", status=QUEUED)
        self._queue.clear()
        self._working.clear()
        self._elsewhere.clear()

    def _settle(self, cell: Cell, ended: Ended) -> None:
        run, code = cell.open(), ended.code
        if code == EXIT_BUSY or run.busy:
            self._yields[cell.path] = self._yields.get(cell.path, 0) + 1
            if self._yields[cell.path] < _MOST_YIELDS:
                self._elsewhere[cell.path] = cell
                return
        status = run.status
        if again := run.info.get("rerun_error"):
            self._end_rerun(cell, str(again))
            return
        if status in (DONE, PRUNED):  # whatever became of its worker after that
            run.replaced()
            self._end(cell, status)
            return
        if code == EXIT_STOPPED:  # it left a checkpoint, and wants to go on
            self._queue.append(cell)
            return
        if status != FAILED or code < 0 or ended.reason:
            reason = ended.reason or reason_of(run, code)
            again = ended.lost and self._again(cell)
            if ended.lost and not again:
                reason += f"; {self.max_attempts} attempts were lost (hydra.launcher.max_attempts)"
            fields = {"status": QUEUED} if again else {"status": FAILED, "error": reason}
            try:
                with run.lock():
                    close_attempt(run, reason, **fields)
            except RunBusy:
                self._elsewhere[cell.path] = cell
                return
            except DiskFullError:
                self.outcomes.append(Outcome(cell, FAILED, error=reason))
                return
            if again:
                self._queue.append(cell)
                return
        with suppress(DiskFullError):
            run.restore(str(run.info.get("error")))  # where its worker did not
        if kept := run.info.get("rerun_error"):
            self._end_rerun(cell, str(kept))
        else:
            self._end(cell, FAILED)

    def _again(self, cell: Cell) -> bool:
        """Count a lost machine; whether the cell may be started again."""
        self._losses[cell.path] = self._losses.get(cell.path, 0) + 1
        return self._losses[cell.path] < self.max_attempts

    def _end_rerun(self, cell: Cell, error: str) -> None:
        text = f"{error} (its results from before are kept)"
        self.outcomes.append(Outcome(cell, FAILED, error=text))

    def _end(self, cell: Cell, status: str, *, before: bool = False) -> None:
        self.outcomes.append(Outcome(cell, status, before))


def reason_of(run: RunDirectory, code: int) -> str:
    """Why a worker ended that left no reason itself; `code`: below 0 the signal that killed it."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the worker was killed by {name}{hint}"
    if code == EXIT_NO_SPACE:
        return f"the worker ended: {NO_SPACE}"
    last = last_lines(run.log_file, 1)
    said = f": {last}" if last else " and printed nothing"
    return f"the worker ended with exit code {code} before the run was done{said}"


def last_lines(file: Path, count: int) -> str:
    """The last non-empty lines of a text file; "" where there is none."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 20_000))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


def close_attempt(run: RunDirectory, outcome: str, **fields: object) -> None:
    """End the attempt that a worker could not end itself."""
    attempts = list(run.info.get("attempts") or [])
    if attempts and attempts[-1].get("ended") is None:
        attempts[-1] = provenance.ended(attempts[-1], outcome)
    run.update(attempts=attempts, **provenance.cost(attempts), **fields)
    if fields.get("status") == FAILED:
        run.restore(str(fields.get("error") or outcome))
