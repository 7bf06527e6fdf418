"""The pool on a cluster: one job array per submission, through submitit.

Run directories say how a run ended, SLURM says only whether somebody still works on it: a pickle
or an accounting database that is missing loses nothing. Each run directory has a `job.json` with
the submission that it belongs to, written before sbatch is called, so that whoever comes later
finds the job instead of submitting a second one.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keyseg import disk, snapshot, sweepdir
from keyseg.config import PROJECT, ROOT, ConfigError
from keyseg.rundir import DONE, EXIT_NO_SPACE, FAILED, PRUNED, RunDirectory, now
from keyseg.sweep import slurmqueue
from keyseg.sweep.job import CellJob
from keyseg.sweep.slurmqueue import ENDED, LOST, WAITING, Job, Key, SlurmError
from keyseg.sweep.supervise import NO_SPACE, last_lines
from keyseg.sweep.workers import WORKER, Ended

MAX_ARRAY = 1000
"""Jobs of one array: SLURM's default for MaxArraySize is 1001."""

_OUT_OF_MEMORY = re.compile(r"exceeded (job )?memory limit|oom.?kill", re.IGNORECASE)
"""In what slurmstepd writes into a job's log; the job's state often is FAILED or CANCELLED only."""

_KILLED = re.compile(r"task \d+: Killed")
"""What srun writes; accounting, which has the signal, may be late or missing."""

_CUT_OFF = "could not find submitted jobs"
"""In what submitit says when sbatch had the job, and the one who called it died before the rest."""

_LATE = 2.0
"""Seconds that the end of a run, or sacct's word on it, may come after the end of its job."""

_NEVER_TOO_OFTEN = 10**6
"""Submitit gives up after so many time limits, and counts every short job's end as one."""

_TRANSIENT = ("unable to contact", "timed out", "timeout", "connection refused", "not responding")
"""In what sbatch says when it may be asked again: the controller is down or busy."""


@dataclass
class SlurmOptions:
    """What one job asks SLURM for; null = the cluster's default.

    `time`: minutes; a cell that needs longer goes on in the next job. `memory`: like 16G.
    `gpus`: of one job. `array_parallelism`: jobs of a sweep at the same time. `setup`: shell lines
    before the worker starts (module load ...). `sbatch`: other options, as {mail-type: END}.
    `srun`: arguments of srun. `signal_delay`: seconds before the end at which a job is told to
    write its checkpoint. `max_attempts`: of a cell whose node was lost; errors in the code are
    not tried again. `poll`: seconds between two questions to SLURM.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int | None = None
    cpus_per_task: int = 2
    memory: str | None = None
    time: int = 240
    array_parallelism: int = 64
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    srun: list[str] = field(default_factory=list)
    signal_delay: int = 120
    max_attempts: int = 3
    poll: float = 2.0


def check(options: SlurmOptions) -> None:
    """Whether the numbers make sense.

    Raises:
        ConfigError: one does not; names the key.
    """
    for name in ("cpus_per_task", "time", "array_parallelism", "max_attempts", "poll"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"hydra.launcher.{name}={getattr(options, name)}: must be above 0")
    if options.signal_delay >= 60 * options.time:
        raise ConfigError(
            f"hydra.launcher.signal_delay={options.signal_delay} s leaves nothing of "
            f"hydra.launcher.time={options.time} min"
        )


def parameters(options: SlurmOptions, name: str, code: Path) -> dict[str, Any]:
    """The options as submitit's executor takes them. `code`: the snapshot that jobs run."""
    setup = [
        *options.setup,
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # the folder of the submission is no place to import from",
        f"export {ROOT}={shlex.quote(os.environ.get(ROOT) or str(PROJECT))}",
    ]
    asked = {
        "job_name": name,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus_per_task,
        "mem": options.memory,
        "time": options.time,
        "array_parallelism": options.array_parallelism,
        "signal_delay_s": options.signal_delay,
        "setup": setup,
        # srun does not take it over from sbatch since SLURM 22.05
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}", *options.srun],
        "additional_parameters": {"requeue": True, **options.sbatch},
    }
    return {key: value for key, value in asked.items() if value is not None}


