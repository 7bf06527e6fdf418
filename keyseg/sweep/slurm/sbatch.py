"""What is asked of SLURM, and how: options, the script, a submission through submitit."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keyseg.config import PROJECT, ROOT, ConfigError
from keyseg.runs import snapshot
from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.job import CellJob, CommandJob
from keyseg.sweep.slurm.queue import SlurmError

_NEVER_TOO_OFTEN = 10**6
"""Submitit gives up after so many time limits, and counts every short job's end as one."""

_TRANSIENT = ("unable to contact", "timed out", "timeout", "connection refused", "not responding")
"""In what sbatch says when it may be asked again: the controller is down or busy."""


@dataclass
class SlurmOptions:
    """What one job asks SLURM for; null = the cluster's default.

    `time`: minutes; a cell that needs longer goes on in the next job. `memory`: like 16G.
    `gpus`: of one job. `processes`: of one cell; 1, or one for each of its GPUs, started by srun
    with torch's RANK, WORLD_SIZE and LOCAL_RANK (`cpus_per_task` is of each).
    `cells_per_job`: cells that a job works on, one after the other, on one load of the imports.
    `array_parallelism`: jobs of a sweep at the same time. `setup`: shell lines before the worker
    starts (module load ...). `sbatch`: other options, as {mail-type: END}. `srun`: arguments of
    srun. `signal_delay`: seconds before the end at which a job is told to write its checkpoint.
    `report_job`: options of the job that makes the report when nobody waits for it, where they are
    not those of the cells without GPUs, as {partition: cpu}. `max_attempts`: of a cell whose node
    was lost; errors in the code are not tried again. `poll`: seconds between questions to SLURM.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int | None = None
    processes: int = 1
    cpus_per_task: int = 2
    memory: str | None = None
    time: int = 240
    cells_per_job: int = 1
    array_parallelism: int = 64
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    srun: list[str] = field(default_factory=list)
    signal_delay: int = 120
    report_job: dict[str, Any] = field(default_factory=dict)
    max_attempts: int = 3
    poll: float = 2.0


POSITIVE = (
    "cpus_per_task",
    "time",
    "cells_per_job",
    "array_parallelism",
    "max_attempts",
    "poll",
    "processes",
)


def check(options: SlurmOptions) -> None:
    """Whether the options make sense.

    Raises:
        ConfigError: one does not; names the key.
    """
    for name in POSITIVE:
        if not getattr(options, name) > 0:
            raise ConfigError(f"hydra.launcher.{name}={getattr(options, name)}: must be above 0")
    if options.signal_delay >= 60 * options.time:
        raise ConfigError(
            f"hydra.launcher.signal_delay={options.signal_delay} s leaves nothing of "
            f"hydra.launcher.time={options.time} min"
        )
    if options.processes not in (1, options.gpus):
        raise ConfigError(
            f"hydra.launcher.processes={options.processes}: must be 1, or as many as "
            f"hydra.launcher.gpus={options.gpus}"
        )
    if options.processes > 1 and options.cells_per_job > 1:
        raise ConfigError(
            f"hydra.launcher.cells_per_job={options.cells_per_job}: cells of several processes "
            "have a job each"
        )
    report_options(options)


def report_options(options: SlurmOptions) -> SlurmOptions:
    """What the report's job asks for: like a cell without GPUs, but for `report_job`.

    Raises:
        ConfigError: `report_job` names an option that does not exist.
    """
    known = {f.name for f in fields(SlurmOptions)}
    for name in options.report_job:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"; meant {near[0]}?" if near else ""
            raise ConfigError(f"hydra.launcher.report_job.{name}: there is no such option{meant}")
    plain = replace(options, gpus=None, processes=1, cells_per_job=1)
    return replace(plain, **options.report_job)


def parameters(options: SlurmOptions, name: str, code: Path) -> dict[str, Any]:
    """The options as submitit's executor takes them. `code`: the snapshot that jobs run."""
    setup = [
        *options.setup,
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # the folder of the submission is no place to import from",
        f"export {ROOT}={shlex.quote(os.environ.get(ROOT) or str(PROJECT))}",
    ]
    # srun does not take it over from sbatch since SLURM 22.05
    srun = [f"--cpus-per-task={options.cpus_per_task}", *options.srun]
    if options.processes > 1:  # one that fails must not leave the others waiting for it
        srun.insert(1, "--kill-on-bad-exit=1")
    asked = {
        "job_name": name,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus,
        "ntasks_per_node": options.processes if options.processes > 1 else None,
        "cpus_per_task": options.cpus_per_task,
        "mem": options.memory,
        "time": options.time,
        "array_parallelism": options.array_parallelism,
        "signal_delay_s": options.signal_delay,
        "setup": setup,
        "srun_args": srun,
        "additional_parameters": {"requeue": True, **options.sbatch},
    }
    return {key: value for key, value in asked.items() if value is not None}


