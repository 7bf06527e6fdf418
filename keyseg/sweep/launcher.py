"""What all launchers do with a sweep, from its overrides to its report; and the grid of cells.

hydra/sweeper=grid      all combinations of the values given (Hydra's own, without its files)
hydra/launcher=local    worker processes on this machine, in parallel (local/launcher.py)
hydra/launcher=debug    in this process, one after the other (local/launcher.py)
hydra/launcher=slurm    jobs (slurm/launcher.py)
hydra/launcher=auto     slurm where it answers, else local (slurm/launcher.py)
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from keyseg.config import ConfigError, resolve_path
from keyseg.runs import declaration, sweep_directory
from keyseg.runs import drops as drops_file
from keyseg.runs import looks as looks_file
from keyseg.runs.drops import JudgedBudget
from keyseg.runs.looks import TakenLook
from keyseg.runs.private_files import without_passwords
from keyseg.runs.run_directory import DONE, FAILED, state_of
from keyseg.runs.titles import unique_titles
from keyseg.sweep import drops, finish, looks, notify, preflight, ranges, reuse, stale
from keyseg.sweep.cells import GIVEN, ORDERS, Cell, Say, check_scored, freeze
from keyseg.sweep.compose import Composer
from keyseg.sweep.design import Design, read_design, to_json
from keyseg.sweep.overrides import one_line_errors
from keyseg.sweep.pool import Pool
from keyseg.sweep.progress import open_view
from keyseg.sweep.status import Watch
from keyseg.sweep.supervise import Outcome, Supervisor
from keyseg.tracking import parent_run

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

_TICK, _REDRAW = 0.1, 0.5  # seconds
_SHARE = 0.01
"""Of a core's time that drawing may take."""
_FEW = 100
"""Cells up to which the table is drawn anew whenever one of them ended."""


