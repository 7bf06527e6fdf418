"""The SQLite file of a tracking store: whole or not there.

MLflow makes its tables in some fifty steps, each of which stays if the process is killed or the
disk is full; a store that was half made can never be opened again. So the tables are made in a file
beside it, which is then renamed. Run directories hold all that a store holds: one that is broken
and empty is replaced, one that has runs is named, with what to do.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

log = logging.getLogger(__name__)

_WHOLE = (
    "out-of-date database schema",
    "database is locked",
    "readonly database",
    "unable to open",
    "is full",
    "disk I/O",
)
"""In what is said of a file that cannot be opened for other reasons than that it is half made."""


class BrokenStoreError(RuntimeError):
    """The file of a store cannot be used; the message names it and says what to do."""


def prepare(database: Path, open_store: Callable[[Path], object]) -> None:
    """Make the tables of a store that is not there; replace one that is half made and empty.

    The caller holds a lock on it. `open_store`: opens a file as a store, and makes what it lacks.

    Raises:
        BrokenStoreError: it is half made, or no database, and not empty.
    """
    for left in database.parent.glob(f".{database.name}.new-*"):  # by processes that were killed
        left.unlink(missing_ok=True)
    if not database.exists() or database.stat().st_size == 0:
        _make(database, open_store)
        return
    try:
        open_store(database)
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        runs = _runs(database)
        if runs is not None and any(text in str(error) for text in _WHOLE):
            raise
        aside = database.with_name(f"{database.name}.broken-{int(time.time())}")
        if runs == 0:
            database.rename(aside)
            log.warning("MLflow's %s was half made and held no run: now %s", database, aside.name)
            _make(database, open_store)
            return
        what = "is no SQLite database" if runs is None else f"is half made, with {runs} runs in it"
        raise BrokenStoreError(
            f"{database} {what} ({said}). Nothing of the runs is lost: `mv {database} {aside}`, "
            "and `keyseg sync` fills a new one from the run directories"
        ) from error


def _make(database: Path, open_store: Callable[[Path], object]) -> None:
    beside = database.with_name(f".{database.name}.new-{os.getpid()}")
    try:
        open_store(beside)
        beside.replace(database)
    finally:
        for file in (beside, beside.with_name(f"{beside.name}-journal")):
            with suppress(OSError):
                file.unlink()


def _runs(database: Path) -> int | None:
    """Runs that a file holds; 0 where it has no table of runs, None where it is no database."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            names = {row[0] for row in connection.execute("select name from sqlite_master")}
            if "runs" not in names:
                return 0
            return int(connection.execute("select count(*) from runs").fetchone()[0])
    except sqlite3.DatabaseError:
        return None
