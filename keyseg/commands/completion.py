"""Tab completion: names of commands, options, sweeps and runs.

A shell asks through argcomplete: `eval "$(register-python-argcomplete keyseg)"`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from keyseg.config import PROJECT, ConfigError, resolve_path
from keyseg.runs.finding import full_names, sweep_names

# argcomplete is imported late: only a shell that asks waits for it.


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may come next, and end; nothing for anybody else."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    for action in _actions(parser):
        action.completer = _known  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """What stands for a sweep or a run, in all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        elif action.metavar in ("SWEEP", "RUN"):
            yield action


def _known(action: argparse.Action, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of sweeps, or of runs as SWEEP/LABEL/SEED."""
    outputs = resolve_path(parsed_args.outputs)
    sweeps = sweep_names(outputs)
    if action.metavar == "SWEEP":
        return sweeps
    data = _data_sets() if action.dest == "words" else []
    return [*sweeps, *_runs(outputs, sweeps), *data]


def _data_sets() -> list[str]:
    """What `keyseg evaluate` may be given for its data."""
    return [f"data={f.stem}" for f in sorted((PROJECT / "experiments" / "data").glob("*.yaml"))]


def _runs(outputs: Path, sweeps: list[str]) -> Iterator[str]:
    for sweep in sweeps:
        with suppress(ConfigError):  # a damaged sweep.json of another sweep
            yield from full_names(outputs / sweep)