class GridSweeper(BasicSweeper):
    """All combinations, as one batch. Hydra's own writes a multirun.yaml that nobody reads."""

    def sweep(self, arguments: list[str]) -> Any:
        """Hand all cells to the launcher at once."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = ranges.parse(parser, [*self._parse_config(), *arguments])
        (cells,) = self.split_arguments(overrides, None)
        return [self.launcher.launch(cells, initial_job_idx=0)]


class Detached(Exception):  # noqa: N818 (a state, not a mistake)
    """The cells are queued elsewhere and go on without this process; says how many."""


class SweepLauncher(Launcher):
    """What all launchers share: design, frozen cells, sweep.json, tracking, the end."""

    can_detach = False
    """Whether cells go on without this process."""

    stopped = "stopped; the same command goes on from here: {command}"
    """What is said after Ctrl-C."""

    max_attempts = 1
    """How often a cell is started whose machine is lost each time."""

    def __init__(self, prepare: bool = True, report: bool = True, order: str = GIVEN) -> None:
        if order not in ORDERS:
            raise ConfigError(f"hydra.launcher.order={order}: must be one of {', '.join(ORDERS)}")
        self.prepare = prepare
        self.report = report
        self.order = order

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over; the task function is not used: a cell is more than that."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Get all cells done, report, and end the program with 1 if a cell failed."""
        with one_line_errors(), sigterm_is_ctrl_c(), ExitStack() as stack:
            console = Console()

            def say(text: str) -> None:
                finish.print_line(console, text)

            design, cells = self.design_and_cells(job_overrides, say)
            if self.report:
                check_scored(cells)
            if self.config.detach and not self.can_detach:
                raise ConfigError(
                    "detach=true: cells on this machine end with the command; "
                    "hydra/launcher=slurm has jobs that go on"
                )
            sweep_dir = cells[0].path.parent
            taken = looks_file.read(sweep_dir) if design.looks else []
            asked = looks.asked_for(cells, design.looks, taken)
            if design.drop_behind is not None:
                drops.check_schedule(cells)
                asked = drops.asked_for(cells, drops_file.read(sweep_dir))
            if design.drop_behind is not None and self.config.detach:
                raise ConfigError(
                    "detach=true does not go with ablation.drop_behind: who compares the variants "
                    "at a budget has to stay"
                )
            if self.config.dry:
                print_cells(design, asked, console)
                for line in reuse.others(asked) if self.config.reuse else []:
                    finish.print_line(console, line)
                for line in stale.summary_lines(asked, stale.find(asked)):
                    finish.print_line(console, f"stale: {line}")
                self.check_devices(waiting(asked), say)
                if self.prepare:
                    print_findings(asked, console)
                for line in looks.forecast(design, cells, taken, self.expected_share):
                    finish.print_line(console, line)
                self.show_dry(design, asked, console)
                return []
            lines = reuse.take_over(asked, wanted=bool(self.config.reuse))
            asked, more = stale.decide(asked, self.config)
            looks.check_rerun(sweep_dir.name, asked, taken)
            for line in [*lines, *more]:
                finish.print_line(console, line)
            self.check_devices(waiting(asked), say)
            if self.prepare:
                prepare(asked, console)
            # What is wrong with a config, data or weights is known by now, and nothing is written.
            stack.enter_context(sweep_directory.hold(sweep_dir, [c.signature for c in cells]))
            for line in write_sweep(sweep_dir, design, cells, asked):
                finish.print_line(console, line)
            reuse.take_over(asked, wanted=bool(self.config.reuse), create=True)
            parent = start_parent(sweep_dir, asked)
            try:
                if design.looks is None and design.drop_behind is None:
                    outcomes = self.run_cells(design, asked, console)
                else:
                    outcomes = self.run_stages(design, cells, asked, console)
                parent.join(30)
                reported = self.end(sweep_dir, cells, outcomes, console)
            except KeyboardInterrupt:
                self.say_stopped(sweep_dir, console)
                raise SystemExit(EXIT_INTERRUPTED) from None
            except Detached as detached:
                parent.join(30)
                finish.print_line(console, str(detached))
                self.say_stopped(sweep_dir, console)
                return []
            except Exception as error:
                self.tell(sweep_dir, console, error=str(error) or type(error).__name__)
                raise
        status = {o.cell.path: o for o in outcomes}
        if any(o.status == FAILED for o in outcomes):
            failed = sum(o.status == FAILED for o in outcomes)
            print(f"error: {failed} of {len(outcomes)} cells failed", file=sys.stderr)
            raise SystemExit(EXIT_FAILED)
        if not reported:
            raise SystemExit(EXIT_FAILED)
        return [_job_return(cell, status[cell.path]) for cell in cells if cell.path in status]

    def run_stages(
        self,
        design: Design,
        cells: Sequence[Cell],
        asked: Sequence[Cell],
        console: Console,
    ) -> list[Outcome]:
        """An outcome for every cell that was asked for, look after look or budget after budget.

        Args:
            asked: those of the first stage from here, some of which may have to run again.
        """
        sweep_dir = cells[0].path.parent
        again = {cell.signature: cell for cell in asked}

        def work(now: list[Cell]) -> list[Outcome]:
            sweep_directory.ask_for(sweep_dir, [cell.signature for cell in now])
            reuse.take_over(now, wanted=bool(self.config.reuse), create=True)
            marked = [again.get(cell.signature, cell) for cell in now]
            again.clear()  # what runs again does so once
            return self.run_cells(design, marked, console)

        def say(text: str) -> None:
            finish.print_line(console, text)

        if design.looks is None:
            return drops.run(sweep_dir, cells, work=work, judge=self.judge_budget, say=say)
        decide = self.decide
        return looks.run(sweep_dir, cells, design.looks, work=work, decide=decide, say=say)

    def design_and_cells(
        self, job_overrides: Sequence[Sequence[str]], say: Say = lambda text: None
    ) -> tuple[Design, list[Cell]]:
        """Design and frozen cells; `say` hears of it where that takes long.

        Raises:
            ConfigError: something in the config of some cell is wrong; nothing was written yet.
        """
        plain = OmegaConf.to_container(self.config.get("ablation") or OmegaConf.create())
        assert isinstance(plain, dict)
        design = read_design(
            job_overrides,
            {str(key): value for key, value in plain.items()},
            name=self.config.get("name"),
            fusion=str(OmegaConf.select(self.config, "fusion.name")),
            until=self.config.get("until"),
            seed=int(self.config.get("seed") or 0),
        )
        return design, freeze(design, Composer(self.compose), say)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of one cell, as Hydra composes it for a job."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.pop("hydra", None)
        return config

    def say_stopped(self, sweep_dir: Path, console: Console) -> None:
        """How to come back."""
        text = self.stopped.format(sweep=sweep_dir.name, command=command())
        finish.print_line(console, text)

    def tell(
        self, sweep_dir: Path, console: Console, *, page: Path | None = None, error: str = ""
    ) -> None:
        """Have `notify=COMMAND` told of the end, where it was given."""
        problem = notify.tell(self.config.get("notify"), sweep_dir, page=page, error=error)
        if problem:
            finish.print_line(console, f"warning: {problem}", "yellow")

    def pool(self, cells: Sequence[Cell], say: Callable[[str], None] = print) -> Pool:
        """What works on these cells, or on any that are like them; `say` tells the user of trouble.

        Raises:
            ConfigError: nothing can.
        """
        raise ConfigError("this launcher has no workers: take hydra/launcher=local or slurm")

    def check_devices(self, cells: Sequence[Cell], say: Say) -> None:
        """Whether these cells will have the device that they ask for; `say` hears of a doubt.

        Raises:
            ConfigError: one will not.
        """
        preflight.check_devices([cell.config for cell in cells])

    def build_report(self, sweep_dir: Path, out_dir: Path) -> Path:
        """Write the report; its page. Said where Hydra gets its launchers, hydra_plugins/."""
        raise NotImplementedError

    def decide(self, sweep_dir: Path) -> TakenLook:
        """Take the next look at a sweep. Said where Hydra gets its launchers, hydra_plugins/."""
        raise NotImplementedError

    def judge_budget(self, sweep_dir: Path, steps: int) -> JudgedBudget:
        """Compare the variants of a sweep at a budget. Said in hydra_plugins/, too."""
        raise NotImplementedError

    def expected_share(self, design: Design) -> float:
        """Of the cells that may come, how many are expected to. Said in hydra_plugins/, too."""
        raise NotImplementedError

    def show_dry(self, design: Design, cells: list[Cell], console: Console) -> None:
        """What else dry=true has to show."""

    def run_cells(self, design: Design, cells: list[Cell], console: Console) -> list[Outcome]:
        """An outcome for every cell."""
        raise NotImplementedError

    def end(
        self,
        sweep_dir: Path,
        cells: list[Cell],
        outcomes: list[Outcome],
        console: Console,
        reports: Path | None = None,
    ) -> bool:
        """Report, tracking, result table; whether there is a report where one was wanted.

        `reports`: the folder of the report; None = where the config says.
        """
        order = {cell.path: i for i, cell in enumerate(cells)}
        outcomes.sort(key=lambda o: order[o.cell.path])
        reports = reports or resolve_path(cells[0].config.paths.reports) / sweep_dir.name
        report = problem = None
        if self.report:
            report, problem = finish.make_report(self.build_report, sweep_dir, reports)
        problems = [problem, finish.finish_mlflow(sweep_dir, outcomes, report)]
        finish.print_end(
            console,
            outcomes,
            sweep_dir=sweep_dir,
            report=report,
            problems=[p for p in problems if p],
        )
        self.tell(sweep_dir, console, page=report)
        return problem is None


