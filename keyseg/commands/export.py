"""`keyseg export RUN DIR`: a run's model in the formats of transformers and segment_anything.

`keyseg export predictions RUN`: its masks as JSON Lines, for others to score.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keyseg.commands import export_predictions
from keyseg.config import CHOICES, PROTOCOLS, ConfigError, resolve_path
from keyseg.runs.finding import HELP, find_finished

# Imported late: what only this command needs, so that no other waits for it.

PREDICTIONS = "predictions"
"""In the place of a run: its masks are meant. No run can be called so."""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="a merged model that plain transformers and segment_anything load; or its masks",
        usage="keyseg export [-h] [--dtype DTYPE] RUN DIR\n       "
        "keyseg export predictions [--protocol PROTOCOL] [--out FILE] RUN",
    )
    parser.add_argument("run_name", metavar="RUN", help=HELP)
    parser.add_argument("folder", metavar="DIR", help="must not exist, or be empty")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, help="of the masks (the run's headline protocol)"
    )
    parser.add_argument("--out", metavar="FILE", help="of the masks (reports/out/predictions/...)")
    parser.add_argument(
        "--dtype",
        choices=CHOICES["model.precision"],
        help="of the language side's weights (as the run kept them)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.run_name == PREDICTIONS:
        return export_predictions.run(options.folder, options)
    if options.protocol or options.out:
        raise ConfigError("--protocol and --out belong to `keyseg export predictions RUN`")
    run = find_finished(resolve_path(options.outputs), options.run_name)
    from keyseg.model.backbones.weights import WeightsError, check_trained_on, check_weights
    from keyseg.predict.export import export

    check_weights(run.config)
    check_trained_on(run.config, run.info)
    try:
        folder = export(run, Path(options.folder).expanduser(), options.dtype)
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder} ({size / 1e9:.2f} GB); {folder / 'README.md'} says how to load it")
    return 0
