"""The pool on this machine: worker processes, each with some of the cores and GPUs.

A worker takes one cell, or several that it works on one after the other (`cells_per_job`).

Workers are in sessions of their own, so that Ctrl-C reaches the launching process only, which then
asks them to stop; and so that they outlive a launching process that is killed without a word (the
same command, given again, finds them at work and waits for them).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyseg.config import ConfigError
from keyseg.runs.environment import worker_environment
from keyseg.runs.run_directory import RunDirectory, exit_code
from keyseg.sweep.pool import WORKER, Ended, as_signal, job_ends, same_threads


@dataclass
class _Worker:
    """A process and the runs that it has not ended yet, in order."""

    process: subprocess.Popen[bytes]
    paths: list[Path]


class LocalPool:
    """At most `slots` worker processes at a time, each with up to `cells_per_job` runs."""

    def __init__(
        self,
        slots: int,
        threads: int,
        *,
        worker: Sequence[str] = WORKER,
        gpus: Sequence[str] = (),
        grace: float = 30.0,
        cells_per_job: int = 1,
    ) -> None:
        self.slots = slots
        self.threads = threads
        self.worker = list(worker)
        self.gpus = list(gpus)
        self.grace = grace
        self.cells_per_job = cells_per_job
        self._asked: list[tuple[Path, int]] = []
        self._at_work: dict[int, _Worker] = {}
        if shutil.which(self.worker[0]) is None:
            raise ConfigError(f"hydra.launcher.worker: there is no program {self.worker[0]}")

    def free(self) -> int:
        """How many more runs can be started now."""
        return (self.slots - len(self._at_work)) * self.cells_per_job - len(self._asked)

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Start a worker; one for several runs starts with the next `poll`, when they are known."""
        self._asked.append((run.path, threads or self.threads))
        if self.cells_per_job == 1:
            self._start_workers()

    def waiting(self) -> set[Path]:
        """Runs that were taken in and wait for those before them."""
        behind = [path for worker in self._at_work.values() for path in worker.paths[1:]]
        return {path for path, _ in self._asked} | set(behind)

    def poll(self) -> list[Ended]:
        """Start what waits; workers and runs that ended since the last call; returns at once."""
        if self._asked:
            self._start_workers()
        ended = []
        for slot, worker in list(self._at_work.items()):
            code = worker.process.poll()
            if code is not None:
                del self._at_work[slot]
                ended += job_ends(worker.paths, as_signal(code))
                continue
            while len(worker.paths) > 1:
                run = RunDirectory(worker.paths[0])
                recorded = exit_code(run)
                if recorded is None or run.busy:
                    break
                ended.append(Ended(worker.paths.pop(0), recorded))
        return ended

    def stop(self) -> list[Path]:
        """SIGTERM to all workers, SIGKILL to those that are still there after the grace period."""
        paths = [path for worker in self._at_work.values() for path in worker.paths]
        self._asked.clear()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self.grace
        try:
            while self._at_work and time.monotonic() < deadline:
                self.poll()
                time.sleep(0.05)
        finally:  # a second Ctrl-C does not wait
            self._signal(signal.SIGKILL)
            for worker in self._at_work.values():
                worker.process.wait()
            self._at_work.clear()
        return paths

    def _start_workers(self) -> None:
        """Spread the runs that wait over the workers that are free."""
        free = [slot for slot in range(self.slots) if slot not in self._at_work]
        while self._asked:
            # Spread evenly: 6 runs for 2 workers are 3 and 3, not 4 and 2.
            count = min(self.cells_per_job, -(-len(self._asked) // len(free)))
            taken = same_threads(self._asked[:count], count)[0]
            self._asked = self._asked[len(taken) :]
            self._start(free.pop(0), [path for path, _ in taken], taken[0][1])
            if not free:
                break

    def _start(self, slot: int, paths: list[Path], threads: int) -> None:
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        # What it prints before the first of several runs begins goes to the log of that.
        with RunDirectory(paths[0]).log_file.open("ab") as log:
            process = subprocess.Popen(
                [*self.worker, *map(str, paths)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment(threads, gpu),
                start_new_session=True,
            )
        self._at_work[slot] = _Worker(process, paths)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._at_work.values():
            try:
                os.killpg(worker.process.pid, number)
            except ProcessLookupError:
                continue


def gpus(device: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """GPUs that cells may be spread over, as CUDA_VISIBLE_DEVICES names them; torch not needed."""
    if device == "cpu":
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(i) for i in range(count)]
