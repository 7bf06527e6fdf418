"""MLflow, the window on the run directories. The only file that imports mlflow, and only when used.

The run directory is written first and by itself; `sync` brings MLflow level with it, now or later,
once or many times. What was sent is kept in `mlflow.json` beside the rows:

    store, run_id   where this run lives in MLflow
    sent            highest step sent, by metric name: a row is never sent twice
    file, offset    how far metrics.jsonl was read (a truncated file is a new file: read again)
    level           what the run looked like when everything of it had been sent

Rows that a killed run may still take back (those after its last checkpoint, `checkpoint_step` in
run.json) wait until they are settled, because MLflow cannot delete a metric.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import filelock

from keyseg import sweepdir
from keyseg.config import flatten, resolve_path
from keyseg.rundir import DONE, FAILED, PRUNED, RunDirectory, parse_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")
log = logging.getLogger(__name__)

_FINAL = {DONE: "FINISHED", FAILED: "FAILED", PRUNED: "KILLED"}
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # opens on runs, not on chats
_ARTIFACTS = ("config.yaml", "run.json", "samples.parquet", "code.diff", "log.txt")
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000
"""Longest values that every MLflow store takes, in characters."""


class _Sent(dict[str, Any]):
    """mlflow.json of one run directory."""

    def __init__(self, run: RunDirectory) -> None:
        self.file = run.path / "mlflow.json"
        try:
            super().__init__(json.loads(self.file.read_bytes()))
        except FileNotFoundError:
            super().__init__()
        if self.get("store") != store_uri():
            self.start_over(None)

    def start_over(self, run_id: str | None) -> None:
        self.clear()
        self.update(store=store_uri(), run_id=run_id, sent={}, file=None, offset=0, level=None)

    def save(self) -> None:
        temporary = self.file.with_name(f".mlflow.json.{os.getpid()}")
        temporary.write_text(json.dumps(self))
        temporary.replace(self.file)


OFF = "none"
"""MLFLOW_TRACKING_URI=none: no MLflow at all."""


def store_uri() -> str:
    """The tracking store: MLFLOW_TRACKING_URI, or a SQLite file in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{resolve_path('mlflow.db')}"


def preload() -> None:
    """Import mlflow where there is a store, which takes seconds."""
    if store_uri() != OFF:
        _settings()
        import mlflow  # noqa: F401


def sync(run: RunDirectory) -> None:
    """Bring MLflow level with a run directory; twice is the same as once.

    Raises:
        Exception: whatever MLflow or the network raises; what was sent until then is remembered.
    """
    if store_uri() == OFF:
        return
    with filelock.FileLock(run.path / ".mlflow.lock", timeout=60):
        client = _client(store_uri())
        sent = _Sent(run)
        found = _find(client, run, sent) or _create(client, run, sent)
        info = run.info
        level = _fingerprint(run)
        _set_tags(client, found, _tags(run, info))
        if "keyseg.error" in found.data.tags and not info.get("error"):
            client.delete_tag(found.info.run_id, "keyseg.error")
        if not found.data.params:
            _log_params(client, found.info.run_id, run)
        _send_rows(client, run, info, sent)
        status = _FINAL.get(str(info.get("status")))
        if status is None:
            if found.info.status != "RUNNING":
                client.update_run(found.info.run_id, status="RUNNING")
            return
        for name in _ARTIFACTS:
            if (run.path / name).exists():
                client.log_artifact(found.info.run_id, str(run.path / name))
        if run.gallery.exists() and any(run.gallery.iterdir()):
            client.log_artifacts(found.info.run_id, str(run.gallery), "gallery")
        ended = (info.get("attempts") or [{}])[-1].get("ended")
        client.set_terminated(found.info.run_id, status, int(ended * 1000) if ended else None)
        sent["level"] = level
        sent.save()


def is_level(run: RunDirectory) -> bool:
    """Whether this finished run needs no `sync`, judged without asking the store."""
    if store_uri() == OFF:
        return True
    return bool(_Sent(run)["level"] == _fingerprint(run))


