"""hydra/launcher=slurm: cells as a job array; =auto: that where SLURM answers, else local."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import filelock
from omegaconf import OmegaConf
from rich.console import Console

from keyseg.config import ConfigError, resolve_path
from keyseg.runs import disk, packages, snapshot, sweep_directory
from keyseg.runs.looks import LookPlan
from keyseg.runs.run_directory import DONE, FAILED, PRUNED, RunDirectory
from keyseg.sweep import finish
from keyseg.sweep.cells import GIVEN, Cell, Say, in_turn
from keyseg.sweep.design import Design
from keyseg.sweep.launcher import Detached, SweepLauncher, keep_threads, supervise
from keyseg.sweep.local.launcher import LocalLauncher
from keyseg.sweep.pool import KEYSEG, WORKER
from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.job import CommandJob
from keyseg.sweep.slurm.nodes import Nodes
from keyseg.sweep.slurm.options import SlurmOptions, check
from keyseg.sweep.slurm.pool import SlurmPool, Submission
from keyseg.sweep.slurm.queue import Jobs, SlurmError
from keyseg.sweep.slurm.readers import SlurmReaders
from keyseg.sweep.slurm.sbatch import Sbatch, code_folder, job_folder, script
from keyseg.sweep.supervise import Outcome, Supervisor
from keyseg.worker import precompute

PRECOMPUTE = ("-m", "keyseg.worker.precompute")
"""What Python is told to compute frozen features; run directories are added to it."""


@dataclass
class SlurmConfig(SlurmOptions):
    """`hydra/launcher=slurm`: `SlurmOptions`, and worker, prepare, report, order as in
    `LocalConfig`.

    `features`: have the cells wait for one job that computes the frozen features that are missing;
    null = where several jobs would start at the same time and compute the same.
    """

    _target_: str = "hydra_plugins.keyseg.SlurmLauncher"
    worker: list[str] = field(default_factory=list)
    prepare: bool = True
    features: bool | None = None
    report: bool = True
    order: str = GIVEN


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
        self,
        worker: Sequence[str] = (),
        prepare: bool = True,
        features: bool | None = None,
        report: bool = True,
        order: str = GIVEN,
        **options: Any,
    ) -> None:
        super().__init__(prepare, report, order)
        self.features = features
        self.given = list(worker)
        names = [f.name for f in fields(SlurmOptions) if options.get(f.name) is not None]
        self.options = SlurmOptions(**{name: options[name] for name in names})
        self.options.setup = list(self.options.setup)
        self.options.srun = list(self.options.srun)
        self.options.sbatch = dict(self.options.sbatch)
        self.options.report_job = dict(self.options.report_job)
        check(self.options)
        self.worker = self.given or [*self.options.interpreter, *WORKER[1:]]
        self.max_attempts = self.options.max_attempts

    def check_devices(self, cells: Sequence[Cell], say: Say) -> None:
        """Say where cells name a GPU and their jobs ask for none; a submitting machine needs none.

        No error: on some clusters a partition comes with GPUs.
        """
        named = {cell.config.runtime.device for cell in cells} - {"auto", "cpu"}
        if named and not self.options.asks_for_gpus:
            say(
                f"warning: runtime.device={named.pop()}, and the jobs ask for no GPU: give "
                "hydra.launcher.gpus, if the partition does not come with one"
            )

    def show_dry(self, design: Design, cells: list[Cell], console: Console) -> None:
        """The script for the cells that are not done."""
        waiting = [cell for cell in cells if cell.open().status not in (DONE, PRUNED)]
        if not waiting:
            return
        sweep_dir = cells[0].path.parent
        name = f"{design.name}-NAME"
        needed = packages.carried(cell.config for cell in cells)
        code = code_folder(sweep_dir) / snapshot.name_of(packages=needed)
        most = queue.max_array() * self.options.cells_per_job
        now = min(len(waiting), most)
        finish.print_line(
            console, script(self.options, name, code, job_folder(sweep_dir, name), now)
        )
        if now < len(waiting):
            finish.print_line(
                console, f"# the first array of {-(-len(waiting) // most)}: MaxArraySize"
            )
        first = self.prepare_job(waiting)
        if first is not None:
            command = shlex.join(first.commands[0])
            finish.print_line(console, f"# the cells wait for one job that runs: {command}")

    def pool(self, cells: Sequence[Cell], say: Callable[[str], None] = print) -> SlurmPool:
        """Jobs for cells of one sweep.

        Raises:
            ConfigError: there is no SLURM here.
        """
        check_sbatch()
        sweep_dir = cells[0].path.parent
        nodes = Nodes(self.options.exclude)
        needed = packages.carried(cell.config for cell in cells)
        if secret := snapshot.left_out():
            say(f"not where the jobs run, since they look like secrets: {', '.join(secret)}")
        sbatch = Sbatch(self.options, sweep_dir, packages=needed, nodes=nodes)
        sbatch.prepare = self.prepare_job(cells)
        return SlurmPool(
            sbatch,
            sweep_dir,
            slots=self.options.array_parallelism,
            threads=self.options.threads,
            worker=self.worker,
            cells_per_job=self.options.cells_per_job,
            minutes=self.options.time,
            every=self.options.poll,
            nodes=nodes if self.options.avoid_nodes else None,
            say=say,
        )

    def readers(self, runs: Sequence[RunDirectory], words: Sequence[str]) -> SlurmReaders:
        """Jobs that read finished runs on other data: `keyseg WORDS RUN_DIR ...`.

        Raises:
            ConfigError: there is no SLURM here.
        """
        check_sbatch()
        needed = packages.carried(run.config for run in runs)
        sbatch = Sbatch(self.options, runs[0].sweep_dir, packages=needed)
        return SlurmReaders(sbatch, [*self.options.interpreter, *KEYSEG[1:], *words])

    def prepare_job(self, cells: Sequence[Cell]) -> CommandJob | None:
        """What runs once before the array, if anything has to."""
        several = len(cells) > self.options.cells_per_job and not self.given
        if not (several if self.features is None else self.features):
            return None
        paths = {precompute.marker(c.config): c.path for c in cells if precompute.wanted(c.config)}
        if not paths:
            return None
        command = [
            *self.options.interpreter,
            *PRECOMPUTE,
            *(str(path.absolute()) for path in paths.values()),
        ]
        return CommandJob([command], self.options.threads)

    def leave(self, design: Design, pool: SlurmPool, cells: Sequence[Cell], out: Console) -> None:
        """Submit the job that does what is left to do when all cells have ended: report, or look.

        We will not be here. The same job tells `notify=COMMAND`.
        """
        command = self.config.get("notify")
        if not (self.report or command or design.looks):
            return
        sweep_dir = cells[0].path.parent
        keyseg = [*self.options.interpreter, *KEYSEG[1:]]
        keyseg += ["--outputs", str(sweep_dir.parent.absolute())]
        to = [sweep_dir.name, "--out", str(resolve_path(cells[0].config.paths.reports))]
        if design.looks is None:
            commands = [[*keyseg, w, *to] for w in ("report", "sync") if self.report]
            if command:
                commands.append([*keyseg, "notify", *to, "--command", command])
            tasks = [
                *(["makes the report"] if self.report else []),
                *(["notifies"] if command else []),
            ]
            what, does = "report", " and ".join(tasks)
        else:
            commands = [[*keyseg, "look", *to]]
            what, does = "look", "takes the look, and goes on with what is open"
            self.write_record(sweep_dir)
        try:
            with sweep_directory.lock(sweep_dir, "submit"):
                arrays = pool.arrays()
                if not arrays:
                    return
                newest = max(arrays, key=lambda name: int(arrays[name]))
                name = queue.report_name(newest)
                waiting = queue.look([name])
                if all(job.state in queue.ENDED for job in waiting.values()):
                    job = CommandJob(commands, self.options.threads)
                    needed = packages.carried(cell.config for cell in cells)
                    sbatch = Sbatch(self.options, sweep_dir, packages=needed)
                    sbatch.report(name, job, sorted(arrays.values()))
        except (SlurmError, ConfigError, filelock.Timeout) as error:
            text = f"no job {does} ({error}); `keyseg {what} {sweep_dir.name}` does"
            finish.print_line(out, f"warning: {text}", "yellow")
            return
        finish.print_line(out, f"a last job {does} when they have ended")

    def write_record(self, sweep_dir: Path) -> None:
        """What a job needs to go on with the sweep as this launcher does."""
        content = {
            "options": asdict(self.options),
            "own": {"worker": self.given, "features": self.features, "report": self.report},
            "order": self.order,
            "notify": self.config.get("notify"),
        }
        file = _record(sweep_dir)
        file.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(file, json.dumps(content, indent=1).encode())

    def run_cells(self, design: Design, cells: list[Cell], console: Console) -> list[Outcome]:
        """Submit one array and follow it.

        Raises:
            ConfigError: there is no SLURM, or it refuses the job. Detached: detach=true.
        """
        pool = self.pool(cells, lambda text: finish.print_line(console, text))
        supervisor = Supervisor(pool, max_attempts=self.max_attempts)
        for cell in in_turn(cells, self.order):
            supervisor.add(cell)
            keep_threads(cell, pool.threads)
        if not supervisor.active:
            return supervisor.outcomes
        if self.config.detach:
            supervisor.step()
            self._submit(pool)
            self.leave(design, pool, cells, console)
            raise Detached(f"{pool.submitted} of {len(cells)} cells are queued or at work")
        where = f"partition {self.options.partition}" if self.options.partition else "SLURM"
        heading = f"sweep {design.name} · {len(cells)} cells on {where}"
        shown = cells[0].config.runtime.show_progress
        try:
            supervise(supervisor, pool, cells, heading, console, show=shown)
        except KeyboardInterrupt:
            self.leave(design, pool, cells, console)
            raise
        return supervisor.outcomes

    def _submit(self, pool: SlurmPool) -> None:
        try:
            pool.submit_now()
        except SlurmError as error:
            raise ConfigError(f"SLURM does not answer: {error}; nothing was submitted") from error


def check_sbatch() -> None:
    """Raises ConfigError where there is no SLURM on this machine."""
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm: there is no sbatch on this machine; hydra/launcher=local works "
            "here"
        )


class LeftLauncher(SlurmLauncher):
    """Goes on with a sweep that nobody waits for, as the launcher that was left did."""

    @classmethod
    def of(cls, sweep_dir: Path) -> Self:
        """The launcher of a sweep that was left.

        Raises:
            ConfigError: it was not left on a cluster: its command is still to be given.
        """
        try:
            kept = json.loads(_record(sweep_dir).read_bytes())
        except FileNotFoundError:
            raise ConfigError(
                f"{sweep_dir.name} was not left to a cluster; its command, given again, takes the "
                "look and goes on"
            ) from None
        left = cls(prepare=False, order=kept["order"], **kept["own"], **kept["options"])
        steering = {"detach": True, "reuse": True, "notify": kept["notify"]}
        left.config = OmegaConf.create(steering)
        return left

    def go_on(self, plan: LookPlan, cells: list[Cell], console: Console) -> list[Outcome]:
        """Take the look that is due, and submit what comes next.

        Returns outcomes where nothing is left to submit, or a cell failed.

        Raises:
            Detached: cells were submitted, and another last job.
        """
        design = Design(cells[0].path.parent.name, {}, {}, [], looks=plan)
        return self.run_stages(design, cells, [], console)

    def run_cells(self, design: Design, cells: list[Cell], console: Console) -> list[Outcome]:
        """Submit the cells that never were; where others ended without results, nothing is.

        Nobody is here to see why, and they might fail for ever.

        Raises:
            ConfigError: there is no SLURM, it does not answer, or it refuses the job. Detached:
                cells were submitted.
        """
        try:
            lost = _without_results(cells)
        except SlurmError as error:
            raise ConfigError(f"SLURM does not answer: {error}; nothing was submitted") from error
        if not lost:
            return super().run_cells(design, cells, console)
        why = "its job ended without results; the command of the sweep, given again, goes on"
        return [
            Outcome(cell, FAILED, error=why)
            if cell.path in lost
            else Outcome(cell, cell.open().status, before=True)
            for cell in cells
        ]


def _without_results(cells: Sequence[Cell]) -> set[Path]:
    """Cells that were submitted, have no results, and no job any more."""
    waiting = [cell for cell in cells if cell.open().status != DONE and not cell.open().busy]
    records = {c.path: r for c in waiting if (r := Submission.read(c.open())) is not None}
    jobs = Jobs(queue.look({record.name for record in records.values()}))
    submitted = {path: record.job(jobs, RunDirectory(path)) for path, record in records.items()}
    return {path for path, job in submitted.items() if job is None or job.state in queue.ENDED}


def _record(sweep_dir: Path) -> Path:
    return job_folder(sweep_dir, "launcher.json")


class AutoLauncher(SweepLauncher):
    """SLURM where it answers and we are not inside one of its jobs; else this machine."""

    here, cluster = LocalLauncher, SlurmLauncher

    def __new__(cls, **options: Any) -> Any:  # Hydra makes the object, we choose its class
        """The launcher that fits here."""
        inside = "SLURM_JOB_ID" in os.environ
        if not inside and queue.answers():
            return cls.cluster(**options)
        kept = ("n_jobs", "cells_per_job", "worker", "grace", "prepare", "report", "order")
        return cls.here(**{key: options[key] for key in kept if key in options})
