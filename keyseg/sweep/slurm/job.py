"""What a SLURM job does with cells: start their worker, and queue itself again when told to stop.

The worker is a process of its own, the same as on one machine. The job's process stays light: it
passes SIGUSR2 on (SLURM sends it before a time limit and before a preemption), waits until the
worker has left its checkpoint, and then has submitit requeue the job, any number of times.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.runs import process_rank
from keyseg.runs.disk import DiskFullError
from keyseg.runs.environment import worker_environment

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from keyseg.runs.run_directory import RunDirectory

_TICK, _REMIND, _PATIENCE, _TAKEN = 0.1, 1.0, 5.0, 300.0  # seconds
_REQUEUE_TRIES = 10
"""A controller that is just down is asked again, every few seconds until the machine is taken."""


class WorkerFailedError(RuntimeError):
    """The worker ended without its run being done: SLURM shows the job as failed, too."""


@dataclass(frozen=True)
class CellJob:
    """The function that submitit calls on the node. `paths`: of the run directories, in order.

    `minutes`: of its time limit; 0 = not known.
    """

    paths: Sequence[str]
    worker: Sequence[str]
    threads: int
    minutes: int = 0

    def __call__(self) -> str:
        """Work on the runs, one after the other.

        Raises:
            WorkerFailedError: a run failed, or its jobs are too short to get on.
            SystemExit: the disk is full; SLURM is told so by the job's exit code.
        """
        # submitit's: writes the submission again, calls `scontrol requeue`, and exits.
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        stop_signal = _StopSignal()
        signal.signal(signal.SIGUSR2, stop_signal)
        failed = []
        left = list(self.paths)
        while left:
            # Before anything is imported here: the worker needs its time to load what it needs.
            process, started = self._start(left), time.monotonic()
            from keyseg.runs.run_directory import (
                EXIT_BUSY,
                EXIT_NO_SPACE,
                EXIT_STOPPED,
                RunDirectory,
            )
            from keyseg.sweep.pool import as_signal, job_ends

            code = as_signal(_wait(process, stop_signal))
            # By the signal: a worker that was just starting or ending, and has nothing to save.
            if code in (EXIT_STOPPED, -signal.SIGUSR2):
                self._give_up_if_stuck(left, time.monotonic() - started)
                if process_rank.rank():
                    time.sleep(_PATIENCE)  # the first decides whether there is a next time
                _persist(lambda: requeue(signal.SIGUSR2, None))
                time.sleep(_TAKEN)  # of several processes one queues the job, and SLURM ends all
            ended = job_ends([Path(path) for path in left], code)
            left = [str(end.path) for end in ended if end.code == EXIT_STOPPED]
            for end in ended:
                if end.code not in (0, EXIT_BUSY, EXIT_STOPPED):
                    failed.append(str(end.path))
                    if process_rank.rank() == 0:
                        _record(RunDirectory(end.path), end.code)
        if code == EXIT_NO_SPACE:  # the code is all that surely arrives: it needs no room
            raise SystemExit(code)
        if failed:
            raise WorkerFailedError(f"{', '.join(failed)}: failed; see log.txt there")
        return "done"

    def checkpoint(self) -> DelayedSubmission:
        """What the job does when it comes again: the same; the run directories know the rest."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _give_up_if_stuck(self, left: Sequence[str], seconds: float) -> None:
        """End with an error where two jobs of full length got nowhere: so would a third.

        Raises:
            WorkerFailedError: it is so; it stands in run.json, too.
        """
        from keyseg.runs.run_directory import FAILED, RunDirectory, exit_code
        from keyseg.sweep.supervise import close_attempt

        run = next((run for run in map(RunDirectory, left) if exit_code(run) is None), None)
        if run is None or process_rank.rank() or seconds < 60 * self.minutes / 2 or not stuck(run):
            return
        step, batches = run.info["attempts"][-1]["reached"]
        where = f"{batches} batches of the test split" if batches else f"step {step}"
        reason = (
            f"two jobs of {self.minutes} min got no further than {where}: "
            f"hydra.launcher.time={self.minutes} is too short to load and go on"
        )
        close_attempt(run, reason, status=FAILED, error=reason)
        raise WorkerFailedError(f"{run.path}: {reason}")

    def _start(self, paths: Sequence[str]) -> subprocess.Popen[bytes]:
        """A worker on these runs."""
        name = "log.txt" if process_rank.rank() == 0 else f"log.{process_rank.rank()}.txt"
        with (Path(paths[0]) / name).open("ab") as log:
            return subprocess.Popen(
                [*self.worker, *paths],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**worker_environment(self.threads), **process_rank.from_srun()},
                preexec_fn=_ignore_signals,
            )


@dataclass(frozen=True)
class CommandJob:
    """Commands one after the other: what a sweep needs once, before or after its cells."""

    commands: Sequence[Sequence[str]]
    threads: int

    def __call__(self) -> None:
        """Run all of them.

        Raises:
            WorkerFailedError: one failed; the others ran all the same.
        """
        environment = worker_environment(self.threads)
        codes = [subprocess.run(c, env=environment, check=False).returncode for c in self.commands]
        failed = [shlex.join(c) for c, code in zip(self.commands, codes, strict=True) if code]
        if failed:
            raise WorkerFailedError(f"failed: {'; '.join(failed)}")

    def checkpoint(self) -> DelayedSubmission:
        """What the job does when it comes again: the same; commands find what is done already."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def stuck(run: RunDirectory) -> bool:
    """Whether the last two attempts of a run were stopped where the one before them was."""
    reached = [attempt.get("reached") for attempt in run.info.get("attempts") or []]
    before = reached[-3] if len(reached) > 2 else [0, 0]
    return len(reached) > 1 and reached[-1] is not None and reached[-2:] == [before, before]


class _StopSignal:
    """A handler that remembers whether the signal came."""

    def __init__(self) -> None:
        self.to_stop = False

    def __call__(self, number: int, frame: object) -> None:
        self.to_stop = True


def _wait(process: subprocess.Popen[bytes], stop_signal: _StopSignal) -> int:
    """The exit code of a worker, which is told to stop when we are."""
    reminded = 0.0
    while (code := process.poll()) is None:
        # Again and again: a worker that still loads its libraries does not listen yet.
        if stop_signal.to_stop and time.monotonic() - reminded > _REMIND:
            process.send_signal(signal.SIGUSR2)
            reminded = time.monotonic()
        time.sleep(_TICK)
    return code


def _record(run: RunDirectory, code: int) -> None:
    """Why a run ended, where its worker could not say so."""
    from keyseg.runs.run_directory import DONE, FAILED, PRUNED, RunBusy, exit_code
    from keyseg.sweep.supervise import close_attempt, reason_of

    if run.status not in (DONE, PRUNED) and (exit_code(run) is None or code < 0):
        with suppress(RunBusy, DiskFullError), run.lock():
            reason = reason_of(run, code)
            close_attempt(run, reason, status=FAILED, error=reason)


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
