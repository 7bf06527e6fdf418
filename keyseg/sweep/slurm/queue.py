"""What SLURM says of jobs: squeue first, sacct for those that squeue has forgotten.

Jobs are looked up by name: each submission has a name of its own, so that a job is found again
although nobody wrote down its id, and an id that a rebuilt cluster gives out twice is no danger.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

Key = tuple[str, int]
"""Name of a submission, and the place of a job in its array."""

WHOLE_ARRAY = -1
"""The place of a record that names no task: a job that is no array, or all of an array's tasks that
have no record of their own. SLURM keeps one such record of tasks cancelled before they began."""

WAITING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")
)
ENDED = frozenset(
    (
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "NODE_FAIL",
        "BOOT_FAIL",
        "DEADLINE",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
    )
)
LOST_STATES = frozenset(("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "TIMEOUT", "REVOKED"))
"""Ways to end that say nothing against the cell: it may be submitted again."""

_TIMEOUT, _NO_ACCOUNTING = 30.0, 60.0  # seconds

_MAX_ARRAY = 1000
"""Most jobs of one array; SLURM's default for MaxArraySize is 1001."""


_FILTERS = ("SQUEUE_", "SACCT_", "SCANCEL_")
"""Variables by which users have these commands show, or cancel, less than all."""


@dataclass(frozen=True)
class Job:
    """A job as SLURM knows it. `exit_code`: code:signal, where it is known."""

    id: str
    state: str
    node: str = ""
    reason: str = ""
    exit_code: str = ""


class SlurmError(RuntimeError):
    """SLURM did not answer; the message is the first line of what its command said."""


class Jobs(dict[Key, Job]):
    """What SLURM has records of, by key."""

    def of(self, key: Key, *, begun: bool) -> Job | None:
        """The job in this place; None where SLURM knows nothing of it.

        `begun`: whether it is known to have worked. Of single tasks that are cancelled before that,
        SLURM keeps no record at all: one that is missing from an array that is known was cancelled.
        """
        name, index = key
        job = self.get(key) or self.get((name, WHOLE_ARRAY))
        if job is not None or begun or name not in self._arrays:
            return job
        array = self._arrays[name]
        return Job(f"{array}_{index}", "CANCELLED", reason="CANCELLED before it began")

    @functools.cached_property
    def _arrays(self) -> dict[str, str]:
        """SLURM's ids of the arrays, by name."""
        return {name: job.id.partition("_")[0] for (name, _), job in self.items()}


