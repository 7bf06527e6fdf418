"""The folder of a sweep: sweep.json, which says what was asked, beside the run directories."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import filelock

from keyseg.config import ConfigError
from keyseg.runs import disk

TRACKED = ("id", "mlflow_parent")
"""Of sweep.json: what tells this sweep from others, and its run in MLflow."""

TRIALS = "trials.json"
"""The trials of a tuning, beside sweep.json."""


def read(sweep_dir: Path) -> dict[str, Any]:
    """The content of sweep.json; {} where there is none (a folder of runs that belong to none).

    Raises:
        ConfigError: it cannot be read; names it and the remedy.
    """
    file = sweep_dir / "sweep.json"
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}): the command of the sweep, given again, writes it "
            "anew; its runs are whole"
        ) from error
    return content


def owner(sweep_dir: Path) -> str:
    """Whose it is: a name, or a number that has none on this machine."""
    try:
        return sweep_dir.owner()
    except KeyError:
        return f"user {sweep_dir.stat().st_uid}"


Known = tuple[str | None, str | None]
"""Parent run in MLflow, and command."""


class Members:
    """Which runs in a sweep's folder belong to it, asked of many runs: sweep.json is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], Known, frozenset[str] | None]] = {}

    def of(self, sweep_dir: Path, signature: str) -> Known:
        """The parent run in MLflow of a run, and its command; None where it belongs to no sweep."""
        file = sweep_dir / "sweep.json"
        try:
            stat = file.stat()
        except FileNotFoundError:
            return None, None
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)  # a file that is replaced is another
        if self._known.get(sweep_dir, (None,))[0] != seen:
            sweep = read(sweep_dir)
            cells = None if sweep.get("tune") else frozenset(_signatures(sweep))
            known = (sweep.get("mlflow_parent"), sweep.get("command"))
            self._known[sweep_dir] = (seen, known, cells)
        _, known, cells = self._known[sweep_dir]
        # every run in the folder of a tuning is a trial of it
        return known if cells is None or signature in cells else (None, None)


def _signatures(sweep: dict[str, Any]) -> list[str]:
    return [cell["signature"] for cell in sweep.get("cells", [])]


def signatures(sweep: Mapping[str, Any]) -> set[str]:
    """Of all cells of its design, those that are only planned among them."""
    return {cell["signature"] for cell in _whole(sweep)}