def script(options: SlurmOptions, name: str, code: Path, folder: Path, cells: int) -> str:
    """The text that sbatch would be given for so many cells."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = (
        f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    )
    jobs = -(-cells // options.cells_per_job)
    array = jobs if jobs > 1 else None  # submitit makes no array of one
    text: str = _make_sbatch_string(
        command=command, folder=folder, map_count=array, **parameters(options, name, code)
    )
    return text


class Sbatch:
    """Submissions through submitit. `sweep_dir`: where its files go, on a shared file system.

    `packages`: other people's, which the cells need.
    """

    def __init__(
        self,
        options: SlurmOptions,
        sweep_dir: Path,
        *,
        packages: Sequence[Package] = (),
        cancel: Callable[[list[str]], None] = queue.cancel,
    ) -> None:
        self.options = options
        self.sweep_dir = sweep_dir
        self.packages = packages
        self.prepare: CommandJob | None = None
        """Runs once, before the first cells are submitted; those wait for it."""
        self._cancel = cancel

    def __call__(self, name: str, jobs: Sequence[CellJob]) -> None:
        """Submit the cells of a sweep as one array.

        Raises:
            SlurmError: SLURM does not answer now. ConfigError: it refuses the job.
        """
        if self.prepare is None:
            self._submit(self.options, name, jobs)
            return
        first = self._submit(self.options, queue.prepare_name(name), [self.prepare])
        try:
            # However it ends: the cells do themselves what it left undone, or say what is wrong.
            self._submit(self.options, name, jobs, after=[first])
        except BaseException:
            with suppress(SlurmError):
                self._cancel([queue.prepare_name(name)])
            raise
        self.prepare = None

    def report(self, name: str, job: CommandJob, after: Sequence[str]) -> None:
        """Submit the job that ends a sweep; it starts when these jobs (ids) have ended.

        Raises:
            SlurmError: SLURM does not answer now. ConfigError: it refuses the job.
        """
        self._submit(report_options(self.options), name, [job], after=after)

    def _submit(
        self,
        options: SlurmOptions,
        name: str,
        jobs: Sequence[Callable[[], object]],
        after: Sequence[str] = (),
    ) -> str:
        """The id of the job, or of the array."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        code = snapshot.take(code_folder(self.sweep_dir), packages=self.packages)
        asked = parameters(options, name, code)
        if after:
            asked["dependency"] = "afterany:" + ":".join(after)
        try:
            executor = SlurmExecutor(job_folder(self.sweep_dir, name), _NEVER_TOO_OFTEN)
            executor.update_parameters(**asked)
            with redirect_stderr(io.StringIO()):  # what sbatch says is in the error, too
                (first, *_) = executor.submit_array(jobs)
        except (FailedJobError, FailedSubmissionError, OSError, RuntimeError) as error:
            said = _sbatch_said(str(error))
            if any(text in str(error).lower() for text in _TRANSIENT):
                raise SlurmError(said) from error
            raise ConfigError(
                f"sbatch refuses the job: {said} (hydra.launcher.partition, account, qos, "
                "constraint, gpus, memory, time; --dry shows the script)"
            ) from error
        return str(first.job_id).partition("_")[0]


def code_folder(sweep_dir: Path) -> Path:
    """Where snapshots of the code are kept: one place for all sweeps."""
    return sweep_dir.parent / ".code"


def job_folder(sweep_dir: Path, name: str) -> Path:
    """Submitit's files of one submission. A folder is never used twice (ids may be)."""
    return sweep_dir / ".slurm" / name


def _sbatch_said(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line]
    return (told or lines or ["no reason given"])[-1].removeprefix("sbatch: error: ")
