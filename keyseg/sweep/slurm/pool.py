"""The pool on a cluster: one job array per submission, through submitit.

Run directories say how a run ended, SLURM says only whether somebody still works on it: a pickle
or an accounting database that is missing loses nothing. Each run directory has a `job.json` with
the submission that it belongs to, written before sbatch is called, so that whoever comes later
finds the job instead of submitting a second one.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError
from keyseg.runs import disk, sweep_directory
from keyseg.runs.run_directory import (
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    RunDirectory,
    exit_code,
    now,
)
from keyseg.sweep.pool import WORKER, Ended, same_threads
from keyseg.sweep.slurm import queue, reasons
from keyseg.sweep.slurm.job import CellJob
from keyseg.sweep.slurm.nodes import Nodes
from keyseg.sweep.slurm.queue import ENDED, LOST_STATES, WAITING, Job, Jobs, Key, SlurmError
from keyseg.sweep.slurm.sbatch import SubmitLimit, job_folder
from keyseg.sweep.supervise import NO_SPACE, last_lines

_NO_END = 10**9
"""More cells than anybody has."""

_OUT_OF_MEMORY = re.compile(r"exceeded (job )?memory limit|oom.?kill", re.IGNORECASE)
"""In what slurmstepd writes into a job's log; the job's state often is FAILED or CANCELLED only."""

_KILLED = re.compile(r"task \d+: Killed")
"""What srun writes; accounting, which has the signal, may be late or missing."""

_CUT_OFF = "could not find submitted jobs"
"""In what submitit says when sbatch had the job, and the one who called it died before the rest."""

_NO_PYTHON = re.compile(
    r"execve\(\): (?P<file>\S+): No such file|"
    r"line \d+: (?:exec: )?(?P<name>[^:\s]*(?:python|apptainer|singularity)[^:]*): "
    r"(?:cannot execute: )?(?:not found|No such file|command not found)"
)
"""What slurmstepd, or bash, writes where the program of a job is not there."""

_NO_OUTPUT = "53"
"""The "signal" of a job whose files SLURM could not open."""

_LATE, _TRY_AGAIN = 2.0, 60.0
"""Seconds that the end of a run, or sacct's word on it, may come after the end of its job; and
until jobs that were too many are offered again."""

_SOON, _ROUND = 0.2, 10.0
"""Seconds between two looks at run directories, and at those of cells that wait."""

Submit = Callable[[str, Sequence[CellJob]], None]
"""Submits jobs as one array under a name."""


@dataclass(frozen=True)
class Submission:
    """job.json: the submission a run belongs to, and the place of its job in that.

    `attempts`: how many the run had before it was submitted.
    """

    name: str
    index: int
    submitted: float
    attempts: int = 0

    @property
    def key(self) -> Key:
        """What SLURM is asked for."""
        return (self.name, self.index)

    def begun(self, run: RunDirectory) -> bool:
        """Whether the run was begun since it was submitted."""
        return len(run.info.get("attempts") or []) > self.attempts

    def job(self, jobs: Jobs, run: RunDirectory) -> Job | None:
        """Its job among those that SLURM knows; None where it knows nothing of it."""
        job = jobs.get(self.key) or jobs.of(self.key, begun=self.begun(run))
        if job is None and cancelled_marker(run.path.parent, self.name).exists():
            return Job("", "CANCELLED", reason="CANCELLED by `keyseg cancel`")
        return job

    @classmethod
    def read(cls, run: RunDirectory) -> Submission | None:
        """The record of a run; None where it was never submitted."""
        try:
            return cls(**json.loads((run.path / "job.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):  # none, or one that cannot be read
            return None

    def write(self, run: RunDirectory) -> None:
        """Replace job.json."""
        disk.replace(run.path / "job.json", json.dumps(asdict(self)).encode())


class SlurmPool:
    """Runs as jobs of SLURM; a pool that ends leaves its jobs alone.

    A job works on up to `cells_per_job` runs, one after the other, for at most `minutes` (0 = not
    known), and then comes back for what is left. `say` is told what the user
    should know (SLURM does not answer, a job was lost).
    """

    def __init__(
        self,
        submit: Submit,
        sweep_dir: Path,
        *,
        slots: int,
        threads: int,
        worker: Sequence[str] = WORKER,
        cells_per_job: int = 1,
        minutes: int = 0,
        every: float = 2.0,
        look: Callable[[set[str]], Mapping[Key, Job]] | None = None,
        cancel: Callable[[list[str]], None] = queue.cancel,
        avoid: Callable[[list[str], str], None] = queue.avoid,
        max_array: Callable[[], int] = queue.max_array,
        nodes: Nodes | None = None,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.slots = slots
        self.threads = threads
        self.worker = list(worker)
        self.cells_per_job = cells_per_job
        self.minutes = minutes
        self.every = every
        self._submit = submit
        self._sweep_dir = sweep_dir
        self._look = look or queue.JobLookup()
        self._cancel = cancel
        self._avoid = avoid
        self._max_array = max_array
        self.nodes = nodes
        self._clock = clock
        self._say = say
        self._asked: list[tuple[RunDirectory, int]] = []
        self._jobs: dict[Path, Submission] = {}
        self._mates: dict[Key, set[Path]] = {}
        """All runs of a job that we have seen, those that have ended, too."""
        self._seen = Jobs()
        self._gone: dict[Path, float] = {}
        self._unended: dict[Path, tuple[int, int]] = {}
        """What run.json was when it was last seen to say nothing of an end."""
        self._answered = False
        self._next_look = self._next_read = self._next_round = -1.0
        self._trouble: str | None = None
        self._most: int | None = None
        """Jobs that SLURM was seen to take in one array."""
        self._full_until = -1.0
        self._said: set[str] = set()

    def free(self) -> int:
        """How many more runs can be started now."""
        return _NO_END

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Take a run in; all that were taken in are submitted together by the next `poll`."""
        self._asked.append((run, threads or self.threads))
        self._next_look = min(self._next_look, self._clock())

    def waiting(self) -> set[Path]:
        """Runs that wait for a machine."""
        asked = {run.path for run, _ in self._asked}
        return asked | {
            path
            for path, record in self._jobs.items()
            if (job := record.job(self._seen, RunDirectory(path))) is None
            or job.state in WAITING
            or (len(self._mates[record.key]) > 1 and not record.begun(RunDirectory(path)))
        }

    def poll(self) -> list[Ended]:
        """Submit what waits; runs whose job ended since the last call.

        Raises:
            ConfigError: sbatch refuses a job.
        """
        moment = self._clock()
        if moment >= self._next_look:
            self._ask()
        elif moment < self._next_read:
            return []
        every = moment >= self._next_round
        if every:
            self._next_round = moment + _ROUND
        ended = []
        for path, record in list(self._jobs.items()):
            if self._goes_on(path, record, waiting=every):
                continue
            end = self._ended(RunDirectory(path), record)
            if end is not None:
                del self._jobs[path]
                self._gone.pop(path, None)
                self._full_until = -1.0
                ended.append(end)
                self._note_node(RunDirectory(path), record, end)
        # Ends are seen soon, but a slow file system is not asked all the time.
        self._next_read = moment + max(_SOON, 10 * (self._clock() - moment))
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
        """Runs that have a job."""
        return len(self._jobs)

    def arrays(self) -> dict[str, str]:
        """Names of our submissions that are queued or at work, and SLURM's ids of them.

        Raises:
            SlurmError: SLURM does not answer.
        """
        jobs = self._look({name for name, _ in self._mates})
        alive = [(name, job) for (name, _), job in jobs.items() if job.state not in ENDED]
        return {name: job.id.partition("_")[0] for name, job in alive}

    # -- inside -----------------------------------------------------------------------------

    def _ask(self) -> None:
        """Submit what waits, and ask SLURM for the jobs.

        Raises:
            ConfigError: sbatch refuses a job.
        """
        try:
            if self._asked and self._clock() >= self._full_until:
                self._submit_all()
            names = {record.name for record in self._jobs.values()}
            self._seen = Jobs(self._look(names | self._helpers(names)))
            self._answered = True
            if self._trouble:
                self._say("SLURM answers again")
                self._trouble = None
            self._say_why_they_wait()
            self._say_what_was_not_prepared(names)
        except SlurmError as error:
            self._answered = False
            if self._trouble is None:
                self._say(f"SLURM does not answer ({error}); jobs go on, and it is asked again")
            self._trouble = str(error)
        self._next_look = self._clock() + self.every

    def _submit_all(self) -> None:
        """One array for all runs that have no job yet; no other process does so meanwhile."""
        # of all sweeps: a cell may be a link to that of another
        with sweep_directory.lock(self._sweep_dir.parent, "submit"), _no_interruption():
            known = {run.path: Submission.read(run) for run, _ in self._asked}
            alive = Jobs(self._look({record.name for record in known.values() if record}))
            fresh = []
            for run, threads in self._asked:
                record = known[run.path]
                job = record.job(alive, run) if record else None
                alive_job = job is not None and job.state not in ENDED
                # A job of several goes on behind a run that failed, and does not come back to it.
                passed = record is not None and record.begun(run) and run.status == FAILED
                if record and ((alive_job and not passed) or run.busy):
                    self._follow(run, record)
                else:
                    fresh.append((run, threads))
            self._asked = fresh
            self._submit_fresh()

    def _submit_fresh(self) -> None:
        """Arrays for the runs that were asked for, as many and as large as SLURM takes.

        Raises:
            ConfigError: sbatch refuses the first.
        """
        while self._asked:
            most = min(self._most or self._max_array(), self._max_array())
            batch = same_threads(self._asked, self.cells_per_job)[:most]
            try:
                self._submit_array(batch)
            except SubmitLimit as error:
                if len(batch) > 1:
                    self._most = len(batch) // 2
                    continue
                if not self._jobs:
                    raise
                self._full_until = self._clock() + _TRY_AGAIN
                self._say(
                    f"{error}; {len(self._asked)} cells are not submitted yet: as others end, "
                    "while this command runs or when it is given again"
                )
                return
            self._asked = self._asked[sum(map(len, batch)) :]

    def _submit_array(self, jobs_of_runs: Sequence[Sequence[tuple[RunDirectory, int]]]) -> None:
        name = f"{self._sweep_dir.name}-{secrets.token_hex(3)}"
        records, jobs = [], []
        for index, together in enumerate(jobs_of_runs):
            for run, _ in together:
                record = Submission(name, index, now(), len(run.info.get("attempts") or []))
                record.write(run)
                records.append((run, record))
            paths = [str(run.path.absolute()) for run, _ in together]
            jobs.append(CellJob(paths, self.worker, together[0][1], self.minutes))
        try:
            self._submit(name, jobs)
        except SlurmError:
            # It may have arrived all the same; its files then have not been put in place.
            with suppress(SlurmError):
                self._cancel([name])
            raise
        except ConfigError:  # it did not arrive: nobody need look for it
            for run, _ in records:
                (run.path / "job.json").unlink(missing_ok=True)
            shutil.rmtree(job_folder(self._sweep_dir, name), ignore_errors=True)
            raise
        for run, record in records:
            self._follow(run, record)

    def _say_why_they_wait(self) -> None:
        """Tell once of each reason for which jobs wait that does not pass by itself."""
        waiting: dict[str, list[str]] = {}
        for job in self._seen.values():
            if job.state in WAITING and job.reason not in self._said:
                waiting.setdefault(job.reason, []).append(job.id)
        for reason, ids in waiting.items():
            self._said.add(reason)
            if text := reasons.sentence(reason, ids):
                self._say(f"{len(ids)} {'job waits' if len(ids) == 1 else 'jobs wait'}: {text}")

    def _helpers(self, names: Iterable[str]) -> set[str]:
        """Names of the jobs that prepare these submissions."""
        helpers = map(queue.prepare_name, names)
        return {name for name in helpers if job_folder(self._sweep_dir, name).exists()}

    def _say_what_was_not_prepared(self, names: Iterable[str]) -> None:
        """Tell once of a job before the cells that failed: they do its work, each for itself."""
        for name in self._helpers(names) - self._said:
            job = self._seen.of((name, 0), begun=True)
            if job is None or job.state not in ENDED:
                continue
            self._said.add(name)
            if job.state not in ("COMPLETED", "CANCELLED"):
                reason, _ = why(job, log_end(self._sweep_dir, Submission(name, 0, 0.0)))
                self._say(
                    f"frozen features are not computed beforehand ({reason}); the cells compute "
                    f"what is missing. Log: {job_folder(self._sweep_dir, name)}"
                )

    def _note_node(self, run: RunDirectory, record: Submission, end: Ended) -> None:
        """Leave out a node on which cells fail one after the other."""
        job = record.job(self._seen, run)
        if self.nodes is None or end.code == EXIT_STOPPED or (job and job.state == "CANCELLED"):
            return
        host = str((run.info.get("attempts") or [{}])[-1].get("host") or "").partition(".")[0]
        node = (job.node if job else "") or host
        bad = self.nodes.note(node, done=end.code == 0) if node else []
        if not bad:
            return
        self._say(
            f"{', '.join(bad)}: two cells in a row failed there, while others do well elsewhere; "
            f"left out from now on ({len(self.nodes.avoided)} so far)"
        )
        waiting = {j.id.partition("_")[0] for j in self._seen.values() if j.state in WAITING}
        try:
            self._avoid(sorted(waiting), self.nodes.exclude or "")
        except SlurmError as error:
            self._say(f"jobs that wait already may still go there: {error}")

    def _follow(self, run: RunDirectory, record: Submission) -> None:
        self._jobs[run.path] = record
        self._mates.setdefault(record.key, set()).add(run.path)

    def _ended(self, run: RunDirectory, record: Submission) -> Ended | None:
        """How a run ended; None while somebody works on it, will do so, or may do so."""
        if run.busy:
            return None
        recorded = exit_code(run)
        if recorded is not None:
            return Ended(run.path, recorded)
        job = record.job(self._seen, run)
        if not self._answered or (job is not None and job.state not in ENDED):
            self._gone.pop(run.path, None)
            return None
        # A shared file system may show the end of a run later than SLURM shows the end of its job.
        since = self._gone.setdefault(run.path, self._clock())
        if self._clock() - since < max(2 * self.every, _LATE):
            return None
        if job is not None and job.state != "CANCELLED" and self._spared(run, record):
            return Ended(run.path, EXIT_STOPPED)
        log, full = log_end(self._sweep_dir, record), disk.is_full(run.path)
        reason, lost = why(job, log, full=full)
        return Ended(run.path, 1, reason=reason, lost=lost)

    def _goes_on(self, path: Path, record: Submission, *, waiting: bool) -> bool:
        """Whether a run's job is queued or at work, and its run.json as it was before it ended.

        `waiting`: look at the files of those that wait, too, which somebody else may have done.
        """
        job = self._seen.get(record.key)
        if not self._answered or job is None or job.state in ENDED:
            return False
        if job.state in WAITING and not waiting:
            return True
        try:
            stat = (path / "run.json").stat()
        except FileNotFoundError:
            return False
        seen = (stat.st_ino, stat.st_mtime_ns)  # a file that is replaced is another
        if self._unended.get(path) == seen:
            return True
        if exit_code(RunDirectory(path)) is None:
            self._unended[path] = seen
        return False

    def _spared(self, run: RunDirectory, record: Submission) -> bool:
        """Whether a job died of another of its runs, before this one began."""
        others = map(RunDirectory, self._mates[record.key] - {run.path})
        return not record.begun(run) and any(record.begun(other) for other in others)


