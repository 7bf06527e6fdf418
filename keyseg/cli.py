"""`keyseg report | status | cancel | sync | ...`: what there is to do beside runs.

Heavy things are imported by the commands that need them, so that each starts in about a second.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from keyseg.config import ConfigError, resolve_path
from keyseg.report import command
from keyseg.sweep import plan

COMMANDS = ("data",)
"""Modules of `keyseg.commands`: each registers its own command, and imports nothing heavy."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 if something failed, with 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `keyseg status ... | head`
        sys.stderr.close()
        code = 0
    raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keyseg",
        description="What there is to do beside runs, which run.py starts.",
    )
    parser.add_argument("--outputs", default="outputs", help="where the sweeps are (outputs)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command.register(commands, find_sweep)

    status = commands.add_parser("status", help="a table of the cells of a sweep")
    status.add_argument("sweep", metavar="SWEEP", nargs="?", help="all sweeps if left out")
    status.add_argument("--watch", action="store_true", help="keep the table up to date")
    status.add_argument("--failed", action="store_true", help="show the end of each failed log")
    status.set_defaults(run=_status)

    cancel = commands.add_parser("cancel", help="end the jobs of a sweep on a cluster")
    cancel.add_argument("sweep", metavar="SWEEP")
    cancel.set_defaults(run=_cancel)

    plan.register(commands, find_sweep)

    sync = commands.add_parser("sync", help="bring MLflow level with the run directories")
    sync.add_argument("sweeps", metavar="SWEEP", nargs="*", help="all sweeps if left out")
    sync.add_argument("--out", default="reports/out", help="where reports are (reports/out)")
    sync.set_defaults(run=_sync)
    for name in COMMANDS:
        importlib.import_module(f"keyseg.commands.{name}").register(commands)
    return parser


def find_sweep(outputs: Path, name: str) -> Path:
    """The folder of a sweep.

    Raises:
        ConfigError: there is none of this name; says which one is near.
    """
    known = sweep_names(outputs)
    if name in known:
        return outputs / name
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = f" Sweeps: {', '.join(known)}" if known else " There is no sweep yet."
    raise ConfigError(f"there is no sweep '{name}' in {outputs}.{hint}{listed}")


def sweep_names(outputs: Path) -> list[str]:
    """Folders in outputs/ that hold runs."""
    if not outputs.is_dir():
        return []
    return sorted(
        folder.name
        for folder in outputs.iterdir()
        if (folder / "sweep.json").exists() or any(folder.glob("*/run.json"))
    )


def _status(options: argparse.Namespace) -> int:
    from keyseg.sweep import overview

    outputs = resolve_path(options.outputs)
    names = [options.sweep] if options.sweep else sweep_names(outputs)
    if not names:
        print(f"there is no sweep in {outputs} yet", file=sys.stderr)
        return 0
    for name in names:
        overview.show(find_sweep(outputs, name), watch=options.watch, failed=options.failed)
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from keyseg.sweep import overview

    return overview.cancel(find_sweep(resolve_path(options.outputs), options.sweep))


def _sync(options: argparse.Namespace) -> int:
    from keyseg import sweepdir, tracking
    from keyseg.rundir import RunDirectory

    outputs = resolve_path(options.outputs)
    failed = 0
    for name in options.sweeps or sweep_names(outputs):
        sweep_dir = find_sweep(outputs, name)
        runs = [RunDirectory(file.parent) for file in sorted(sweep_dir.glob("*/run.json"))]
        try:
            in_sweep = bool(sweepdir.read(sweep_dir))
            if in_sweep:
                tracking.start_parent(sweep_dir)
            for run in runs:
                tracking.sync(run)
            if in_sweep:
                page = resolve_path(options.out) / name
                tracking.finish_parent(sweep_dir, page if page.is_dir() else None)
        except Exception as error:
            failed += 1
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"error: {name}: {tracking.store_uri()}: {reason}", file=sys.stderr)
            continue
        noun = "run" if len(runs) == 1 else "runs"
        print(f"{name}: {len(runs)} {noun} level with {tracking.store_uri()}")
    return 1 if failed else 0