def script(options: SlurmOptions, name: str, code: Path, folder: Path, count: int) -> str:
    """The text that sbatch would be given for `count` cells."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = (
        f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    )
    array = count if count > 1 else None  # submitit makes no array of one
    text: str = _make_sbatch_string(
        command=command, folder=folder, map_count=array, **parameters(options, name, code)
    )
    return text


Submit = Callable[[str, Sequence[CellJob]], None]
"""Submits jobs as one array under a name."""


class Sbatch:
    """Submissions through submitit. `sweep_dir`: where its files go, on a shared file system."""

    def __init__(self, options: SlurmOptions, sweep_dir: Path) -> None:
        self.options = options
        self.sweep_dir = sweep_dir

    def __call__(self, name: str, jobs: Sequence[CellJob]) -> None:
        """Submit.

        Raises:
            SlurmError: SLURM does not answer now. ConfigError: it refuses the job.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        code = snapshot.take(code_folder(self.sweep_dir))
        try:
            executor = SlurmExecutor(job_folder(self.sweep_dir, name), _NEVER_TOO_OFTEN)
            executor.update_parameters(**parameters(self.options, name, code))
            with redirect_stderr(io.StringIO()):  # what sbatch says is in the error, too
                executor.submit_array(jobs)
        except (FailedJobError, FailedSubmissionError, OSError, RuntimeError) as error:
            said = _sbatch_said(str(error))
            if any(text in str(error).lower() for text in _TRANSIENT):
                raise SlurmError(said) from error
            raise ConfigError(
                f"sbatch refuses the job: {said} (hydra.launcher.partition, account, qos, "
                "constraint, gpus, memory, time; --dry shows the script)"
            ) from error


def code_folder(sweep_dir: Path) -> Path:
    """Where snapshots of the code are kept: one place for all sweeps."""
    return sweep_dir.parent / ".code"


def job_folder(sweep_dir: Path, name: str) -> Path:
    """Submitit's files of one submission. A folder is never used twice (ids may be)."""
    return sweep_dir / ".slurm" / name


@dataclass(frozen=True)
class Record:
    """job.json: the submission a run belongs to, and its place in it."""

    name: str
    index: int
    submitted: float

    @property
    def key(self) -> Key:
        """What SLURM is asked for."""
        return (self.name, self.index)

    @classmethod
    def read(cls, run: RunDirectory) -> Record | None:
        """The record of a run; None where it was never submitted."""
        try:
            return cls(**json.loads((run.path / "job.json").read_bytes()))
        except FileNotFoundError:
            return None

    def write(self, run: RunDirectory) -> None:
        """Replace job.json."""
        disk.replace(run.path / "job.json", json.dumps(asdict(self)).encode())