def why(job: Job | None, log: str = "", *, full: bool = False) -> tuple[str, bool]:
    """Why a job ended without its run being done, in words; whether the cell may try again.

    `log`: the last lines that the job, not its worker, wrote. `full`: its run's disk has no room,
    which says why where SLURM does not (squeue alone gives no exit code).
    """
    if job is None:
        return "the job is gone: neither squeue nor sacct knows it", True
    where = (f"job {job.id}" if job.id else "its job") + (f" on {job.node}" if job.node else "")
    code, _, number = job.exit_code.partition(":")
    if job.state == "OUT_OF_MEMORY" or _OUT_OF_MEMORY.search(log):
        return f"{where} ran out of memory (hydra.launcher.memory=...)", False
    if job.state == "CANCELLED":
        says_by = job.reason.startswith("CANCELLED ")  # by whom, or when
        return f"{where} was {job.reason.lower() if says_by else 'cancelled'}", False
    if job.state in LOST_STATES:
        return f"{where} was lost ({job.state})", True
    if _CUT_OFF in log:
        return f"{where} found no work: who submitted it was killed while doing so", True
    if code == str(EXIT_NO_SPACE):
        return f"{where} ended: {NO_SPACE}", False
    if number == _NO_OUTPUT:
        return (
            f"{where} could not open its output files (signal 53): paths.outputs must be there and "
            "writable on the nodes",
            False,
        )
    if missing := _NO_PYTHON.search(log):
        return (
            f"{where}: there is no {missing['file'] or missing['name']} on that node: an "
            "environment on a shared file system, or hydra.launcher.python",
            False,
        )
    if number not in ("", "0") or code in ("137", "9") or _KILLED.search(log):
        name = _signal_name(number if number not in ("", "0") else "9")
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"{where} was killed by {name}{hint}", False
    if full:
        return f"{where} ended: {NO_SPACE}", False
    last = f": {log.splitlines()[-1]}" if log else ""
    if not last and (remedy := reasons.sentence(job.reason, [job.id])):
        last = f": {remedy}"
    return f"{where} ended as {job.state} before the run was done{last}", False


def cancelled_marker(sweep_dir: Path, name: str) -> Path:
    """A file that says that a submission was cancelled, where SLURM forgets its jobs soon."""
    return job_folder(sweep_dir, name) / "cancelled"


def job_log(sweep_dir: Path, record: Submission) -> Path | None:
    """The file of what a job wrote itself (what its worker prints is in the run's log.txt)."""
    folder = job_folder(sweep_dir, record.name)
    files = [*folder.glob(f"*_{record.index}_0_log.err"), *folder.glob("[0-9]*_0_log.err")]
    return files[0] if files else None


def log_end(sweep_dir: Path, record: Submission, count: int = 10) -> str:
    """Its last lines."""
    file = job_log(sweep_dir, record)
    return last_lines(file, count) if file else ""


def _signal_name(number: str) -> str:
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return f"signal {number}"


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
