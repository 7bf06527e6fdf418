"""The tracking store: where it is, a client of it, and its experiments, runs and names."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import filelock

from keyseg.config import resolve_path
from keyseg.runs import disk
from keyseg.runs.private_files import HIDDEN, without_passwords
from keyseg.tracking import pages, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

OFF = "none"
"""MLFLOW_TRACKING_URI=none: no MLflow at all."""

_TAGS = pages.experiment_tags(["test/teacher_forced/giou", "val/giou"])
"""Of an experiment before anything is known of its design."""

_NAMED = ".mlflow_store"
"""In a sweep's folder: the store that a command named for it, without its password."""


def store_uri(sweep_dir: Path | None = None) -> str:
    """The tracking store: MLFLOW_TRACKING_URI, or a SQLite file in the project's root.

    `sweep_dir`: where the variable is not set, the store that was named for this sweep before. A
    command in a shell that lacks the variable does not move the sweep to another store.
    """
    if named := os.environ.get("MLFLOW_TRACKING_URI"):
        return named
    if sweep_dir is not None:
        with suppress(OSError):
            return (sweep_dir / _NAMED).read_text()
    return f"sqlite:///{resolve_path('mlflow.db')}"


def shown_store(sweep_dir: Path | None = None) -> str:
    """The tracking store as it may be shown and written down: without its password."""
    return without_passwords(store_uri(sweep_dir))


def remember(sweep_dir: Path) -> None:
    """Note the store that MLFLOW_TRACKING_URI names as this sweep's; nothing where it is not set.

    A folder that we may not write to stays as it is.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named in (None, "", OFF):
        return
    file, address = sweep_dir / _NAMED, shown_store()
    with suppress(OSError):
        if not file.exists() or file.read_text() != address:
            disk.replace(file, address.encode())


def settings() -> None:
    """Turn off MLflow's usage reports, and its retries that take minutes for each request."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # at every run's end


@functools.lru_cache(maxsize=4)
def client_of(uri: str) -> MlflowClient:
    """A client of the store; the first process to come makes the tables of a SQLite file.

    Raises:
        LookupError: its password was left out where its address was written down.
    """
    if f":{HIDDEN}@" in uri:
        raise LookupError("its password is kept nowhere: set MLFLOW_TRACKING_URI to all of it")
    settings()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # table creation is told at length
        logging.getLogger(name).setLevel(logging.WARNING)
    # A kept connection that the server closed is opened again; what fails for good is an error.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    database = _sqlite_file(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{database}.lock", timeout=120):
        sqlite_file.prepare(database, _make_tables)
        return _opened(uri)


def _opened(uri: str) -> MlflowClient:
    """A client that has asked the store for something: that makes the tables which are missing."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def _make_tables(file: Path) -> None:
    """Open a SQLite file as a store, and let go of it: it may be renamed now."""
    uri = f"sqlite:///{file}"
    try:
        _opened(uri)
    finally:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        engine = SqlAlchemyStore._engine_map.pop(uri, None)  # MLflow has no other way to close it
        if engine is not None:
            engine.dispose()


def experiment(client: MlflowClient, sweep_dir: Path) -> str:
    """Id of the experiment of a sweep, which has the name of its folder; made where missing."""
    from mlflow.exceptions import MlflowException

    name = sweep_dir.name
    known = client.get_experiment_by_name(name)
    if known is None:
        database = _sqlite_file(store_uri(sweep_dir))
        # Without a place MLflow writes artifacts to ./mlruns of whatever the cwd is.
        place = (database.parent / "mlartifacts" / name).as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=_TAGS))
        except MlflowException:  # another process was first
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return str(known.experiment_id)


def get_run(client: MlflowClient, run_id: str) -> Run | None:
    """A run by id; None where the store does not have it, or has it in its bin."""
    from mlflow.exceptions import MlflowException

    try:
        mlflow_run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return mlflow_run if mlflow_run.info.lifecycle_stage == "active" else None


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`: a request of MLflow takes so many."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
