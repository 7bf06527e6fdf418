"""Run directories and SLURM side by side: where each cell of a sweep really stands.

A run directory knows how a run ended. Between two ends SLURM knows more: whether the job waits,
works, or is gone without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from keyseg.runs import disk, sweep_directory
from keyseg.runs.run_directory import (
    DONE,
    FAILED,
    PRUNED,
    QUEUED,
    RUNNING,
    STOPPED,
    RunDirectory,
)
from keyseg.sweep.slurm import queue, reasons
from keyseg.sweep.slurm.pool import Submission, cancelled_marker, job_log, log_end, why
from keyseg.sweep.slurm.queue import ENDED, WAITING, Job, Jobs, SlurmError
from keyseg.sweep.slurm.readers import job_of
from keyseg.sweep.status import LOST, TESTING, CellStatus, Watch
from keyseg.sweep.supervise import last_lines


class Overview:
    """The cells of a sweep with their jobs. `trouble`: why SLURM could not be asked, if so."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.watches = list(watches)
        self.trouble: str | None = None

    def read(self) -> list[CellStatus]:
        """The cells as they are now; SLURM is asked once, and only if a cell went there."""
        records = [Submission.read(watch.run) for watch in self.watches]
        runs_of = Counter(record.key for record in records if record)
        jobs = Jobs()
        self.trouble = None
        try:
            jobs = queue.look({record.name for record in records if record})
        except SlurmError as error:
            self.trouble = str(error)
        rows = [
            self._row(
                watch, record, jobs, behind_others=record is not None and runs_of[record.key] > 1
            )
            for watch, record in zip(self.watches, records, strict=True)
        ]
        return _left(rows, [record is None for record in records])

    def _row(
        self, watch: Watch, record: Submission | None, jobs: Jobs, *, behind_others: bool
    ) -> CellStatus:
        if record is None:
            return watch.read()
        asked = self.trouble is None
        job, state = job_and_state(
            watch.run, record, jobs, asked=asked, behind_others=behind_others
        )
        row = watch.read(state)
        reason = row.error
        if state == LOST:
            folder = watch.run.path
            reason, _ = why(job, log_end(folder.parent, record), full=disk.is_full(folder))
        if job is None:
            return replace(row, error=reason)
        if job.state not in WAITING:
            return replace(row, job=job.id, node=job.node, error=reason)
        why_it_waits = f"({job.reason})" if job.reason not in ("", "None") else ""
        advice = reasons.sentence(job.reason, [job.id]) or ""
        return replace(row, job=job.id, node=why_it_waits, error=reason, advice=advice)


def _left(rows: Sequence[CellStatus], here: Sequence[bool]) -> list[CellStatus]:
    """The cells, of which those are stopped that wait for a command which is no longer there.

    `here`: which of them did not go to SLURM.
    """
    wait = [row.state == QUEUED and own for row, own in zip(rows, here, strict=True)]
    works = any(row.state in (RUNNING, TESTING) for row in rows)
    if not any(wait) or works or sweep_directory.at_work(rows[0].path.parent):
        return list(rows)
    return [replace(r, state=STOPPED) if left else r for r, left in zip(rows, wait, strict=True)]


def job_and_state(
    run: RunDirectory, record: Submission, jobs: Jobs, *, asked: bool, behind_others: bool
) -> tuple[Job | None, str | None]:
    """The job of a run that went to SLURM, and its state; None: run.json says it.

    `behind_others`: its job works on several runs, one after the other.
    """
    job = record.job(jobs, run)
    state = state_of(run, job, asked=asked)
    if behind_others and state == RUNNING and not record.begun(run):
        return job, QUEUED
    return job, state


def state_of(run: RunDirectory, job: Job | None, *, asked: bool) -> str | None:
    """The state of a run that went to SLURM; None: run.json says it."""
    info = run.info
    status = info.get("status")
    # The error of an earlier submission was cleared by the one that came after it.
    if status in (DONE, PRUNED) or (status == FAILED and info.get("error")):
        return None
    if run.busy:
        return RUNNING
    if not asked:
        return None
    if job is None or job.state in ENDED:
        return STOPPED if job is not None and job.state == "CANCELLED" else LOST
    return QUEUED if job.state in WAITING else RUNNING


def failures(rows: Sequence[CellStatus], sweep_dir: Path, lines: int = 15) -> list[str]:
    """For each cell that failed or was lost: its error, the end of its log, and where that is."""
    report = []
    for row in rows:
        if row.state not in (FAILED, LOST):
            continue
        run = RunDirectory(row.path)
        record = Submission.read(run)
        end = last_lines(run.log_file, lines) or (log_end(sweep_dir, record) if record else "")
        report.append(f"{row.title}: {row.state}: {row.error or 'no reason given'}")
        report += [f"    {line}" for line in end.splitlines()]
        log = run.log_file if run.log_file.exists() else None
        log = log or (job_log(sweep_dir, record) if record else None)
        report += [f"    log: {log}"] if log else []
    return report


def cancel(sweep_dir: Path) -> int:
    """Cancel all jobs of a sweep that have not ended, those that read its runs on other data, too;
    how many there were.

    Raises:
        SlurmError: SLURM does not answer, or the jobs are somebody else's.
    """
    runs = [RunDirectory(file.parent) for file in sorted(sweep_dir.glob("*/job.json"))]
    names = {record.name for run in runs if (record := Submission.read(run))}
    read = [RunDirectory(file.parents[1]) for file in sweep_dir.glob("*/evaluations/job.json")]
    names |= {key[0] for run in read if (key := job_of(run))}
    alive = [key[0] for key, job in queue.look(names).items() if job.state not in ENDED]
    markers = [cancelled_marker(sweep_dir, name) for name in set(alive)]
    with suppress(PermissionError):  # somebody else's sweep: SLURM decides
        for marker in markers:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    try:
        queue.cancel(alive)
    except SlurmError:
        with suppress(PermissionError):
            for marker in markers:
                marker.unlink(missing_ok=True)
        raise
    return len(alive)
