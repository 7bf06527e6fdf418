"""`keyseg sync`: MLflow level with the run directories."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from keyseg.commands.sweeps import find_sweep, report_folder, sweep_names
from keyseg.config import resolve_path

# Imported late: what only this command needs, so that no other waits for it.


def register(commands: Any) -> None:
    """Add the command to the parser."""
    sync = commands.add_parser("sync", help="bring MLflow level with the run directories")
    sync.add_argument("sweeps", metavar="SWEEP", nargs="*", help="all sweeps if left out")
    sync.add_argument("--out", metavar="DIR", help="where reports are (the sweep's paths.reports)")
    sync.add_argument(
        "--all", action="store_true", help="ask the store for every run, those that were level, too"
    )
    sync.set_defaults(run=_sync)


def _sync(options: argparse.Namespace) -> int:
    from keyseg.tracking import store

    outputs = resolve_path(options.outputs)
    failed = 0
    for name in options.sweeps or sweep_names(outputs):
        sweep_dir = find_sweep(outputs, name)
        page = report_folder(sweep_dir, options.out) / name
        level, problems = bring_level(sweep_dir, page, every=options.all)
        for problem in problems:
            failed += 1
            print(f"error: {name}{problem}", file=sys.stderr)
        if level is not None:
            runs = "run" if level == 1 else "runs"
            print(f"{name}: {level} {runs} level with {store.shown_store(sweep_dir)}")
    return 1 if failed else 0


def bring_level(
    sweep_dir: Path, page: Path | None, *, every: bool = False
) -> tuple[int | None, list[str]]:
    """Bring MLflow level with a sweep: how many runs are, and what went wrong.

    page: the folder of its report. every: ask the store for runs that were level, too. None: the
    store does not answer.
    """
    from keyseg.runs import sweep_directory
    from keyseg.runs.private_files import without_passwords
    from keyseg.runs.run_directory import RunDirectory
    from keyseg.tracking import parent_run, store
    from keyseg.tracking import sync as tracking

    runs = [RunDirectory(file.parent) for file in sorted(sweep_dir.glob("*/run.json"))]
    try:
        in_sweep = bool(sweep_directory.read(sweep_dir))
        if in_sweep:
            parent_run.start(sweep_dir)
        problems = tracking.sync_all(runs if every else tracking.behind(runs))
        if in_sweep:
            parent_run.finish(sweep_dir, page if page and page.is_dir() else None)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, [f": {store.shown_store(sweep_dir)}: {without_passwords(reason)}"]
    return len(runs) - len(problems), [f"/{problem}" for problem in problems]
