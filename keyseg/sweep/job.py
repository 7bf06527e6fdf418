"""What a SLURM job does with a cell: start its worker, and queue itself again when told to stop.

The worker is a process of its own, the same as on one machine. The job's process stays light: it
passes SIGUSR2 on (SLURM sends it before a time limit and before a preemption), waits until the
worker has left its checkpoint, and then has submitit requeue the job, any number of times.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keyseg.disk import DiskFullError
from keyseg.rundir import (
    EXIT_BUSY,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    RunBusy,
    RunDirectory,
)
from keyseg.sweep.supervise import close_attempt, reason_of
from keyseg.sweep.workers import worker_environment

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_TICK, _REMIND, _PATIENCE = 0.1, 1.0, 5.0  # seconds
_REQUEUE_TRIES = 10
"""A controller that is just down is asked again, every few seconds until the machine is taken."""


class WorkerFailedError(RuntimeError):
    """The worker ended without its run being done: SLURM shows the job as failed, too."""


@dataclass(frozen=True)
class CellJob:
    """The function that submitit calls on the node. `path`: of the run directory."""

    path: str
    worker: Sequence[str]
    threads: int

    def __call__(self) -> str:
        """Work on the run; its status.

        Raises:
            WorkerFailedError: the worker's exit code is not 0.
            SystemExit: the disk is full; SLURM is told so by the job's exit code.
        """
        run = RunDirectory(self.path)
        # submitit's: writes the submission again, calls `scontrol requeue`, and exits.
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        asked = False

        def ask(number: int, frame: object) -> None:
            nonlocal asked
            asked = True

        signal.signal(signal.SIGUSR2, ask)
        with run.log_file.open("ab") as log:
            process = subprocess.Popen(
                [*self.worker, self.path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment(self.threads),
                preexec_fn=_ignore_signals,
            )
        reminded = 0.0
        while (code := process.poll()) is None:
            # Again and again: a worker that still loads its libraries does not listen yet.
            if asked and time.monotonic() - reminded > _REMIND:
                process.send_signal(signal.SIGUSR2)
                reminded = time.monotonic()
            time.sleep(_TICK)
        # By the signal: a worker that was just starting or ending, and has nothing to save.
        if code in (EXIT_STOPPED, -signal.SIGUSR2):
            _persist(lambda: requeue(signal.SIGUSR2, None))
        if code not in (0, EXIT_BUSY) and (run.status != FAILED or code < 0):
            with suppress(RunBusy, DiskFullError), run.lock():
                reason = reason_of(run, code)
                close_attempt(run, reason, status=FAILED, error=reason)
        if code == EXIT_NO_SPACE:  # the code is all that surely arrives: it needs no room
            raise SystemExit(code)
        if code != 0:
            raise WorkerFailedError(f"{self.path}: the worker ended with {code}; see log.txt there")
        return run.status

    def checkpoint(self) -> DelayedSubmission:
        """What the job does when it comes again: the same; the run directory knows the rest."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _ignore_signals() -> None:
    """In the worker: what SLURM sends to all processes of a job must not end it.

    A worker that listens to SIGUSR2 sets its own handler later. SIGTERM comes first of all at a
    preemption, and SIGKILL after it in any case.
    """
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _persist(requeue: Callable[[], None]) -> None:
    for left in reversed(range(_REQUEUE_TRIES)):
        try:
            requeue()
            return
        except (subprocess.SubprocessError, OSError) as error:
            if not left:
                raise
            print(f"the job could not be queued again ({error}), next try soon", file=sys.stderr)
            time.sleep(_PATIENCE)
