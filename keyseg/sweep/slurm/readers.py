"""Finished runs that jobs read on other data (`keyseg evaluate`): one array, a few runs a job.

A run's `evaluations/job.json` names the job that it was given, so that whoever comes later waits
for it instead of submitting another.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from keyseg.config import ConfigError
from keyseg.runs import disk, sweep_directory
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.pool import Ended
from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.job import CommandJob
from keyseg.sweep.slurm.pool import Submission, log_end, why
from keyseg.sweep.slurm.queue import ENDED, Job, Jobs, Key, SlurmError
from keyseg.sweep.slurm.sbatch import Sbatch

_LATE = 4.0
"""Seconds for which a job may be unknown to SLURM before it is taken for gone."""


class SlurmReaders:
    """A pool whose jobs outlive it: `stop` lets go of them.

    `command`: reads the runs whose directories are added to it.
    """

    def __init__(
        self,
        sbatch: Sbatch,
        command: Sequence[str],
        *,
        look: Callable[[set[str]], Mapping[Key, Job]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sbatch, self.command = sbatch, list(command)
        self._look = look or queue.JobLookup()
        self._clock = clock
        self._asked: list[RunDirectory] = []
        self._jobs: dict[Path, Key] = {}
        self._unknown: dict[Path, float] = {}
        self._next_look = 0.0

    def free(self) -> int:
        """As many as anybody has: they wait in SLURM's queue."""
        return 1 + len(self._asked)

    def start(self, run: RunDirectory) -> None:
        """Take a run in; all that were taken in are submitted together by the next `poll`."""
        self._asked.append(run)

    def poll(self) -> list[Ended]:
        """Submit what waits; runs whose job ended since the last call.

        Raises:
            ConfigError: SLURM does not answer and runs are still to be submitted, or it refuses.
        """
        if self._asked:
            try:
                self._submit()
            except SlurmError as error:
                raise ConfigError(f"SLURM does not answer ({error}); try again later") from error
        moment = self._clock()
        if not self._jobs or moment < self._next_look:
            return []
        self._next_look = moment + self.sbatch.options.poll
        try:
            seen = Jobs(self._look({name for name, _ in self._jobs.values()}))
        except SlurmError:  # jobs go on, and it is asked again
            return []
        return [
            end for path, key in list(self._jobs.items()) if (end := self._end(path, key, seen))
        ]

    def stop(self) -> list[Path]:
        """Let go of all jobs; the runs that they read."""
        left = list(self._jobs)
        self._jobs.clear()
        return left

    def _end(self, path: Path, key: Key, seen: Jobs) -> Ended | None:
        job = seen.of(key, begun=False)
        if job is None:
            since = self._unknown.setdefault(path, self._clock())
            if self._clock() - since < _LATE:
                return None
        elif job.state not in ENDED:
            self._unknown.pop(path, None)
            return None
        del self._jobs[path]
        if job is None or job.state == "COMPLETED":  # its results say what became of it
            return Ended(path, 0)
        log = log_end(self.sbatch.sweep_dir, Submission(*key, 0.0))
        return Ended(path, 1, reason=why(job, log, full=disk.is_full(path))[0])

    def _submit(self) -> None:
        """One array for the runs that no job reads yet."""
        with sweep_directory.lock(self.sbatch.sweep_dir.parent, "submit"):
            given = {run.path: job_of(run) for run in self._asked}
            alive = Jobs(self._look({key[0] for key in given.values() if key}))
            fresh = []
            for run in self._asked:
                key = given[run.path]
                if key and (job := alive.of(key, begun=False)) and job.state not in ENDED:
                    self._jobs[run.path] = key
                else:
                    fresh.append(run)
            size = self.sbatch.options.cells_per_job
            together = [fresh[at : at + size] for at in range(0, len(fresh), size)]
            most = queue.max_array()
            for first in range(0, len(together), most):
                self._submit_array(together[first : first + most])
            self._asked = []

    def _submit_array(self, together: Sequence[Sequence[RunDirectory]]) -> None:
        name = f"{self.sbatch.sweep_dir.name}-{secrets.token_hex(3)}-read"
        paths = [[str(run.path.absolute()) for run in runs] for runs in together]
        threads = self.sbatch.options.threads
        self.sbatch(name, [CommandJob([[*self.command, *each]], threads) for each in paths])
        for index, runs in enumerate(together):
            for run in runs:
                run.evaluations.mkdir(exist_ok=True)
                disk.replace(run.evaluations / "job.json", json.dumps([name, index]).encode())
                self._jobs[run.path] = (name, index)


def job_of(run: RunDirectory) -> Key | None:
    """The job that a run was given last; None where it never had one."""
    try:
        name, index = json.loads((run.evaluations / "job.json").read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return str(name), int(index)