@contextmanager
def mirror(run: RunDirectory, *, every: float = 5.0, patience: float = 20.0) -> Iterator[None]:
    """Sync a run from a thread of its own while the body runs, and once more at the end.

    A store that is down or slow costs the body nothing: it is warned of once, and tried again
    every `every` seconds. The end waits at most `patience` seconds for the last sync.
    """
    if store_uri() == OFF:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(
        target=_keep_level, args=(run, stop, every), name="mlflow-mirror", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(patience)
        if thread.is_alive():
            log.warning(
                "MLflow at %s did not take the last rows in %.0f s; they are safe in %s, and "
                "`keyseg sync %s` sends them later",
                *(store_uri(), patience, run.path, run.path.parent.name),
            )


def _keep_level(run: RunDirectory, stop: threading.Event, every: float) -> None:
    warned = False
    last = False
    while not last:
        last = stop.wait(every)
        try:
            sync(run)
        except Exception as error:  # a broken window must not stop the run behind it
            if not warned:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning(
                    "MLflow at %s cannot be written (%s); the run goes on, its rows are in %s, and "
                    "`keyseg sync %s` sends them later",
                    *(store_uri(), reason, run.path, run.path.parent.name),
                )
            warned = True


# -- the parent run of a sweep -------------------------------------------------------------------


def start_parent(sweep_dir: Path) -> None:
    """Make the parent run of a sweep, or go on with the one that sweep.json names."""
    if store_uri() == OFF:
        return
    with sweepdir.lock(sweep_dir):
        sweep = sweepdir.read(sweep_dir)
        client = _client(store_uri())
        known = sweep.get("mlflow_parent")
        parent = _get(client, known) if known else None
        if parent is None:
            tags = {
                "mlflow.runName": f"sweep {sweep['name']}",
                "keyseg.sweep": sweep["name"],
                "keyseg.cells": str(len(sweep.get("cells", []))),
                "keyseg.question": str(sweep.get("question") or ""),
                "keyseg.command": str(sweep.get("command") or ""),
                "mlflow.note.content": str(sweep.get("question") or ""),
            }
            tags = {key: value[:_LONGEST_TAG] for key, value in tags.items()}
            parent = client.create_run(_experiment(client, sweep["name"]), tags=tags)
            sweep["mlflow_parent"] = parent.info.run_id
            sweepdir.write(sweep_dir, sweep)
        elif parent.info.status != "RUNNING":
            client.update_run(parent.info.run_id, status="RUNNING")


def finish_parent(sweep_dir: Path, report_dir: Path | None) -> None:
    """Put the report on the parent run and end it: failed if a cell is not done."""
    sweep = sweepdir.read(sweep_dir)
    parent = sweep.get("mlflow_parent")
    if parent is None or store_uri() == OFF:
        return
    client = _client(store_uri())
    if report_dir is not None and report_dir.is_dir():
        client.log_artifacts(parent, str(report_dir), "report")
    states = {RunDirectory(sweep_dir / c["signature"]).status for c in sweep.get("cells", [])}
    client.set_terminated(parent, "FINISHED" if states <= {DONE, PRUNED} else "FAILED")


# -- one run -------------------------------------------------------------------------------------


def _find(client: MlflowClient, run: RunDirectory, sent: _Sent) -> Run | None:
    """The MLflow run of this run directory: the one it remembers, else by its tags."""
    info = run.info
    remembered = sent["run_id"]
    found = _get(client, remembered) if remembered else None
    if found is not None:
        return found
    if info.get("mlflow_run_id"):
        found = _get(client, info["mlflow_run_id"])
    if found is None:
        wanted = f"tags.`keyseg.signature` = '{_signature(run, info)}'"
        superseded = info.get("mlflow_superseded", [])
        candidates = client.search_runs([_experiment(client, run.path.parent.name)], wanted)
        found = next((c for c in candidates if c.info.run_id not in superseded), None)
    if found is None:
        return None
    # What was sent is known to the store only: mlflow.json is lost, or another store's.
    sent.start_over(found.info.run_id)
    for name in found.data.metrics:
        history = client.get_metric_history(found.info.run_id, name)
        sent["sent"][name] = max(metric.step for metric in history)
    _remember(run, sent)
    return found


def _create(client: MlflowClient, run: RunDirectory, sent: _Sent) -> Run:
    info = run.info
    started = (info.get("attempts") or [{}])[0].get("started")
    created = client.create_run(
        _experiment(client, run.path.parent.name),
        start_time=int(started * 1000) if started else None,
        tags=_tags(run, info),
    )
    sent.start_over(created.info.run_id)
    _remember(run, sent)
    return created


def _remember(run: RunDirectory, sent: _Sent) -> None:
    sent.save()
    if run.info.get("mlflow_run_id") != sent["run_id"]:
        run.update(mlflow_run_id=sent["run_id"])


def _tags(run: RunDirectory, info: dict[str, Any]) -> dict[str, str]:
    label, seed = info.get("label") or run.config.fusion["name"], info.get("seed")
    attempts = info.get("attempts") or [{}]
    tags = {
        "mlflow.runName": f"{label} · seed {seed}",
        "mlflow.parentRunId": _parent_of(run, _signature(run, info)),
        "mlflow.source.git.commit": (info.get("git") or {}).get("commit"),
        "keyseg.signature": _signature(run, info),
        "keyseg.sweep": run.path.parent.name,
        "keyseg.label": label,
        "keyseg.git_dirty": (info.get("git") or {}).get("dirty"),
        "keyseg.data_fingerprint": info.get("data_fingerprint"),
        "keyseg.weights_fingerprint": info.get("weights_fingerprint"),
        "keyseg.slurm_job_id": attempts[-1].get("slurm_job_id"),
        "keyseg.attempts": len(info.get("attempts") or []),
        "keyseg.state": info.get("status"),
        "keyseg.trial": info.get("trial"),
        "keyseg.study": info.get("study"),
        "keyseg.error": info.get("error"),
    }
    return {key: str(value)[:_LONGEST_TAG] for key, value in tags.items() if value is not None}


def _set_tags(client: MlflowClient, found: Run, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        if found.data.tags.get(key) != value:
            client.set_tag(found.info.run_id, key, value)


def _log_params(client: MlflowClient, run_id: str, run: RunDirectory) -> None:
    from mlflow.entities import Param

    config = {k: v for k, v in flatten(run.config).items() if not k.startswith("ablation")}
    params = [Param(_name(key), str(value)[:_LONGEST_PARAM]) for key, value in config.items()]
    for batch in _batched(params, 100):
        client.log_batch(run_id, params=batch)


def _send_rows(client: MlflowClient, run: RunDirectory, info: dict[str, Any], sent: _Sent) -> None:
    """Send the settled rows of metrics.jsonl that were not sent yet, in batches."""
    from mlflow.entities import Metric

    if not run.metrics_file.exists():
        return
    with run.metrics_file.open("rb") as file:
        stat = os.fstat(file.fileno())
        if sent["file"] != stat.st_ino or stat.st_size < sent["offset"]:
            sent["file"], sent["offset"] = stat.st_ino, 0
        file.seek(sent["offset"])
        lines = file.read().splitlines(keepends=True)
    step = info.get("checkpoint_step")
    settled = math.inf if step is None or info.get("status") in (DONE, PRUNED) else step
    for batch in _batched(lines, 1000):
        waiting = False
        metrics = []
        for line in batch:
            rows = parse_rows(run.metrics_file, line)
            if not rows or rows[0].step > settled:
                waiting = True
                break
            row = rows[0]
            if row.step > sent["sent"].get(_name(row.name), -1):
                stamp = int(row.time * 1000)
                metrics.append(Metric(_name(row.name), row.value, stamp, row.step))
            sent["offset"] += len(line)
        if metrics:
            client.log_batch(sent["run_id"], metrics=metrics)
        for metric in metrics:
            sent["sent"][metric.key] = max(metric.step, sent["sent"].get(metric.key, -1))
        sent.save()
        if waiting:
            return


def _signature(run: RunDirectory, info: dict[str, Any]) -> str:
    return str(info.get("signature") or run.path.name)


def _parent_of(run: RunDirectory, signature: str) -> str | None:
    sweep = sweepdir.read(run.path.parent)
    in_design = any(cell["signature"] == signature for cell in sweep.get("cells", []))
    if in_design or sweep.get("tune"):  # every run in the folder of a tuning is a trial of it
        return sweep.get("mlflow_parent")
    return None


def _fingerprint(run: RunDirectory) -> list[Any]:
    """What must be the same for a finished run to need no sync."""
    info = run.info
    size = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    parent = _parent_of(run, _signature(run, info))
    return [info.get("status"), len(info.get("attempts") or []), size, parent]


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _name(name: str) -> str:
    """A name that MLflow takes: `precision@0.5` becomes `precision_at_0.5`."""
    return re.sub(r"[^/\w.\- :]", "_", name.replace("@", "_at_"))


# -- the store -----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _settings() -> None:
    """Nobody asked for usage reports over the network, nor for minutes of retries per request."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def _client(uri: str) -> MlflowClient:
    """A client of the store; the first process to come makes the tables of a SQLite file."""
    _settings()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # table creation is told at length
        logging.getLogger(name).setLevel(logging.WARNING)
    database = _sqlite_file(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{database}.lock", timeout=120):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment of a sweep; made where it is missing."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        database = _sqlite_file(store_uri())
        # Without a place MLflow writes artifacts to ./mlruns of whatever the cwd is.
        place = (database.parent / "mlartifacts" / name).as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=_KIND))
        except MlflowException:  # another process was first
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return str(known.experiment_id)


def _get(client: MlflowClient, run_id: str) -> Run | None:
    """A run by id; None where the store does not have it, or has it in its bin."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return found if found.info.lifecycle_stage == "active" else None


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None
