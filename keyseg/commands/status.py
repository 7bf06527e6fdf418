"""`keyseg status` and `keyseg cancel`: where the cells of a sweep stand, and an end to its jobs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from keyseg.commands.sweeps import find_sweep, sweep_names
from keyseg.config import resolve_path


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
    from keyseg.commands import overview

    outputs = resolve_path(options.outputs)
    names = [options.sweep] if options.sweep else sweep_names(outputs)
    if not names:
        print(f"there is no sweep in {outputs} yet", file=sys.stderr)
        return 0
    for name in names:
        overview.show(find_sweep(outputs, name), watch=options.watch, failed=options.failed)
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from keyseg.commands import overview

    return overview.cancel(find_sweep(resolve_path(options.outputs), options.sweep))
