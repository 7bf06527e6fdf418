"""`keyseg plan SWEEP`: what of a sweep is still to run, and what that costs."""

from __future__ import annotations

import argparse
from typing import Any

from keyseg.commands import remaining
from keyseg.commands.sweeps import find_sweep
from keyseg.config import ConfigError, resolve_path
from keyseg.runs import sweep_directory


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plan", help="what of a sweep is still to run, and what it costs")
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep, or a file in sweeps/")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    except ConfigError:
        found = remaining.unstarted(options.sweep)
        if found is None:
            raise
        print("\n".join(found))
        return 0
    design = sweep_directory.read(sweep_dir)
    if not design:
        raise ConfigError(f"'{options.sweep}' holds single runs; only a sweep has a plan")
    command = str(design.get("command") or "its first command")
    tuned = design.get("tune")
    lines = (
        remaining.trials(sweep_dir, command)
        if tuned
        else remaining.lines(remaining.read(sweep_dir), command)
    )
    print("\n".join(lines))
    return 0
