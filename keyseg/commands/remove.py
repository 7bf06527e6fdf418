"""`keyseg rm SWEEP --failed|--stale`: delete run directories, after saying what that frees."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyseg.commands.sweeps import find_sweep, sweep_names
from keyseg.config import ConfigError, resolve_path
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import FAILED, RunBusy, RunDirectory

# What asks SLURM, and what compares code, is imported late: every other command would wait for it.


@dataclass(frozen=True)
class Removal:
    """A run directory to delete. `why`: in words; `size`: bytes that this frees (of a link: none).

    `attempts`: how many it had when it was looked at. `users`: other sweeps that have it by a link,
    and would lose it.
    """

    title: str
    run: RunDirectory
    why: str
    size: int
    attempts: int
    users: tuple[str, ...] = ()


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("rm", help="delete failed or stale runs of a sweep")
    parser.add_argument("sweep", metavar="SWEEP")
    parser.add_argument("--failed", action="store_true", help="those that failed or were lost")
    parser.add_argument(
        "--stale",
        action="store_true",
        help="those that today's code, data or backbones would not give again",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not (options.failed or options.stale):
        raise ConfigError("say which runs of it: --failed, --stale, or both")
    sweep_dir = find_sweep(resolve_path(options.outputs), options.sweep)
    try:
        return _remove(sweep_dir, options)
    except PermissionError as error:
        raise ConfigError(
            f"{sweep_dir.name} is {sweep_directory.owner(sweep_dir)}'s: {error}"
        ) from error


def _remove(sweep_dir: Path, options: argparse.Namespace) -> int:
    with sweep_directory.idle(sweep_dir):
        planned = removals(sweep_dir, failed=options.failed, stale=options.stale)
    kept = [removal for removal in planned if removal.users]
    doomed = [removal for removal in planned if not removal.users]
    for removal in kept:
        print(f"kept: {removal.title}: {', '.join(removal.users)} has it by a link")
    if not doomed:
        print(f"{sweep_dir.name}: nothing to remove")
        return 0
    print("\n".join(lines(doomed)))
    if not (options.yes or _agreed(len(doomed))):
        print("nothing was removed")
        return 1
    with sweep_directory.idle(sweep_dir):  # anew: an answer may take long
        left = list(_delete(doomed))
    for title in left:
        print(f"error: {title}: somebody works on it, or has since; it was left", file=sys.stderr)
    gone = len(doomed) - len(left)
    print(
        f"{gone} {'run' if gone == 1 else 'runs'} removed; the command of the sweep runs them "
        "again, MLflow keeps what it has of them"
    )
    return 1 if left else 0


def removals(sweep_dir: Path, *, failed: bool, stale: bool) -> list[Removal]:
    """What would be deleted, in the order of the sweep."""
    from keyseg.sweep.progress import last_line
    from keyseg.sweep.slurm.reconcile import Overview
    from keyseg.sweep.stale import StaleCheck
    from keyseg.sweep.status import LOST, watches

    rows = Overview(watches(sweep_dir)).read()
    users = _users(sweep_dir)
    look = StaleCheck()
    listed = []
    for row in rows:
        run = RunDirectory(row.path)
        if not (row.path / "run.json").exists() or run.busy:
            continue
        why = ""
        if failed and row.state in (FAILED, LOST):
            why = f"{row.state}: {last_line(row.error)}"
        elif stale and run.config_file.exists():
            why = "; ".join(look.reasons(run))
        if why:
            of = tuple(users.get(row.path.resolve(), ()))
            listed.append(Removal(row.title, run, why, _size(row.path), _attempts(run), of))
    return listed


def _users(sweep_dir: Path) -> dict[Path, list[str]]:
    """Runs of this sweep that others have by a link, with the names of these sweeps."""
    users: dict[Path, list[str]] = {}
    outputs = sweep_dir.parent
    for name in sweep_names(outputs):
        for path in (outputs / name).iterdir() if name != sweep_dir.name else ():
            if path.is_symlink() and path.resolve().parent == sweep_dir.resolve():
                users.setdefault(path.resolve(), []).append(name)
    return users


def lines(doomed: Sequence[Removal]) -> Iterator[str]:
    """What is to be deleted, a line each, and what that frees."""
    width = max(len(removal.title) for removal in doomed)
    for removal in doomed:
        size = "a link" if removal.run.path.is_symlink() else readable(removal.size)
        yield f"  {removal.title:<{width}}  {size:>9}  {removal.run.path.name}  {removal.why}"
    noun = "run" if len(doomed) == 1 else "runs"
    yield f"{len(doomed)} {noun}, {readable(sum(removal.size for removal in doomed))}"


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nobody is here to be asked: --yes removes them without")
    print(f"delete {'it' if count == 1 else 'them'}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _delete(doomed: Iterable[Removal]) -> Iterator[str]:
    """Delete; names of those that somebody works on now, which are left."""
    for removal in doomed:
        path = removal.run.path
        if path.is_symlink():
            path.unlink()
            continue
        try:
            with removal.run.lock():
                if _attempts(removal.run) == removal.attempts:
                    shutil.rmtree(path)
                    continue
        except RunBusy:
            pass
        yield removal.title


def _attempts(run: RunDirectory) -> int:
    return len(run.info.get("attempts") or [])


def _size(path: Path) -> int:
    """Bytes of the files below; 0 of a link, whose target stays."""
    if path.is_symlink():
        return 0
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def readable(size: float) -> str:
    """`512 B`, `3.4 MB`: in thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
