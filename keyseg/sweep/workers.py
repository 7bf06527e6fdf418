"""The pool on this machine: one worker process per cell, with its share of cores and GPUs.

Workers are in sessions of their own, so that Ctrl-C reaches the launching process only, which then
asks them to stop; and so that they outlive a launching process that is killed without a word (the
same command, given again, finds them at work and waits for them).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keyseg.config import PROJECT, ConfigError
from keyseg.rundir import RunDirectory

WORKER = (sys.executable, "-m", "keyseg.cell")
"""The command of a worker; the run directory is added to it."""


# glibc returns large blocks to the system at once and asks for them again at once; with these it
# keeps them, which takes a good part off the time of a step on the CPU.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}


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

    `slots`: how many at the same time. `threads`: the share of each.
    """

    slots: int
    threads: int

    def free(self) -> int:
        """How many more runs can be started now."""

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Begin to work on a run; `threads`: other than the pool's own share."""

    def waiting(self) -> set[Path]:
        """Runs that were started and still wait for a machine."""

    def poll(self) -> list[Ended]:
        """Workers that ended since the last call; returns at once."""

    def stop(self) -> list[Path]:
        """End all workers, gently first; their run directories."""


class LocalPool:
    """At most `slots` worker processes at a time."""

    def __init__(
        self,
        slots: int,
        threads: int,
        *,
        worker: Sequence[str] = WORKER,
        gpus: Sequence[str] = (),
        grace: float = 30.0,
    ) -> None:
        self.slots = slots
        self.threads = threads
        self.worker = list(worker)
        self.gpus = list(gpus)
        self.grace = grace
        self._at_work: dict[int, tuple[Path, subprocess.Popen[bytes]]] = {}
        if shutil.which(self.worker[0]) is None:
            raise ConfigError(f"hydra.launcher.worker: there is no program {self.worker[0]}")

    def free(self) -> int:
        """How many more runs can be started now."""
        return self.slots - len(self._at_work)

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Start a worker; what it prints goes to the run's log file."""
        slot = next(i for i in range(self.slots) if i not in self._at_work)
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        with run.log_file.open("ab") as log:
            process = subprocess.Popen(
                [*self.worker, str(run.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment(threads or self.threads, gpu),
                start_new_session=True,
            )
        self._at_work[slot] = (run.path, process)

    def waiting(self) -> set[Path]:
        """None: a worker starts at once."""
        return set()

    def poll(self) -> list[Ended]:
        """Workers that ended since the last call; returns at once."""
        ended = []
        for slot, (path, process) in list(self._at_work.items()):
            code = process.poll()
            if code is not None:
                del self._at_work[slot]
                ended.append(Ended(path, _as_signal(code)))
        return ended

    def stop(self) -> list[Path]:
        """SIGTERM to all workers, SIGKILL to those that are still there after the grace period."""
        paths = [path for path, _ in self._at_work.values()]
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self.grace
        try:
            while self._at_work and time.monotonic() < deadline:
                self.poll()
                time.sleep(0.05)
        finally:  # a second Ctrl-C does not wait
            self._signal(signal.SIGKILL)
            for _, process in self._at_work.values():
                process.wait()
            self._at_work.clear()
        return paths

    def _signal(self, number: signal.Signals) -> None:
        for _, process in self._at_work.values():
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue


def worker_environment(threads: int, gpu: str | None = None) -> dict[str, str]:
    """This process's environment with the share of one worker in it."""
    share = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **share, **MALLOC, "KEYSEG_THREADS": str(threads)}
    environment["PYTHONUNBUFFERED"] = "1"
    # The worker runs this checkout's code, also where another one is installed.
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


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


def _as_signal(code: int) -> int:
    """A shell between us and the worker reports signal 9 as 137."""
    return -(code - 128) if 128 < code <= 128 + 64 else code
