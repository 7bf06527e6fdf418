"""`keyseg bundle SWEEP` and `keyseg verify ARCHIVE`: a sweep as one file that can be checked.

What computes is imported late: it loads pandas.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keyseg.commands.sweeps import find_sweep, report_folder
from keyseg.config import ConfigError, resolve_path
from keyseg.runs.archive import MOST_BYTES, ArchiveError

_MOST_LINES = 30


def register(commands: Any) -> None:
    """Add the commands to the parser."""
    pack = commands.add_parser(
        "bundle", help="a sweep in one archive: design, configs, samples, fingerprints, report"
    )
    pack.add_argument("sweep", metavar="SWEEP")
    pack.add_argument("--to", metavar="FILE", help="the archive (SWEEP.zip)")
    pack.add_argument("--out", metavar="DIR", help="where reports are (the sweep's paths.reports)")
    pack.set_defaults(run=_bundle)
    check = commands.add_parser(
        "verify", help="derive every number of a bundle again, offline, and say what differs"
    )
    check.add_argument("archive", metavar="ARCHIVE")
    check.add_argument(
        "--gib",
        type=float,
        default=MOST_BYTES / 2**30,
        help=f"most that is unpacked ({MOST_BYTES / 2**30:g})",
    )
    check.set_defaults(run=_verify)


def _bundle(options: argparse.Namespace) -> int:
    sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    if not (sweep_dir / "sweep.json").exists():
        raise ConfigError(f"'{options.sweep}' holds single runs; a bundle is of a sweep")
    from keyseg.report import bundle

    target = Path(options.to or f"{sweep_dir.name}.zip")
    names = bundle.bundle(sweep_dir, target, report_folder(sweep_dir, options.out) / sweep_dir.name)
    size = target.stat().st_size / 2**20
    print(
        f"{target}: {len(names)} files, {size:.1f} MiB. `keyseg verify {target}` derives it again"
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    """0 where all that the archive states is derived again from its samples, else 1.

    Raises:
        ConfigError: the archive cannot be used.
    """
    source = Path(options.archive)
    if not source.is_file():
        raise ConfigError(f"{source}: there is no such file; `keyseg bundle SWEEP` writes one")
    from keyseg.report import bundle

    try:
        verified = bundle.verify(source, int(options.gib * 2**30))
    except ArchiveError as error:
        raise ConfigError(str(error)) from error
    for line in verified.holds:
        print(f"holds    {line}")
    for line in verified.differs[:_MOST_LINES]:
        print(f"DIFFERS  {line}")
    if len(verified.differs) > _MOST_LINES:
        print(f"DIFFERS  and {len(verified.differs) - _MOST_LINES} more")
    print(f"{source}: {'differs' if verified.differs else 'verified'}")
    return 1 if verified.differs else 0
