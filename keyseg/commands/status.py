"""`keyseg status` and `keyseg cancel`: where the cells of a sweep stand, and an end to its jobs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.sweeps import find_sweep, sweep_names
from keyseg.config import ConfigError, resolve_path

if TYPE_CHECKING:
    from keyseg.sweep.status import CellStatus

# What draws tables and asks SLURM is imported late: every other command would wait for it.

_REDRAW = 2.0  # seconds


def register(commands: Any) -> None:
    """Add the commands to the parser."""
    status = commands.add_parser("status", help="a table of the cells of a sweep")
    status.add_argument("sweep", metavar="SWEEP", nargs="?", help="all sweeps if left out")
    status.add_argument("--watch", action="store_true", help="keep the table up to date")
    status.add_argument("--failed", action="store_true", help="show the end of each failed log")
    status.set_defaults(run=_status)
    cancel = commands.add_parser("cancel", help="end the jobs of a sweep on a cluster")
    cancel.add_argument("sweep", metavar="SWEEP")
    cancel.set_defaults(run=_cancel)


def _status(options: argparse.Namespace) -> int:
    outputs = resolve_path(options.outputs)
    names = [options.sweep] if options.sweep else sweep_names(outputs)
    if not names:
        print(f"there is no sweep in {outputs} yet", file=sys.stderr)
        return 0
    code = 0
    for name in names:
        try:
            _show(find_sweep(outputs, name), watch=options.watch, failed=options.failed)
        except ConfigError as error:  # of one sweep: the others are shown
            print(f"error: {error}", file=sys.stderr)
            code = 2
    return code


def _show(sweep_dir: Path, *, watch: bool = False, failed: bool = False) -> None:
    """The table of a sweep; `watch`: until nothing runs or waits; `failed`: errors below it."""
    from rich.console import Console

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
        text = f"warning: SLURM does not answer ({overview.trouble}); shown: run directories only"
        finish.print_line(console, text, "yellow")
    for line in stale_lines(rows):
        finish.print_line(console, line, "yellow")
    if failed:
        for line in reconcile.failures(rows, sweep_dir):
            finish.print_line(console, line)


def stale_lines(rows: Iterable[CellStatus]) -> Iterator[str]:
    """What was done by other code than today's: a line for each set of changes."""
    from keyseg.runs import code
    from keyseg.runs.run_directory import DONE, RunDirectory

    stale: dict[str, list[str]] = {}
    for row in rows:
        if row.state == DONE:
            changed = code.changes(RunDirectory(row.path).info, row.path)
            if changed:
                stale.setdefault(code.listed(changed), []).append(row.title)
    for changes, titles in stale.items():
        yield f"stale: {', '.join(titles)}: other code now: {changes}"
    if stale:
        yield "stale=rerun with the command of the sweep runs them again, stale=keep takes them"


def _cancel(options: argparse.Namespace) -> int:
    """End the jobs of a sweep.

    Raises:
        ConfigError: SLURM does not answer.
    """
    from keyseg.sweep.slurm import reconcile
    from keyseg.sweep.slurm.queue import SlurmError

    sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    try:
        count = reconcile.cancel(sweep_dir)
    except SlurmError as error:
        raise ConfigError(f"nothing was cancelled: SLURM does not answer: {error}") from error
    if not count:
        print(f"{sweep_dir.name}: no job is queued or at work", file=sys.stderr)
        return 1
    print(
        f"{sweep_dir.name}: {count} {'job' if count == 1 else 'jobs'} cancelled; the command of "
        "the sweep goes on from their last checkpoints"
    )
    return 0