def print_cells(design: Design, cells: Sequence[Cell], console: Console) -> None:
    """The cells of a sweep as they would run."""
    repeats = f" ({counted(design.left_out, 'repeat')} left out)" if design.left_out else ""
    finish.print_line(
        console, f"sweep {design.name} · {counted(len(cells), 'cell')}{repeats}, nothing started"
    )
    titles = unique_titles((c.label, c.config.seed, c.signature) for c in cells)
    width = max(map(len, titles))
    for title, cell in zip(titles, cells, strict=True):
        given = " ".join(o for o in cell.point.overrides if not o.startswith("dry="))
        finish.print_line(
            console, f"{title:<{width}}  {cell.signature}  {state_of(cell.open()):<7}  {given}"
        )


def print_findings(cells: Sequence[Cell], console: Console) -> None:
    """Say what weights and data are missing, and what to mind, of cells that are only looked at.

    Raises:
        ConfigError: the model of one cannot be built.
    """
    for line in preflight.findings([cell.config for cell in cells]):
        finish.print_line(console, line, "yellow")


def prepare(cells: Sequence[Cell], console: Console) -> None:
    """Look for the weights and make and read the data that the cells still to run need, once.

    Raises:
        ConfigError: weights are missing. DataError: the data cannot be read.
    """
    if left := waiting(cells):
        finish.print_line(console, "checking weights and data (data that is missing is made now)")
        preflight.check([cell.config for cell in left])