def asking(sweep: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A sweep.json whose `cells` are these signatures, and whose others are `planned`."""
    cells = _whole(sweep)
    now, later = (
        [cell for cell in cells if (cell["signature"] in wanted) is asked]
        for asked in (True, False)
    )
    return {**sweep, "cells": now, "planned": later}


def ask_for(sweep_dir: Path, wanted: Sequence[str]) -> None:
    """Make cells of planned ones."""
    with lock(sweep_dir):
        before = read(sweep_dir)
        if {*wanted} != {*_signatures(before)}:
            write(sweep_dir, asking(before, wanted))


def _whole(sweep: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All cells, those of one variant together."""
    every = [*(sweep.get("cells") or []), *(sweep.get("planned") or [])]
    place = {cell["label"]: i for i, cell in reversed(list(enumerate(every)))}
    return sorted(every, key=lambda cell: place[cell["label"]])


def earlier(before: Mapping[str, Any], signatures: Sequence[str]) -> list[dict[str, Any]]:
    """Cells of a sweep.json that is about to be replaced and that the new one does not have."""
    by_signature = {}
    for cell in [*(before.get("earlier") or []), *(before.get("cells") or [])]:
        if cell["signature"] not in signatures:
            by_signature[cell["signature"]] = {"command": before.get("command"), **cell}
    return list(by_signature.values())


@contextmanager
def hold(sweep_dir: Path, cells: Sequence[str]) -> Iterator[None]:
    """Hold the sweep for a design while the body runs. More commands with the same cells may.

    Raises:
        ConfigError: a command with other cells is at work on it: each would take the other's
            sweep.json, report and MLflow run away.
    """
    sweep_dir.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(" ".join(sorted(cells)).encode()).hexdigest()[:12]
    own = sweep_dir / f".launcher-{name}"
    with lock(sweep_dir, "design"):
        if _commands(sweep_dir, but=own.name):
            raise ConfigError(
                f"another command is at work on the sweep '{sweep_dir.name}' with other cells: "
                "give this one a name of its own (name=OTHER), or wait for the other"
            )
        each = (own.with_name(f"{own.name}.{number}.lock") for number in count())
        mine = next(taken for taken in map(_taken, each) if taken)
    try:
        yield
    finally:
        mine.release()


@contextmanager
def idle(sweep_dir: Path) -> Iterator[None]:
    """Keep commands from beginning on a sweep while the body runs.

    Raises:
        ConfigError: one is at work on it.
    """
    with lock(sweep_dir, "design"):
        if _commands(sweep_dir):
            raise ConfigError(
                f"a command is at work on the sweep '{sweep_dir.name}': wait for its end, or "
                "interrupt it"
            )
        yield


def at_work(sweep_dir: Path) -> bool:
    """Whether a command is at work on a sweep, or beginning; for whoever only looks."""
    files = _lock_files(sweep_dir)
    if not files:
        return False
    try:
        with lock(sweep_dir, "design", timeout=0):  # no command mistakes our look for another one
            return _commands(sweep_dir)
    except filelock.Timeout:
        return True
    except OSError as error:  # somebody else's sweep, which we may only read
        if not disk.read_only(error):
            raise
    with suppress(OSError):
        return any(map(disk.seen_locked, files))
    return False


def _commands(sweep_dir: Path, but: str = "none") -> bool:
    """Whether a command is at work on a sweep, other than those whose files begin like this."""
    files = _lock_files(sweep_dir)
    return any(not f.name.startswith(but) and not _free(f) for f in files)


def _lock_files(sweep_dir: Path) -> list[Path]:
    """Of commands that are, or were, at work on a sweep."""
    files = [*sweep_dir.glob(".launcher-*.lock"), sweep_dir / ".tuner.lock"]
    return [file for file in files if file.exists()]


def _taken(file: Path) -> filelock.BaseFileLock | None:
    """A lock that is now ours; None where another command has it."""
    mine = filelock.FileLock(file)
    try:
        mine.acquire(timeout=0)
    except filelock.Timeout:
        return None
    return mine


def _free(file: Path) -> bool:
    if (probe := _taken(file)) is None:
        return False
    probe.release()
    return True


def write(sweep_dir: Path, content: dict[str, Any]) -> None:
    """Replace sweep.json; a reader sees the old one or the new one."""
    disk.replace(sweep_dir / "sweep.json", disk.json_text(content, indent=1).encode())


@contextmanager
def lock_if_ours(sweep_dir: Path, name: str, timeout: float) -> Iterator[None]:
    """`lock` where we may write; nothing in a folder that is somebody else's, or read-only."""
    guard = lock(sweep_dir, name, timeout)
    try:
        guard.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout) or not disk.read_only(error):
            raise
        yield
        return
    try:
        yield
    finally:
        guard.release()


def lock(sweep_dir: Path, name: str = "sweep", timeout: float = 60) -> filelock.BaseFileLock:
    """Hold this while reading and writing sweep.json, or (by name) while building the report."""
    return filelock.FileLock(sweep_dir / f".{name}.lock", timeout=timeout)


def label_of(factors: Mapping[str, Any]) -> str:
    """`cross`, or `cross · weight=0.5` where more than fusion varies."""
    parts = [str(v) if k == "fusion" else f"{short_key(k)}={_text(v)}" for k, v in factors.items()]
    return " · ".join(parts)


def short_key(key: str) -> str:
    """`loss.keyword.weight` -> `weight`."""
    return re.split(r"[./]", key)[-1]


def _text(value: Any) -> str:
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
