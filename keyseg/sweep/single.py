"""One run in this process: `python run.py`, without -m."""

from __future__ import annotations

import os
import sys
import threading
import traceback

from omegaconf import DictConfig
from rich.console import Console

from keyseg.config import ConfigError
from keyseg.runs import process_rank
from keyseg.runs.provenance import cores
from keyseg.runs.run_directory import DONE, FAILED, RUNNING, RunBusy, exit_code, state_of
from keyseg.sweep import finish, preflight, reuse, stale
from keyseg.sweep.cells import Cell, cell_of, check_scored, frozen
from keyseg.sweep.design import SINGLE, Point, check_block, folder_name
from keyseg.sweep.launcher import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    command,
    prepare,
    print_findings,
    sigterm_is_ctrl_c,
    waiting,
)
from keyseg.sweep.overrides import fail, one_line_errors
from keyseg.sweep.progress import open_view
from keyseg.sweep.status import Watch
from keyseg.sweep.supervise import Outcome

_REDRAW = 0.5  # seconds


def run_single(cfg: DictConfig) -> None:
    """Train and evaluate one cell at outputs/single/<signature>, or find it done.

    Of several processes (`accelerate launch run.py`) the first one prepares, shows and tells.
    """
    with one_line_errors(), sigterm_is_ctrl_c():
        if cfg.until:
            raise ConfigError(f"until={cfg.until} is for a sweep: add -m, and what is compared")
        if cfg.notify:
            raise ConfigError(
                "notify=COMMAND is told of sweeps: -m, or `python run.py ...; COMMAND`"
            )
        config = frozen(cfg)
        label = str(config.fusion["name"])
        point = Point(label, {"fusion": label}, config.seed, [])
        cell = cell_of(config, point, folder_name(SINGLE if config.name is None else config.name))
        check_scored([cell])
        check_block(config.ablation)
        console = Console()
        if config.ablation and not process_rank.rank():
            finish.print_line(console, "ablation: is of sweeps (-m); one run compares nothing")
        if process_rank.rank():
            _take_part(cell, dry=cfg.dry)
            return
        if cfg.dry:
            finish.print_line(console, f"{cell.title}: {state_of(cell.open())}, {cell.path}")
            for line in stale.summary_lines([cell], stale.find([cell])):
                finish.print_line(console, f"stale: {line}")
            preflight.check_devices([c.config for c in waiting([cell])])
            print_findings([cell], console)
            return
        lines = reuse.take_over([cell], wanted=bool(cfg.reuse))
        (cell,), more = stale.decide([cell], cfg)
        for line in [*lines, *more]:
            finish.print_line(console, line)
        preflight.check_devices([c.config for c in waiting([cell])])
        prepare([cell], console)
        reuse.take_over([cell], wanted=bool(cfg.reuse), create=True)
        outcome = _done(cell) or _run(cell, console)
    problem = finish.finish_mlflow(cell.path.parent, [outcome], None)
    finish.print_end(
        console,
        [outcome],
        sweep_dir=cell.path,
        report=None,
        problems=[problem] if problem else [],
    )
    if outcome.status == FAILED:
        raise SystemExit(EXIT_FAILED)


def _done(cell: Cell) -> Outcome | None:
    run = cell.begin()
    if run is None:
        fail(f"{finish.short_path(cell.path)}: another process works on this run", EXIT_FAILED)
    if damage := run.info.get("damaged"):
        fail(str(damage), EXIT_FAILED)
    run.freeze(cell.config)
    if run.status != DONE:
        return None
    if process_rank.count() > 1:
        _take_part(cell)  # the others wait to be told
    return Outcome(cell, DONE, before=True)


def _take_part(cell: Cell, *, dry: bool = False) -> None:
    """Work on a run without a word: the first process shows it, and says what went wrong."""
    if not dry:
        _take_threads(cell)
        from keyseg.worker.cell import run_cell  # loads torch: after its threads are set

        try:
            run_cell(cell.open())
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            raise SystemExit(EXIT_FAILED) from error


def _take_threads(cell: Cell) -> int:
    """This process's threads; before torch is loaded, which reads the variables once."""
    cores_each = max(1, cores() // process_rank.count_here())
    threads: int = cell.config.runtime.threads or cell.open().info.get("threads") or cores_each
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "KEYSEG_THREADS"):
        os.environ.setdefault(name, str(threads))
    return threads


def _run(cell: Cell, console: Console) -> Outcome:
    run = cell.open()
    run.update(threads=_take_threads(cell))
    from keyseg.worker.cell import run_cell  # loads torch: see above

    heading = f"{cell.title} · {finish.short_path(run.path)}"
    stop = threading.Event()
    with open_view(heading, console, table=cell.config.runtime.show_progress) as view:
        watch = Watch(run, cell.label)

        def show() -> None:
            while not stop.wait(_REDRAW):
                view.update([watch.read(RUNNING)])

        view.update([watch.read(RUNNING)])  # a run may end before the first look at it
        thread = threading.Thread(target=show, daemon=True, name="progress")
        thread.start()
        try:
            run_cell(run)
        except KeyboardInterrupt:
            _stopped(console)
        except RunBusy as error:
            fail(str(error), EXIT_FAILED)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            if exit_code(run) is None:
                run.update(status=FAILED, error=traceback.format_exc(limit=-3))
        finally:
            stop.set()
            thread.join()
            view.update([watch.read()])
    if kept := run.info.get("rerun_error"):
        return Outcome(cell, FAILED, error=f"{kept} (its results from before are kept)")
    return Outcome(cell, run.status)


def _stopped(console: Console) -> None:
    finish.print_line(console, f"stopped; the same command goes on from here: {command()}")
    raise SystemExit(EXIT_INTERRUPTED) from None
