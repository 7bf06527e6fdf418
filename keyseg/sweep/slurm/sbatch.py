"""How SLURM is asked for jobs: the script, a submission through submitit, what sbatch answers."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyseg.config import PROJECT, ROOT, ConfigError
from keyseg.runs import snapshot, targets
from keyseg.runs.packages import Package
from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.job import CellJob, CommandJob
from keyseg.sweep.slurm.nodes import Nodes
from keyseg.sweep.slurm.options import SlurmOptions, report_options
from keyseg.sweep.slurm.queue import SlurmError

_NEVER_TOO_OFTEN = 10**6
"""Submitit gives up after so many time limits, and counts every short job's end as one."""

_TRANSIENT = ("unable to contact", "timed out", "timeout", "connection refused", "not responding")
"""In what sbatch says when it may be asked again: the controller is down or busy."""

_LIMIT = re.compile(r"MaxSubmitJob|job submit limit|MaxJobCount|Job array .*too large", re.I)
"""In what sbatch says when it takes no more jobs, or not so many: of this user, or of anybody."""

_OWN = ("SLURM_CONF", "SLURM_CLUSTERS")
"""Variables of SLURM that a user sets. All others describe the job that somebody is in."""


def parameters(options: SlurmOptions, name: str, code: Path) -> dict[str, Any]:
    """The options as submitit's executor takes them. `code`: the snapshot that jobs run."""
    setup = [
        *(["set -e", *options.setup, "set +e"] if options.setup else []),
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # the folder of the submission is no place to import from",
        f"export {targets.PACKAGES_VARIABLE}={shlex.quote(','.join(targets.allowed()))}",
        f"export {ROOT}={shlex.quote(os.environ.get(ROOT) or str(PROJECT))}",
    ]
    cores = None if options.cpus_per_gpu else options.cpus_per_task
    # srun does not take it over from sbatch since SLURM 22.05
    srun = [f"--cpus-per-task={cores}"] if cores else []
    if options.together:  # one that fails must not leave the others waiting for it
        srun.append("--kill-on-bad-exit=1")
    extra: dict[str, Any] = {"requeue": True}
    if not options.use_srun:  # without srun there is no step that SLURM would send it to
        extra["signal"] = f"B:USR2@{options.signal_delay}"
    if options.cpus_per_gpu:  # submitit's own argument warns
        extra["cpus-per-gpu"] = options.cpus_per_gpu
    asked = {
        "job_name": name,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus,
        "gres": options.gres,
        "exclude": options.exclude,
        "comment": options.comment,
        "nodes": options.nodes if options.nodes > 1 else None,
        "ntasks_per_node": options.per_node if options.together else None,
        "cpus_per_task": cores,
        "mem": options.memory,
        "mem_per_gpu": options.mem_per_gpu,
        "time": options.time,
        "array_parallelism": options.array_parallelism,
        "signal_delay_s": options.signal_delay,
        "setup": setup,
        "srun_args": [*srun, *options.srun],
        "use_srun": options.use_srun,
        "additional_parameters": {**extra, **options.sbatch},
    }
    return {key: value for key, value in asked.items() if value is not None}


def python_command(options: SlurmOptions) -> str:
    """Python on the nodes, as a shell takes it."""
    command = shlex.join(options.interpreter)
    # Without srun the worker takes the shell's place, and hears what SLURM sends to that.
    return command if options.use_srun else f"exec {command}"


def script(options: SlurmOptions, name: str, code: Path, folder: Path, cells: int) -> str:
    """The text that sbatch would be given for so many cells."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{python_command(options)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    jobs = -(-cells // options.cells_per_job)
    array = jobs if jobs > 1 else None  # submitit makes no array of one
    text: str = _make_sbatch_string(
        command=command, folder=folder, map_count=array, **parameters(options, name, code)
    )
    return text


class SubmitLimit(ConfigError):  # noqa: N818 (a limit, not a mistake)
    """SLURM takes no more jobs now, or not so many at once."""


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
        nodes: Nodes | None = None,
    ) -> None:
        self.options = options
        self.sweep_dir = sweep_dir
        self.packages = packages
        self.nodes = nodes or Nodes(options.exclude)
        self.prepare: CommandJob | None = None
        """Runs once, before the first cells are submitted; those wait for it."""
        self._cancel = cancel

    def __call__(self, name: str, jobs: Sequence[CellJob | CommandJob]) -> None:
        """Submit the cells of a sweep, or other work, as one array.

        Raises:
            SlurmError: SLURM does not answer now. ConfigError: it refuses the job. SubmitLimit: it
                takes no more jobs now, or not so many.
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
        options = replace(options, exclude=self.nodes.exclude)
        asked = parameters(options, name, code)
        if after:
            asked["dependency"] = "afterany:" + ":".join(after)
        try:
            executor = SlurmExecutor(
                job_folder(self.sweep_dir, name),
                _NEVER_TOO_OFTEN,
                python=python_command(options),
            )
            executor.update_parameters(**asked)
            # What sbatch says is in the error, too.
            with redirect_stderr(io.StringIO()), outside_of_jobs():
                (first, *_) = executor.submit_array(jobs)
        except (FailedJobError, FailedSubmissionError, OSError, RuntimeError) as error:
            said = _sbatch_said(str(error))
            if any(text in str(error).lower() for text in _TRANSIENT):
                raise SlurmError(said) from error
            kind = SubmitLimit if _LIMIT.search(str(error)) else ConfigError
            raise kind(
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


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Without the variables of the job that this process may itself be in, as after `salloc`.

    sbatch hands them on, and srun in the new job takes them for its own: SLURM_MEM_PER_CPU of the
    one, with SLURM_MEM_PER_NODE of the other, is an error of every cell.
    """
    taken = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "PMI_", "PMIX_")) and name not in _OWN
    }
    try:
        yield
    finally:
        os.environ.update(taken)


def _sbatch_said(text: str) -> str:
    """What sbatch wrote, in one line: all of its errors, the cause before the verdict."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    own = [line for line in lines if line.startswith("sbatch: ")]
    said = errors or own or lines or ["no reason given"]
    short = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in said]
    return "; ".join(dict.fromkeys(short))
