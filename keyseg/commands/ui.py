"""`keyseg ui [SWEEP]`: MLflow on the store that a sweep is in, and the page of that sweep."""

from __future__ import annotations

import argparse
import signal
import threading
import webbrowser
from typing import Any

from keyseg.commands.sweeps import find_sweep
from keyseg.config import ConfigError, resolve_path

# Imported late: what only this command needs, so that no other waits for it.

_PORT = 5000


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("ui", help="start MLflow on the right store, at a sweep's page")
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help="all sweeps if left out")
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument(
        "--port",
        type=int,
        help=f"of MLflow on this machine ({_PORT}, or the next one that is free)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from keyseg.runs.private_files import without_user
    from keyseg.tracking import serve, store

    sweep_dir = None
    if options.sweep:
        sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    uri = store.store_uri(sweep_dir)
    if uri == store.OFF:
        raise ConfigError("MLFLOW_TRACKING_URI=none: tracking is off, so there is nothing to show")
    try:
        places = serve.places(uri, sweep_dir)
    except LookupError as error:
        raise ConfigError(f"{store.shown_store(sweep_dir)}: {error}") from error
    if uri.startswith(("http://", "https://")):
        _show(without_user(uri).rstrip("/"), places, browser=options.open)
        return 0
    port = serve.free_port(options.port or _PORT, others=options.port is None)
    print(f"MLflow on {store.shown_store(sweep_dir)} starts ...", flush=True)
    try:
        with serve.serving(uri, port) as address:
            _show(address, places, browser=options.open)
            if line := serve.tunnel(port):
                print(f"from your own machine first:  {line}")
            print("Ctrl-C ends it", flush=True)
            _wait()
    except serve.ServerError as error:
        said = str(error).splitlines()[-1]
        raise ConfigError(f"MLflow does not start: {said}") from error
    return 0


def _show(address: str, places: dict[str, str], *, browser: bool) -> None:
    width = max(map(len, places))
    for name, place in places.items():
        print(f"{name:<{width}}  {address}/{place}", flush=True)
    if browser:
        webbrowser.open(f"{address}/{next(iter(places.values()))}")


def _wait() -> None:
    """Until somebody has seen enough: Ctrl-C, or SIGTERM."""
    over = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: over.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while not over.wait(1):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
