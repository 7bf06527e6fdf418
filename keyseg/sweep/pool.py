"""What works on cells: the protocol of a pool, and what every pool needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from keyseg.runs.run_directory import EXIT_BUSY, EXIT_STOPPED, RunDirectory, exit_code

WORKER = (sys.executable, "-m", "keyseg.worker")
"""The command of a worker; the run directories are added to it."""

KEYSEG = (sys.executable, "-m", "keyseg")
"""The command line, as a process of its own."""

_LATER = 2.0  # seconds


@dataclass(frozen=True)
class Ended:
    """A worker that is gone. `code`: its exit code; below 0 the signal that killed it.

    `reason`: what the pool knows of it. `lost`: its machine went away; it may be started again.
    """

    path: Path
    code: int
    reason: str | None = None
    lost: bool = False


class Pool(Protocol):
    """Something that works on run directories: processes here, jobs on a cluster.

    `slots`: how many at the same time. `threads`: of each.
    """

    slots: int
    threads: int

    def free(self) -> int:
        """How many more runs can be started now."""

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Begin to work on a run; `threads`: other than the pool's own number."""

    def waiting(self) -> set[Path]:
        """Runs that were started and still wait for a machine."""

    def poll(self) -> list[Ended]:
        """Workers that ended since the last call; returns at once."""

    def stop(self) -> list[Path]:
        """End all workers, gently first; their run directories."""


def job_ends(paths: Sequence[Path], code: int) -> list[Ended]:
    """How the runs of a worker ended that itself ended with `code`.

    It takes them in order, and ends where one does so without a word: the first that has not ended
    was at work. Those behind it never began, and are started again.
    """
    ended = []
    for path in paths:
        recorded = exit_code(RunDirectory(path)) if len(paths) > 1 else None
        if recorded is None:
            if len(paths) > 1 and code < 0:
                _let_go(RunDirectory(path))
            ended.append(Ended(path, code))
            if code != EXIT_BUSY:
                code = EXIT_STOPPED
        else:
            ended.append(Ended(path, recorded))
    return ended


def _let_go(run: RunDirectory) -> None:
    """Wait for the process of a run, which is killed with its worker, and a moment later."""
    deadline = time.monotonic() + _LATER
    while run.busy and time.monotonic() < deadline:
        time.sleep(0.01)


Asked = TypeVar("Asked")


def same_threads(asked: Sequence[tuple[Asked, int]], size: int) -> list[list[tuple[Asked, int]]]:
    """Runs with their threads in groups of up to `size`, in order; a group has one number.

    A run that goes on must do so with the threads that it began with, which need not be those of
    its neighbours.
    """
    groups: list[list[tuple[Asked, int]]] = []
    for run, threads in asked:
        if not groups or len(groups[-1]) == size or groups[-1][0][1] != threads:
            groups.append([])
        groups[-1].append((run, threads))
    return groups


def as_signal(code: int) -> int:
    """A shell between us and the worker reports signal 9 as 137."""
    return -(code - 128) if 128 < code <= 128 + 64 else code
