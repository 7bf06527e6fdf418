"""hydra/launcher=slurm: cells as a job array; =auto: that where SLURM answers, else local."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rich.console import Console

from keyseg import snapshot
from keyseg.config import ConfigError
from keyseg.rundir import DONE, PRUNED
from keyseg.sweep import finish, slurmqueue
from keyseg.sweep.cells import Cell
from keyseg.sweep.design import Design
from keyseg.sweep.launcher import Detached, LocalLauncher, SweepLauncher, keep_threads, supervise
from keyseg.sweep.slurm import (
    Sbatch,
    SlurmOptions,
    SlurmPool,
    check,
    code_folder,
    job_folder,
    script,
)
from keyseg.sweep.slurmqueue import SlurmError
from keyseg.sweep.supervise import Outcome, Supervisor
from keyseg.sweep.workers import WORKER


@dataclass
class SlurmConfig(SlurmOptions):
    """`hydra/launcher=slurm`: `SlurmOptions`, and worker, prepare, report as in `LocalConfig`."""

    _target_: str = "hydra_plugins.keyseg.SlurmLauncher"
    worker: list[str] = field(default_factory=list)
    prepare: bool = True
    report: bool = True


@dataclass
class AutoConfig(SlurmConfig):
    """`hydra/launcher=auto`: the keys of both; those of the other launcher are not used."""

    _target_: str = "hydra_plugins.keyseg.AutoLauncher"
    n_jobs: int | None = None
    grace: float = 30.0


class SlurmLauncher(SweepLauncher):
    """Cells as jobs. Ctrl-C, or detach=true, leaves them at work; the same command comes back."""

    can_detach = True
    stopped = (
        "detached; the jobs go on. `keyseg status {sweep}` shows them, `keyseg cancel {sweep}` "
        "ends them, the same command comes back to them: {command}"
    )

    def __init__(
        self, worker: Sequence[str] = (), prepare: bool = True, report: bool = True, **options: Any
    ) -> None:
        super().__init__(prepare, report)
        self.worker = list(worker) or list(WORKER)
        self.options = SlurmOptions(
            **{f.name: options[f.name] for f in fields(SlurmOptions) if f.name in options}
        )
        self.options.setup = list(self.options.setup)
        self.options.srun = list(self.options.srun)
        self.options.sbatch = dict(self.options.sbatch)
        check(self.options)
        self.max_attempts = self.options.max_attempts

    def show_dry(self, plan: Design, cells: list[Cell], console: Console) -> None:
        """The script for the cells that are not done."""
        waiting = [cell for cell in cells if cell.open().status not in (DONE, PRUNED)]
        if not waiting:
            return
        sweep_dir = cells[0].path.parent
        name = f"{plan.name}-NAME"
        code = code_folder(sweep_dir) / snapshot.name_of()
        text = script(self.options, name, code, job_folder(sweep_dir, name), len(waiting))
        finish.print_line(console, text)

    def pool(self, cells: Sequence[Cell], say: Callable[[str], None] = print) -> SlurmPool:
        """Jobs for cells of one sweep.

        Raises:
            ConfigError: there is no SLURM here.
        """
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "hydra/launcher=slurm: there is no sbatch on this machine; hydra/launcher=local "
                "runs the cells here"
            )
        sweep_dir = cells[0].path.parent
        return SlurmPool(
            Sbatch(self.options, sweep_dir),
            sweep_dir,
            slots=self.options.array_parallelism,
            threads=self.options.cpus_per_task,
            worker=self.worker,
            every=self.options.poll,
            say=say,
        )

    def run_cells(self, plan: Design, cells: list[Cell], console: Console) -> list[Outcome]:
        """Submit one array and follow it.

        Raises:
            ConfigError: there is no SLURM, or it refuses the job. Detached: detach=true.
        """
        pool = self.pool(cells, lambda text: finish.print_line(console, text))
        supervisor = Supervisor(pool, rerun=bool(self.config.rerun), max_attempts=self.max_attempts)
        for cell in cells:
            supervisor.add(cell)
            keep_threads(cell, pool.threads)
        if not supervisor.active:
            return supervisor.outcomes
        if self.config.detach:
            supervisor.step()
            self._submit(pool)
            raise Detached(f"{pool.submitted} of {len(cells)} cells are queued or at work")
        where = f"partition {self.options.partition}" if self.options.partition else "SLURM"
        heading = f"sweep {plan.name} · {len(cells)} cells on {where}"
        shown = cells[0].config.runtime.show_progress
        supervise(supervisor, pool, cells, heading, console, show=shown)
        return supervisor.outcomes

    def _submit(self, pool: SlurmPool) -> None:
        try:
            pool.submit_now()
        except SlurmError as error:
            raise ConfigError(f"SLURM does not answer: {error}; nothing was submitted") from error


class AutoLauncher(SweepLauncher):
    """SLURM where it answers and we are not inside one of its jobs; else this machine."""

    def __new__(cls, **options: Any) -> Any:  # Hydra makes the object, we choose its class
        """The launcher that fits here."""
        inside = "SLURM_JOB_ID" in os.environ
        if not inside and slurmqueue.answers():
            return SlurmLauncher(**options)
        kept = ("n_jobs", "worker", "grace", "prepare", "report")
        return LocalLauncher(**{key: options[key] for key in kept if key in options})
