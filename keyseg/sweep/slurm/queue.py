"""What SLURM says of jobs: squeue first, sacct for those that squeue has forgotten.

Jobs are looked up by name: each submission has a name of its own, so that a job is found again
although nobody wrote down its id, and an id that a rebuilt cluster gives out twice is no danger.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str, int]
"""Name of a submission, and the place of a job in its array (0 where it is none)."""

WAITING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")
)
ENDED = frozenset(
    (
        *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED"),
    )
)
LOST = frozenset(("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "TIMEOUT", "REVOKED"))
"""Ways to end that say nothing against the cell: it may be submitted again."""

_TIMEOUT = 30.0  # seconds


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


def look(names: Iterable[str]) -> dict[Key, Job]:
    """The jobs of these submissions; those that SLURM knows nothing of are missing.

    Raises:
        SlurmError: squeue does not answer. Without accounting (sacct) squeue has to do.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    listed = _run("squeue", "-h", "-r", "-t", "all", "-n", ",".join(wanted), "-o", "%j|%i|%T|%N|%r")
    found = {}
    for line in listed.splitlines():
        name, job, state, node, reason = (*line.split("|", 4), *[""] * 5)[:5]
        found[(name, _index(job))] = Job(job, state, node, reason)
    forgotten = [name for name in wanted if not any(key[0] == name for key in found)]
    ended = [key[0] for key, job in found.items() if job.state in ENDED]
    if not forgotten and not ended:
        return found
    try:
        told = _run(
            *("sacct", "-n", "-X", "-P", "-S", "now-30days"),
            *("--name", ",".join(sorted({*forgotten, *ended}))),
            *("-o", "JobName,JobID,State,NodeList,ExitCode"),
        )
    except SlurmError:  # no accounting here
        return found
    for line in told.splitlines():
        name, job, state, node, code = (*line.split("|", 4), *[""] * 5)[:5]
        if "[" in job or not state:  # tasks of an array that did not start
            continue
        key = (name, _index(job))
        told_state = state.split()[0]  # "CANCELLED by 0"
        if key not in found or found[key].state in ENDED:
            found[key] = Job(job, told_state, node, state, code)
    return found


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


def _index(job: str) -> int:
    _, _, index = job.partition("_")
    return int(index) if index.isdigit() else 0


def _run(*command: str, timeout: float = _TIMEOUT) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise SlurmError(f"there is no program {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]}: no answer in {timeout:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise SlurmError(said[0] if said else f"{command[0]} ended with {done.returncode}")
    return done.stdout
