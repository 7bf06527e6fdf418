"""The command line `keyseg`; each command is a module of `commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from keyseg.commands import (
    bundle,
    data,
    diff,
    evaluate,
    export,
    features,
    import_weights,
    imports,
    intervene,
    keywords,
    look,
    notify,
    plan,
    predict,
    remove,
    report,
    score,
    status,
    sync,
    ui,
)
from keyseg.commands.completion import complete
from keyseg.config import ConfigError
from keyseg.data.files import DataError
from keyseg.runs import packages
from keyseg.runs.disk import DiskFullError
from keyseg.runs.private_files import without_passwords
from keyseg.runs.text_encoding import in_utf8

COMMANDS = (
    report,
    status,
    plan,
    look,
    diff,
    remove,
    notify,
    sync,
    ui,
    predict,
    score,
    evaluate,
    imports,
    import_weights,
    export,
    intervene,
    data,
    features,
    keywords,
    bundle,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 if something failed, with 2 for a wrong command line."""
    if arguments is None:
        in_utf8()
    parser = _parser()
    complete(parser)
    options, rest = parser.parse_known_args(arguments)
    # argparse takes a list of arguments in one piece only: what follows an option is left over.
    if rest and (
        not hasattr(options, "overrides") or any(r[:1] == "-" or "=" not in r for r in rest)
    ):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    try:
        packages.load()
        code: int = options.run(options)
    except (ConfigError, DataError, DiskFullError) as error:
        print(f"error: {without_passwords(str(error))}", file=sys.stderr)
        code = 2 if isinstance(error, ConfigError) else 1
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
    for module in COMMANDS:
        module.register(commands)
    return parser