class JobLookup:
    """Asks SLURM for jobs, again and again.

    What sacct has said of a job that ended is kept: the accounting database of a cluster is not
    asked for it a second time, and one that is missing is not asked every time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounted: Jobs = Jobs()
        self._next_try = 0.0

    def __call__(self, names: Iterable[str]) -> Jobs:
        """The jobs of these submissions; those that SLURM knows nothing of are missing.

        Raises:
            SlurmError: squeue does not answer. Without accounting (sacct) squeue has to do.
        """
        wanted = sorted(set(names))
        if not wanted:
            return Jobs()
        jobs = _squeue(wanted)
        for key in jobs:
            if jobs[key].state not in ENDED:  # it was queued again
                self._accounted.pop(key, None)
        jobs.update({key: job for key, job in self._accounted.items() if key[0] in wanted})
        known = {name for name, _ in jobs}
        asked = {name for name in wanted if name not in known}
        asked |= {key[0] for key, job in jobs.items() if job.state in ENDED and not job.exit_code}
        if not asked or self._clock() < self._next_try:
            return jobs
        try:
            accounted = _sacct(sorted(asked))
        except SlurmError:  # no accounting here
            self._next_try = self._clock() + _NO_ACCOUNTING
            return jobs
        for key, job in accounted.items():
            before = jobs.get(key)
            if before is None or before.state in ENDED:
                # squeue's reason says more than the state again; who cancelled it, more than that.
                cancelled = job.reason.startswith("CANCELLED")
                kept = job.reason if before is None or cancelled else before.reason
                jobs[key] = replace(job, reason=kept)
                if job.state in ENDED:
                    self._accounted[key] = jobs[key]
        return jobs


def look(names: Iterable[str]) -> Jobs:
    """As `JobLookup`, once.

    Raises:
        SlurmError: squeue does not answer.
    """
    return JobLookup()(names)


def _squeue(names: Sequence[str]) -> Jobs:
    listed = _run("squeue", "-h", "-r", "-t", "all", "-n", ",".join(names), "-o", "%j|%i|%T|%N|%r")
    jobs = Jobs()
    for line in listed.splitlines():
        name, job, state, node, reason = (*line.split("|", 4), *[""] * 5)[:5]
        for index in _places(job):
            jobs[(name, index)] = Job(job, state, node, reason)
    return jobs


def _sacct(names: Sequence[str]) -> Jobs:
    printed = _run(
        "sacct",
        "-n",
        "-X",
        "-P",
        "-S",
        "now-30days",
        "--name",
        ",".join(names),
        "-o",
        "JobName,JobID,State,NodeList,ExitCode",
    )
    jobs = Jobs()
    for line in printed.splitlines():
        name, job, state, node, code = (*line.split("|", 4), *[""] * 5)[:5]
        told_state = (state.split() or [""])[0]  # "CANCELLED by 0"
        if not state or ("[" in job and told_state not in ENDED):  # tasks that did not start yet
            continue
        for index in _places(job):
            jobs[(name, index)] = Job(job, told_state, node, state, code)
    return jobs


@functools.cache
def max_array() -> int:
    """Most jobs of one array: MaxArraySize of the cluster, and not more than 1,000."""
    try:
        lines = _run("scontrol", "show", "config").splitlines()
    except SlurmError:
        return _MAX_ARRAY
    sizes = [line.partition("=")[2].strip() for line in lines if line.startswith("MaxArraySize")]
    return min([_MAX_ARRAY, *(int(size) for size in sizes if size.isdigit() and int(size))])


def avoid(ids: Iterable[str], nodes: str) -> None:
    """Have jobs that wait (ids of arrays) leave out nodes.

    Raises:
        SlurmError: SLURM does not answer, or does not allow it.
    """
    for one in ids:
        _run("scontrol", "update", f"JobId={one}", f"ExcNodeList={nodes}")


def prepare_name(name: str) -> str:
    """Of the job that the cells of a submission wait for."""
    return f"{name}-prepare"


def report_name(name: str) -> str:
    """Of the job that waits for the cells of a submission and makes the report."""
    return f"{name}-report"


def cancel(names: Iterable[str]) -> None:
    """Cancel all jobs of these submissions, and those that only serve them.

    Raises:
        SlurmError: SLURM does not answer.
    """
    for name in sorted(set(names)):
        # The report first: it starts when the cells have ended. They wait for what prepares them.
        for one in (report_name(name), name, prepare_name(name)):
            _run("scancel", "--name", one)


def answers() -> bool:
    """Whether there is a SLURM here whose controller answers."""
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        return False
    try:
        _run("squeue", "-h", "-n", "keyseg-asks", timeout=10.0)
    except SlurmError:
        return False
    return True


def _places(job: str) -> Iterator[int]:
    """The places in its array that a record speaks of: `7_3`, `7_[0-2,5%4]`, or `7`."""
    _, _, places = job.partition("_")
    for part in places.strip("[]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):  # a long list ends in "..."
            yield WHOLE_ARRAY
        else:
            yield from range(int(first), int(last or first) + 1)


def _run(*command: str, timeout: float = _TIMEOUT) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={k: v for k, v in os.environ.items() if not k.startswith(_FILTERS)},
        )
    except FileNotFoundError:
        raise SlurmError(f"there is no program {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]}: no answer in {timeout:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise SlurmError(said[0] if said else f"{command[0]} ended with {done.returncode}")
    return done.stdout
