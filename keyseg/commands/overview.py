"""`keyseg status` and `keyseg cancel`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

from keyseg.config import ConfigError
from keyseg.runs.run_directory import QUEUED, RUNNING
from keyseg.sweep import finish
from keyseg.sweep.progress import open_view, render
from keyseg.sweep.slurm import reconcile
from keyseg.sweep.slurm.queue import SlurmError
from keyseg.sweep.status import TESTING, watches

_REDRAW = 2.0  # seconds


def show(sweep_dir: Path, *, watch: bool = False, failed: bool = False) -> None:
    """The table of a sweep; `watch`: until nothing runs or waits; `failed`: errors below it."""
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
    if failed:
        for line in reconcile.failures(rows, sweep_dir):
            finish.print_line(console, line)


def cancel(sweep_dir: Path) -> int:
    """End the jobs of a sweep; an exit code.

    Raises:
        ConfigError: SLURM does not answer.
    """
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
