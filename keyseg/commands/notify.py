"""`keyseg notify SWEEP`: what `notify=COMMAND` does at a sweep's end, by hand or as a last job."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from keyseg.commands.sweeps import find_sweep, report_folder
from keyseg.config import resolve_path


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "notify", help="say in one line of JSON how a sweep stands, or tell a command so"
    )
    parser.add_argument("sweep", metavar="SWEEP")
    parser.add_argument(
        "--out", metavar="DIR", help="where reports are (the sweep's paths.reports)"
    )
    parser.add_argument(
        "--command",
        default="",
        help="a shell command that gets the line on its stdin, unless it was told before",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from keyseg.sweep import notify  # imported late: no other command waits for what draws tables

    sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    page = report_folder(sweep_dir, options.out) / sweep_dir.name / "index.html"
    written = page if page.exists() else None
    if not options.command:
        print(json.dumps(notify.message(sweep_dir, page=written), ensure_ascii=False))
        return 0
    if problem := notify.tell(options.command, sweep_dir, page=written):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0
