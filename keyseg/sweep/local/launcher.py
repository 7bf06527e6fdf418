"""hydra/launcher=local: worker processes on this machine, in parallel; =debug: in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from keyseg.config import ConfigError
from keyseg.runs import trunk
from keyseg.runs.provenance import cores
from keyseg.runs.run_directory import DONE, RunDirectory
from keyseg.sweep import finish
from keyseg.sweep.cells import GIVEN, Cell, in_turn
from keyseg.sweep.design import Design
from keyseg.sweep.launcher import SweepLauncher, counted, keep_threads, supervise
from keyseg.sweep.local.pool import LocalPool, gpus
from keyseg.sweep.pool import KEYSEG, WORKER
from keyseg.sweep.supervise import Outcome, Supervisor

_SHARED = 1.5
"""Cells a core that share the cores, rather than leave some of them idle at the end."""


@dataclass
class LocalConfig:
    """`hydra/launcher=local`.

    `n_jobs`: workers at the same time; null = one per GPU where there are any, else one per core,
    or all where they are at most half as many again: three cells on two cores take one and a half
    times as long as two, one after the others twice.
    `cells_per_job`: cells that a worker takes, one after the other, on one load of the imports.
    `worker`: command that works on a run directory; empty = this Python with `-m keyseg.worker`.
    `grace`: seconds that a worker has to stop before it is killed. `prepare`: look for weights and
    make the data once, before any cell starts. `report`: build one at the end. `order`: in which
    cells start; given = as in the design, by_seed = all variants of a seed, shuffled, before the
    next seed.
    """

    _target_: str = "hydra_plugins.keyseg.LocalLauncher"
    n_jobs: int | None = None
    cells_per_job: int = 1
    worker: list[str] = field(default_factory=list)
    grace: float = 30.0
    prepare: bool = True
    report: bool = True
    order: str = GIVEN


@dataclass
class DebugConfig:
    """`hydra/launcher=debug`: no processes."""

    _target_: str = "hydra_plugins.keyseg.DebugLauncher"
    prepare: bool = True
    report: bool = True
    order: str = GIVEN


class LocalLauncher(SweepLauncher):
    """Cells in parallel worker processes on this machine."""

    def __init__(
        self,
        n_jobs: int | None = None,
        cells_per_job: int = 1,
        worker: Sequence[str] = (),
        grace: float = 30.0,
        prepare: bool = True,
        report: bool = True,
        order: str = GIVEN,
    ) -> None:
        super().__init__(prepare, report, order)
        for name, value in (("n_jobs", n_jobs), ("cells_per_job", cells_per_job)):
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{name}={value}: must be above 0")
        if not grace >= 0:
            raise ConfigError(f"hydra.launcher.grace={grace}: must be 0 or more")
        self.n_jobs = n_jobs
        self.cells_per_job = cells_per_job
        self.worker = list(worker) or list(WORKER)
        self.grace = grace

    def pool(self, cells: Sequence[Cell], say: Callable[[str], None] = print) -> LocalPool:
        """The pool for these cells.

        The threads of each depend on all cells of the design, not on those that are left: the last
        bits of a result depend on the number of threads, and a sweep that goes on must give the
        same bits as one that was never stopped.
        """
        device = cells[0].config.runtime.device
        return self._workers(len(cells), device, self.worker, self.cells_per_job)

    def readers(self, runs: Sequence[RunDirectory], words: Sequence[str]) -> LocalPool:
        """Processes that read finished runs on other data: `keyseg WORDS RUN_DIR`, a run each."""
        return self._workers(len(runs), "auto", [*KEYSEG, *words], 1)

    def _workers(self, count: int, device: str, worker: Sequence[str], each: int) -> LocalPool:
        devices = gpus(device)
        most = self.n_jobs or len(devices) or cores()
        if not devices and not self.n_jobs and count <= _SHARED * most:
            most = count
        slots = max(1, min(most, count))
        threads = max(1, cores() // slots)
        return LocalPool(
            slots, threads, worker=worker, gpus=devices, grace=self.grace, cells_per_job=each
        )

    def run_cells(self, design: Design, cells: list[Cell], console: Console) -> list[Outcome]:
        """Keep the pool busy until every cell has an outcome, and show how it goes."""
        pool = self.pool(cells)
        supervisor = Supervisor(pool)
        for cell in in_turn(cells, self.order):
            supervisor.add(cell)
            keep_threads(cell, pool.threads)
        if not supervisor.active:
            return supervisor.outcomes
        heading = f"sweep {design.name} · {counted(len(cells), 'cell')}"
        if pool.slots > 1:
            heading += f", {pool.slots} at a time"
        heading += f" · {counted(pool.threads, 'thread')} each"
        supervise(
            supervisor, pool, cells, heading, console, show=cells[0].config.runtime.show_progress
        )
        return supervisor.outcomes


class DebugLauncher(SweepLauncher):
    """Cells in this process, one after the other; an error passes through, for a debugger."""

    def run_cells(self, design: Design, cells: list[Cell], console: Console) -> list[Outcome]:
        """Run the cells that are not done."""
        outcomes = []
        for number, cell in enumerate(in_turn(cells, self.order), start=1):
            run = cell.create()
            if cell.rerun and not run.busy:
                run.begin_anew()
                trunk.forget(run, cell.config)
            done = run.status == DONE
            finish.print_line(
                console, f"[{number}/{len(cells)}] {cell.title}: {'found' if done else 'starts'}"
            )
            if not done:
                from keyseg.worker.cell import run_cell  # loads numpy and pandas

                run.freeze(cell.config)
                run_cell(run)
            outcomes.append(Outcome(cell, run.status, done))
        return outcomes
