"""`keyseg look SWEEP`: the next look at a sweep whose seeds come until the answer is in.

The last job of every look calls it on a cluster, so that a sweep goes on when nobody is there.
Launchers are imported late: every other command would wait for what they load.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keyseg.commands.sweeps import find_sweep, report_folder
from keyseg.config import ConfigError, resolve_path


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "look", help="decide what is still open in a sweep with until=verdict, and go on with that"
    )
    parser.add_argument("sweep", metavar="SWEEP")
    parser.add_argument("--out", metavar="DIR", help="where reports go (the sweep's paths.reports)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from keyseg import report
    from keyseg.runs import sweep_directory
    from keyseg.runs.looks import LookPlan
    from keyseg.sweep import finish
    from keyseg.sweep.launcher import Detached
    from keyseg.sweep.slurm import launcher
    from keyseg.sweep.stored import stored_cells

    sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    sweep = sweep_directory.read(sweep_dir)
    plan = LookPlan.of(sweep)
    if plan is None:
        raise ConfigError(
            f"the seeds of '{options.sweep}' do not come by looks; until=verdict with its command "
            "asks for that"
        )
    console, reports = Console(), report_folder(sweep_dir, options.out)

    class Launcher(launcher.LeftLauncher):
        """A sweep that goes on by itself: what it decides and writes is the report's to know."""

        def decide(self, folder: Path) -> Any:
            return report.decide(folder)

        def build_report(self, folder: Path, out_dir: Path) -> Path:
            page = report.build(folder, out_dir).html
            report.write_overview(out_dir.parent)
            return page

    cells = stored_cells(sweep_dir, sweep)
    left = Launcher.of(sweep_dir)
    with sweep_directory.hold(sweep_dir, [cell.signature for cell in cells]):
        try:
            outcomes = left.go_on(plan, cells, console)
        except Detached as detached:
            finish.print_line(console, str(detached))
            return 0
    done = left.end(sweep_dir, cells, outcomes, console, reports / sweep_dir.name)
    return 0 if done and all(outcome.status == "done" for outcome in outcomes) else 1
