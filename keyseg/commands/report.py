"""`keyseg report SWEEP [SWEEP ...]`: build a report again, or one over several, or a live page."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keyseg.commands.sweeps import find_sweep, report_folder
from keyseg.config import ConfigError, resolve_path
from keyseg.report import FORMATS, build, write_overview

log = logging.getLogger("keyseg.report.command")


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("report", help="build the report of a sweep, or of several, again")
    parser.add_argument("sweeps", metavar="SWEEP", nargs="+", help="several are joined to one")
    parser.add_argument("--out", metavar="DIR", help="where reports go (the sweep's paths.reports)")
    parser.add_argument(
        "--format",
        type=_list,
        default=[],
        metavar="A,B",
        help=f"write these only: {','.join(FORMATS)} (all)",
    )
    parser.add_argument(
        "--metric",
        type=_list,
        default=[],
        metavar="A,B",
        help="give verdicts on these, e.g. giou,precision@0.5 (the sweep's own)",
    )
    parser.add_argument(
        "--baseline",
        type=_list,
        default=[],
        metavar="FACTOR=VALUE",
        help="hold every variant against this one instead of the declared contrasts",
    )
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="serve a page on this machine that is renewed as cells report, until Ctrl-C",
    )
    parser.add_argument("--port", type=int, help="of --watch (any that is free)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    folders = [find_sweep(resolve_path(options.outputs), name) for name in options.sweeps]
    for name, folder in zip(options.sweeps, folders, strict=True):
        if not (folder / "sweep.json").exists():
            raise ConfigError(
                f"'{name}' holds single runs; a report compares the cells of a sweep: "
                "python run.py -m fusion=cross,self,full"
            )
    if options.watch:
        return _watch(options, folders[0])
    if options.port is not None:
        raise ConfigError("--port is of --watch")
    for name in options.format:
        if name not in FORMATS:
            raise ConfigError(f"--format {name}: must be one of {', '.join(FORMATS)}")
    asked: dict[str, Any] = {
        "joined": folders[1:],
        "metrics": options.metric,
        "baseline": _pairs(options.baseline),
        "formats": options.format,
    }
    asked = {key: value for key, value in asked.items() if value}
    names = list(dict.fromkeys(options.sweeps))
    out = report_folder(folders[0], options.out) / "+".join(names)
    with _progress():
        log.info("reading %s", ", ".join(names))
        from keyseg.sweep.finish import log_report, make_report, short_path  # a second of imports

        page, problem = make_report(lambda *places: build(*places, **asked).html, folders[0], out)
    if page is None:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    write_overview(out.parent)
    print(short_path(page), flush=True)
    # What a sweep itself would say goes to its parent run; what was asked otherwise does not.
    if not asked and (problem := log_report(folders[0], page)):
        print(f"warning: {problem}", file=sys.stderr)
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    return 0


def _watch(options: argparse.Namespace, folder: Path) -> int:
    """Serve the live page until interrupted."""
    if len(options.sweeps) > 1 or options.format or options.metric or options.baseline:
        raise ConfigError("--watch shows one sweep as its design states it")
    from keyseg.commands import live  # draws and computes: seconds of imports

    def ready(address: str) -> None:
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if os.environ.get("SSH_CONNECTION"):
            port = urlsplit(address).port
            print(f"from your own machine: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}")
        if options.open:
            webbrowser.open(address)

    report = report_folder(folder, options.out) / folder.name / "index.html"
    try:
        live.serve(folder, report, options.port or 0, ready)
    except OSError as error:
        raise ConfigError(f"--port {options.port}: {error.strerror}; leave it out") from error
    except KeyboardInterrupt:
        print()
    return 0


@contextmanager
def _progress() -> Iterator[None]:
    """What the report logs on its way, on stderr: stdout has the page's path alone."""
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("keyseg.report")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    for key, value in pairs.items():
        if not key or not value:
            raise ConfigError(f"--baseline {key}: give FACTOR=VALUE, like fusion=seg_only")
    return pairs
