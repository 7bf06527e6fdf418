"""`keyseg status` and `keyseg cancel`: where the cells of a sweep stand, and an end to its jobs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.sweeps import find_sweep, sweep_names
from keyseg.config import ConfigError, resolve_path
from keyseg.runs.titles import by_reason

if TYPE_CHECKING:
    from keyseg.sweep.status import CellStatus

# What draws tables and asks SLURM is imported late: every other command would wait for it.

_REDRAW = 2.0  # seconds


def register(commands: Any) -> None:
    """Add the commands to the parser."""
    status = commands.add_parser("status", help="the cells of a sweep, or all sweeps at a glance")
    status.add_argument("sweep", metavar="SWEEP", nargs="?", help="all, a line each, if left out")
    status.add_argument("--watch", action="store_true", help="keep the table up to date")
    status.add_argument("--failed", action="store_true", help="show the end of each failed log")
    status.set_defaults(run=_status)
    cancel = commands.add_parser("cancel", help="end the jobs of a sweep on a cluster")
    cancel.add_argument("sweep", metavar="SWEEP")
    cancel.set_defaults(run=_cancel)


def _status(options: argparse.Namespace) -> int:
    outputs = resolve_path(options.outputs)
    if options.sweep:
        _show(find_sweep(outputs, options.sweep), watch=options.watch, failed=options.failed)
        return 0
    names = sweep_names(outputs)
    if not names:
        print(f"there is no sweep in {outputs} yet", file=sys.stderr)
        return 0
    return _show_all([outputs / name for name in names], watch=options.watch, failed=options.failed)


def _show_all(folders: Sequence[Path], *, watch: bool, failed: bool) -> int:
    """A line for each sweep; `watch`: until nothing runs or waits. 2 where one cannot be read."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from keyseg.runs.run_directory import QUEUED, RUNNING
    from keyseg.sweep import finish, overview
    from keyseg.sweep.slurm import reconcile
    from keyseg.sweep.status import watches

    console = Console()
    rows, damaged, trouble = overview.summaries(folders)

    def drawn() -> Text:
        return Text("\n".join(overview.table(rows)), no_wrap=True, overflow="ellipsis")

    if watch and console.is_terminal:
        with Live(drawn(), console=console, auto_refresh=False) as live:
            while any(row.state in (RUNNING, QUEUED) for row in rows):
                time.sleep(_REDRAW)
                rows, damaged, trouble = overview.summaries(folders)
                live.update(drawn(), refresh=True)
    else:
        for line in overview.table(rows):
            finish.print_line(console, line)
    if trouble:
        finish.print_line(console, _no_answer(trouble), "yellow")
    for row in rows if failed else []:
        if row.failed:
            folder = next(folder for folder in folders if folder.name == row.name)
            cells = reconcile.Overview(watches(folder)).read()
            finish.print_line(console, row.name)
            for line in reconcile.failures(cells, folder):
                finish.print_line(console, line)
    for problem in damaged:
        print(f"error: {problem}", file=sys.stderr)
    return 2 if damaged else 0


def _show(sweep_dir: Path, *, watch: bool = False, failed: bool = False) -> None:
    """The table of a sweep; `watch`: until nothing runs or waits; `failed`: errors below it."""
    from rich.console import Console

    from keyseg.runs import looks, sweep_directory
    from keyseg.runs.run_directory import QUEUED, RUNNING
    from keyseg.sweep import finish
    from keyseg.sweep.progress import open_view, render
    from keyseg.sweep.slurm import reconcile
    from keyseg.sweep.status import TESTING, watches

    console = Console()
    heading = f"sweep {sweep_dir.name}"
    overview = reconcile.Overview(watches(sweep_dir))
    rows = overview.read()
    if watch:
        with open_view(heading, console) as view:
            view.update(rows)
            while any(row.state in (RUNNING, TESTING, QUEUED) for row in rows):
                time.sleep(_REDRAW)
                rows = overview.read()
                view.update(rows)
    else:
        console.print(render(heading, rows, console.width))
    if overview.trouble:
        finish.print_line(console, _no_answer(overview.trouble), "yellow")
    for line in stale_lines(rows):
        finish.print_line(console, line, "yellow")
    if plan := looks.LookPlan.of(sweep_directory.read(sweep_dir)):
        for line in looks.contrast_lines(plan, looks.read(sweep_dir)):
            finish.print_line(console, line)
    if failed:
        for line in reconcile.failures(rows, sweep_dir):
            finish.print_line(console, line)


def _no_answer(trouble: str) -> str:
    return f"warning: SLURM does not answer ({trouble}); shown: run directories only"


def stale_lines(rows: Iterable[CellStatus]) -> Iterator[str]:
    """What was done by other code than today's: a line for each set of changes."""
    from keyseg.runs import code
    from keyseg.runs.run_directory import DONE, RunDirectory

    stale: list[tuple[str, str]] = []
    for row in rows:
        if row.state == DONE:
            changed = code.changes(RunDirectory(row.path).info, row.path)
            if changed:
                stale.append((row.title, f"other code now: {code.listed(changed)}"))
    for line in by_reason(stale):
        yield f"stale: {line}"
    if stale:
        yield "stale=rerun with the command of the sweep runs them again, stale=keep takes them"


def _cancel(options: argparse.Namespace) -> int:
    """End the jobs of a sweep.

    Raises:
        ConfigError: SLURM does not answer.
    """
    from keyseg.runs import sweep_directory
    from keyseg.sweep.slurm import reconcile
    from keyseg.sweep.slurm.queue import SlurmError

    sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    try:
        count = reconcile.cancel(sweep_dir)
    except SlurmError as error:
        if "denied" in str(error).lower():
            whose = sweep_directory.owner(sweep_dir)
            raise ConfigError(
                f"{sweep_dir.name} is {whose}'s: only they, or an operator of the cluster, can end "
                f"its jobs ({error})"
            ) from error
        raise ConfigError(f"nothing was cancelled: SLURM does not answer: {error}") from error
    if not count:
        print(f"{sweep_dir.name}: no job is queued or at work", file=sys.stderr)
        return 1
    print(
        f"{sweep_dir.name}: {count} {'job' if count == 1 else 'jobs'} cancelled; the command of "
        "the sweep goes on from their last checkpoints"
    )
    return 0