class SlurmPool:
    """Runs as jobs of SLURM; a pool that ends leaves its jobs alone.

    `say` is told what the user should know (SLURM does not answer, a job was lost).
    """

    def __init__(
        self,
        submit: Submit,
        sweep_dir: Path,
        *,
        slots: int,
        threads: int,
        worker: Sequence[str] = WORKER,
        every: float = 2.0,
        look: Callable[[set[str]], Mapping[Key, Job]] = slurmqueue.look,
        cancel: Callable[[list[str]], None] = slurmqueue.cancel,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.slots = slots
        self.threads = threads
        self.worker = list(worker)
        self.every = every
        self._submit = submit
        self._sweep_dir = sweep_dir
        self._look = look
        self._cancel = cancel
        self._clock = clock
        self._say = say
        self._asked: list[tuple[RunDirectory, int]] = []
        self._jobs: dict[Path, Record] = {}
        self._seen: Mapping[Key, Job] = {}
        self._gone: dict[Path, float] = {}
        self._next_look = -1.0
        self._trouble: str | None = None

    def free(self) -> int:
        """How many more runs can be started now."""
        return MAX_ARRAY - len(self._asked)

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Take a run in; all that were taken in are submitted together by the next `poll`."""
        self._asked.append((run, threads or self.threads))

    def waiting(self) -> set[Path]:
        """Runs that wait for a machine."""
        asked = {run.path for run, _ in self._asked}
        return asked | {
            path
            for path, record in self._jobs.items()
            if (job := self._seen.get(record.key)) is None or job.state in WAITING
        }

    def poll(self) -> list[Ended]:
        """Submit what waits; runs whose job ended since the last call.

        Raises:
            ConfigError: sbatch refuses a job.
        """
        if self._clock() < self._next_look:
            return []
        try:
            if self._asked:
                self._submit_all()
            self._seen = self._look({record.name for record in self._jobs.values()})
            answered = True
            if self._trouble:
                self._say("SLURM answers again")
                self._trouble = None
        except SlurmError as error:
            answered = False
            if self._trouble is None:
                self._say(f"SLURM does not answer ({error}); jobs go on, and it is asked again")
            self._trouble = str(error)
        self._next_look = self._clock() + self.every
        ended = []
        for path, record in list(self._jobs.items()):
            end = self._ended(RunDirectory(path), record, answered)
            if end is not None:
                del self._jobs[path]
                self._gone.pop(path, None)
                ended.append(end)
        return ended

    def stop(self) -> list[Path]:
        """Let go of all jobs: they go on without us. No run is left unfinished by that."""
        self._asked.clear()
        self._jobs.clear()
        return []

    def submit_now(self) -> None:
        """Submit what waits, for a launching process that does not stay.

        Raises:
            SlurmError: SLURM does not answer. ConfigError: sbatch refuses a job.
        """
        if self._asked:
            self._submit_all()

    @property
    def submitted(self) -> int:
        """Jobs that we know of."""
        return len(self._jobs)

    # -- inside -----------------------------------------------------------------------------

    def _submit_all(self) -> None:
        """One array for all runs that have no job yet; no other process does so meanwhile."""
        with sweepdir.lock(self._sweep_dir, "submit"), _no_interruption():
            known = {run.path: Record.read(run) for run, _ in self._asked}
            alive = self._look({record.name for record in known.values() if record})
            fresh = []
            for run, threads in self._asked:
                record = known[run.path]
                job = alive.get(record.key) if record else None
                if record and ((job and job.state not in ENDED) or run.busy):
                    self._jobs[run.path] = record
                else:
                    fresh.append((run, threads))
            if fresh:
                name = f"{self._sweep_dir.name}-{secrets.token_hex(3)}"
                records = {run.path: Record(name, i, now()) for i, (run, _) in enumerate(fresh)}
                jobs = []
                for run, threads in fresh:
                    records[run.path].write(run)
                    jobs.append(CellJob(str(run.path.absolute()), self.worker, threads))
                try:
                    self._submit(name, jobs)
                except SlurmError:
                    # It may have arrived all the same; its files then have not been put in place.
                    with suppress(SlurmError):
                        self._cancel([name])
                    raise
                self._jobs |= records
            self._asked.clear()

    def _ended(self, run: RunDirectory, record: Record, answered: bool) -> Ended | None:
        """How a run ended; None while somebody works on it, will do so, or may do so."""
        if run.busy:
            return None
        info = run.info
        if info.get("status") in (DONE, PRUNED):
            return Ended(run.path, 0)
        if info.get("status") == FAILED and info.get("error"):  # cleared before it was submitted
            return Ended(run.path, 1)
        job = self._seen.get(record.key)
        if not answered or (job is not None and job.state not in ENDED):
            self._gone.pop(run.path, None)
            return None
        # A shared file system may show the end of a run later than SLURM shows the end of its job.
        since = self._gone.setdefault(run.path, self._clock())
        if self._clock() - since < max(2 * self.every, _LATE):
            return None
        reason, lost = why(job, log_end(self._sweep_dir, record))
        return Ended(run.path, 1, reason=reason, lost=lost)


def why(job: Job | None, log: str = "") -> tuple[str, bool]:
    """Why a job ended without its run being done, in words; whether the cell may try again.

    `log`: the last lines that the job, not its worker, wrote.
    """
    if job is None:
        return "the job is gone: neither squeue nor sacct knows it", True
    where = f"job {job.id}" + (f" on {job.node}" if job.node else "")
    code, _, number = job.exit_code.partition(":")
    if job.state == "OUT_OF_MEMORY" or _OUT_OF_MEMORY.search(log):
        return f"{where} ran out of memory (hydra.launcher.memory=...)", False
    if job.state == "CANCELLED":
        by = f" ({job.reason.lower()})" if "by" in job.reason else ""
        return f"{where} was cancelled{by}", False
    if job.state in LOST:
        return f"{where} was lost ({job.state})", True
    if _CUT_OFF in log:
        return f"{where} found no work: who submitted it was killed while doing so", True
    if code == str(EXIT_NO_SPACE):
        return f"{where} ended: {NO_SPACE}", False
    if number not in ("", "0") or code in ("137", "9") or _KILLED.search(log):
        name = _signal_name(number if number not in ("", "0") else "9")
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"{where} was killed by {name}{hint}", False
    last = f": {log.splitlines()[-1]}" if log else ""
    return f"{where} ended as {job.state} before the run was done{last}", False


def log_end(sweep_dir: Path, record: Record, count: int = 10) -> str:
    """The last lines that a job wrote itself (what its worker printed is in the run's log.txt)."""
    folder = job_folder(sweep_dir, record.name)
    files = [*folder.glob(f"*_{record.index}_0_log.err"), *folder.glob("[0-9]*_0_log.err")]
    return last_lines(files[0], count) if files else ""


def _signal_name(number: str) -> str:
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return f"signal {number}"


def _sbatch_said(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line]
    return (told or lines or ["no reason given"])[-1].removeprefix("sbatch: error: ")


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Ctrl-C in the body comes after it: a submission is whole or not there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late: list[tuple[int, Any]] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, lambda *got: late.append(got)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if late:
            raise KeyboardInterrupt