def waiting(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are still to run."""
    return [cell for cell in cells if cell.rerun or cell.open().status != DONE]


def supervise(
    supervisor: Supervisor,
    pool: Pool,
    cells: Sequence[Cell],
    heading: str,
    console: Console,
    *,
    show: bool = True,
) -> None:
    """Step the supervisor until all cells have an outcome; Ctrl-C stops the workers first."""
    titles = unique_titles((c.label, c.config.seed, c.signature) for c in cells)
    watches = [Watch(cell.open(), title) for cell, title in zip(cells, titles, strict=True)]

    def draw() -> float:
        """Show all cells; when to do so again: the more of them there are, the later."""
        began = time.monotonic()
        states = supervisor.states()
        view.update([watch.read(states.get(watch.run.path)) for watch in watches])
        took = time.monotonic() - began
        return began + max(_REDRAW, took / _SHARE)

    with open_view(heading, console, slots=pool.slots, table=show) as view:
        again = 0.0
        try:
            while supervisor.active:
                changed = supervisor.step()
                if (changed and len(watches) <= _FEW) or time.monotonic() > again:
                    again = draw()
                time.sleep(_TICK)
            draw()
        except KeyboardInterrupt:
            supervisor.stop()
            draw()
            raise


def write_sweep(
    sweep_dir: Path, design: Design, cells: Sequence[Cell], asked: Sequence[Cell] | None = None
) -> list[str]:
    """Write sweep.json; a sweep of the same cells keeps its parent run in MLflow.

    Cells of another command under the same name stay in view, as `earlier`. Those that come only
    while contrasts are open, which are not among `asked`, are `planned`. Returns what to say.
    """
    signatures = [cell.signature for cell in cells]
    seeds = [cell.config.seed for cell in cells]
    content = to_json(design, signatures, seeds, command(), time.time())
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with sweep_directory.lock(sweep_dir):
        try:
            before = sweep_directory.read(sweep_dir)
        except ConfigError:  # this is the command that writes it anew
            before = {}
        content["earlier"] = sweep_directory.earlier(before, signatures)
        if sweep_directory.signatures(before) == set(signatures):
            content |= {key: before.get(key) for key in sweep_directory.TRACKED}
        now = signatures if asked is None else [cell.signature for cell in asked]
        content = sweep_directory.asking(content, now)
        content["declared"] = declaration.first(before, content, content["started"])
        if design.looks:
            looks.check_design(sweep_dir, content)
        sweep_directory.write(sweep_dir, content)
    count = len(content["earlier"])
    if not count:
        return []
    return [
        f"{sweep_dir.name} also holds {counted(count, 'cell')} of other commands: "
        f"`keyseg status {sweep_dir.name}` and `keyseg cancel {sweep_dir.name}` mean them, too, "
        "the report does not; name=OTHER keeps sweeps apart"
    ]


def command() -> str:
    """The command line that started this process, as one would type it; without passwords."""
    return without_passwords(shlex.join(["python", *sys.argv]))


@contextmanager
def sigterm_is_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) end the body like Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_parent(sweep_dir: Path, cells: Sequence[Cell] = ()) -> threading.Thread:
    """Make the parent run while the workers start: importing mlflow takes seconds.

    `cells`: where all of them are done, a parent that is there is left alone.
    """

    def start() -> None:
        done = cells and all(c.open().status == DONE for c in cells)
        if done and sweep_directory.read(sweep_dir).get("mlflow_parent"):
            return
        # What goes wrong is told at the end, when the store is brought level.
        with suppress(Exception):
            parent_run.start(sweep_dir)

    thread = threading.Thread(target=start, daemon=True, name="mlflow-parent")
    thread.start()
    return thread


def keep_threads(cell: Cell, threads: int) -> None:
    """Remember the threads of a run, so that it goes on with as many."""
    run = cell.open()
    if not {"threads", "damaged"} & run.info.keys():
        run.update(threads=cell.config.runtime.threads or threads)


def _job_return(cell: Cell, outcome: Outcome) -> JobReturn:
    done = JobReturn(overrides=cell.point.overrides, status=JobStatus.COMPLETED)
    done.return_value = cell.open().info.get("summary")
    return done


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
