"""MLflow, the window on the run directories. Only this folder imports it.

The run directory is written first and by itself; `sync` brings MLflow level with it, now or later,
once or many times. What was sent is kept in `mlflow.json` beside the rows:

    store, run_id   where this run lives in MLflow
    sent            highest step sent, by metric name: a row is never sent twice
    read            how far metrics.jsonl and system.jsonl were read: file and offset of each (a
                    truncated file is a new file, and read again)
    level           what the run looked like when everything of it had been sent

Rows that a killed run may still take back wait until they are settled, because MLflow cannot delete
a metric: those after its last checkpoint (`checkpoint_step` in run.json), and those of the test
split until it is done.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from keyseg.config import ConfigError, flatten
from keyseg.runs import disk, imported, sweep_directory
from keyseg.runs.provenance import described
from keyseg.runs.run_directory import (
    DONE,
    FAILED,
    PRUNED,
    TEST,
    Row,
    RunDirectory,
    parse_rows,
    stored_config,
)
from keyseg.tracking import model
from keyseg.tracking.store import (
    LONGEST_PARAM,
    LONGEST_TAG,
    batched,
    client_of,
    experiment,
    get_run,
    name_of,
    settings,
)
from keyseg.tracking.store import OFF as OFF
from keyseg.tracking.store import store_uri as store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_FINAL = {DONE: "FINISHED", FAILED: "FAILED", PRUNED: "KILLED"}
_REPORT = "report"
"""Folder of the report among the artifacts of a parent run."""
_ARTIFACTS = ("config.yaml", "run.json", "samples.parquet", "code.diff", "log.txt")


class _Sent(dict[str, Any]):
    """mlflow.json of one run directory."""

    def __init__(self, run: RunDirectory) -> None:
        self.file = run.path / "mlflow.json"
        try:
            super().__init__(json.loads(self.file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):  # the store is asked what it has
            super().__init__()
        if self.get("store") != store_uri():
            self.start_over(None)

    def start_over(self, run_id: str | None) -> None:
        self.clear()
        self.update(store=store_uri(), run_id=run_id, sent={}, read={}, level=None)

    def save(self) -> None:
        disk.replace(self.file, json.dumps(self).encode())


def preload() -> None:
    """Import mlflow where there is a store, which takes seconds."""
    if store_uri() != OFF:
        settings()
        import mlflow  # noqa: F401


def sync(run: RunDirectory) -> None:
    """Bring MLflow level with a run directory; twice is the same as once.

    Raises:
        Exception: whatever MLflow or the network raises; what was sent until then is remembered.
    """
    if store_uri() == OFF:
        return
    with filelock.FileLock(run.path / ".mlflow.lock", timeout=60):
        client = client_of(store_uri())
        sent = _Sent(run)
        mlflow_run = _find(client, run, sent) or _create(client, run, sent)
        info = run.info
        level = _fingerprint(run)
        _set_tags(client, mlflow_run, _tags(run, info))
        if "keyseg.error" in mlflow_run.data.tags and not info.get("error"):
            client.delete_tag(mlflow_run.info.run_id, "keyseg.error")
        _log_params(client, mlflow_run, run)
        _send_rows(client, run, info, sent)
        status = _FINAL.get(str(info.get("status")))
        if status is None:
            if mlflow_run.info.status != "RUNNING":
                client.update_run(mlflow_run.info.run_id, status="RUNNING")
            return
        _log_artifacts(client, mlflow_run, run, _ARTIFACTS)
        if status == _FINAL[DONE] and not imported.of(info) and run.config.runtime.log_model:
            _log_model(client, mlflow_run.info.run_id, run)
        if run.gallery.exists() and any(run.gallery.iterdir()):
            client.log_artifacts(mlflow_run.info.run_id, str(run.gallery), "gallery")
        ended = (info.get("attempts") or [{}])[-1].get("ended")
        client.set_terminated(mlflow_run.info.run_id, status, int(ended * 1000) if ended else None)
        sent["level"] = level
        sent.save()


def sync_all(runs: Iterable[RunDirectory]) -> list[str]:
    """Bring MLflow level with many runs; what is wrong with single ones, which hold up no other.

    Raises:
        Exception: whatever MLflow or the network raises.
    """
    problems = []
    for run in runs:
        try:
            sync(run)
        except ValueError as error:  # a file of it that cannot be read
            problems.append(f"{run.path.name}: {error}")
    return problems


def is_level(run: RunDirectory) -> bool:
    """Whether this finished run needs no `sync`, judged without asking the store."""
    if store_uri() == OFF:
        return True
    return bool(_Sent(run)["level"] == _fingerprint(run))


def behind(runs: Sequence[RunDirectory]) -> list[RunDirectory]:
    """Those of a sweep's runs that need `sync`.

    A run that was level is taken for that if the store has the first and the last of them: it asks
    for two runs instead of all. A store that was emptied, or another one, gets everything.

    Raises:
        Exception: whatever MLflow or the network raises.
    """
    if store_uri() == OFF:
        return list(runs)
    ids = {run.path: _Sent(run)["run_id"] for run in runs if _is_level(run)}
    client = client_of(store_uri())
    ends = list(ids.values())[:1] + list(ids.values())[-1:]
    if any(run_id is None or get_run(client, run_id) is None for run_id in ends):
        return list(runs)
    return [run for run in runs if run.path not in ids]


def _is_level(run: RunDirectory) -> bool:
    try:
        return is_level(run)
    except ValueError:  # a file of it that cannot be read: sync says which
        return False


# -- the parent run of a sweep -------------------------------------------------------------------


def start_parent(sweep_dir: Path) -> None:
    """Make the parent run of a sweep, or go on with the one that sweep.json names."""
    if store_uri() == OFF:
        return
    with sweep_directory.lock(sweep_dir):
        sweep = sweep_directory.read(sweep_dir)
        client = client_of(store_uri())
        known = sweep.get("mlflow_parent")
        parent = get_run(client, known) if known else None
        if parent is None:
            tags = {
                "mlflow.runName": f"sweep {sweep_dir.name}",
                "keyseg.sweep": sweep_dir.name,
                "keyseg.cells": str(len(sweep.get("cells", []))),
                "keyseg.question": str(sweep.get("question") or ""),
                "keyseg.command": str(sweep.get("command") or ""),
                "mlflow.note.content": str(sweep.get("question") or ""),
            }
            tags = {key: value[:LONGEST_TAG] for key, value in tags.items()}
            parent = client.create_run(experiment(client, sweep_dir.name), tags=tags)
            sweep["mlflow_parent"] = parent.info.run_id
            sweep_directory.write(sweep_dir, sweep)
        elif parent.info.status != "RUNNING":
            client.update_run(parent.info.run_id, status="RUNNING")


def finish_parent(sweep_dir: Path, report_dir: Path | None, *, failed: bool = False) -> None:
    """Put the report on the parent run and end it: failed if so told, or if a cell is not done."""
    sweep = sweep_directory.read(sweep_dir)
    parent = sweep.get("mlflow_parent")
    if parent is None or store_uri() == OFF:
        return
    client = client_of(store_uri())
    if report_dir is not None and report_dir.is_dir():
        client.log_artifacts(parent, str(report_dir), _REPORT)
    states = {RunDirectory(sweep_dir / c["signature"]).status for c in sweep.get("cells", [])}
    failed = failed or not states <= {DONE, PRUNED}
    client.set_terminated(parent, "FAILED" if failed else "FINISHED")


def log_report(sweep_dir: Path, report_dir: Path) -> None:
    """Put a report on the parent run, whose state stays as it is; nothing where there is none.

    Raises:
        LookupError: the store has no such run.
    """
    parent = sweep_directory.read(sweep_dir).get("mlflow_parent")
    if parent is None or store_uri() == OFF:
        return
    client = client_of(store_uri())
    if get_run(client, parent) is None:
        raise LookupError(f"it has no run {parent}")
    client.log_artifacts(parent, str(report_dir), _REPORT)


# -- one run -------------------------------------------------------------------------------------


def _find(client: MlflowClient, run: RunDirectory, sent: _Sent) -> Run | None:
    """The MLflow run of this run directory: the one it remembers, else by its tags."""
    info = run.info
    remembered = sent["run_id"]
    mlflow_run = get_run(client, remembered) if remembered else None
    if mlflow_run is not None:
        return mlflow_run
    if info.get("mlflow_run_id"):
        mlflow_run = get_run(client, info["mlflow_run_id"])
    if mlflow_run is None:
        wanted = f"tags.`keyseg.signature` = '{_signature(run, info)}'"
        superseded = info.get("mlflow_superseded", [])
        candidates = client.search_runs([experiment(client, run.sweep_dir.name)], wanted)
        mlflow_run = next((c for c in candidates if c.info.run_id not in superseded), None)
    if mlflow_run is None:
        return None
    # What was sent is known to the store only: mlflow.json is lost, or another store's.
    sent.start_over(mlflow_run.info.run_id)
    for name in mlflow_run.data.metrics:
        history = client.get_metric_history(mlflow_run.info.run_id, name)
        sent["sent"][name] = max(metric.step for metric in history)
    _remember(run, sent)
    return mlflow_run


def _create(client: MlflowClient, run: RunDirectory, sent: _Sent) -> Run:
    info = run.info
    started = (info.get("attempts") or [{}])[0].get("started")
    created = client.create_run(
        experiment(client, run.sweep_dir.name),
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
    other = imported.of(info)
    keyed = not other and run.config.model.tokens.n_keys
    attempts = info.get("attempts") or [{}]
    tags = {
        "mlflow.runName": f"{label} · seed {seed}",
        "mlflow.parentRunId": _parent_of(run, _signature(run, info)),
        "mlflow.source.git.commit": (info.get("git") or {}).get("commit"),
        "keyseg.signature": _signature(run, info),
        "keyseg.sweep": run.sweep_dir.name,
        "keyseg.label": label,
        "keyseg.keyword": None if keyed else "not asked",
        "keyseg.imported": other.get("system"),
        "keyseg.imported_file": other.get("file"),
        "keyseg.imported_sha256": other.get("sha256"),
        "keyseg.imported_said_by": other.get("said_by"),
        "keyseg.git_dirty": (info.get("git") or {}).get("dirty"),
        "keyseg.data_fingerprint": info.get("data_fingerprint"),
        "keyseg.weights_fingerprint": info.get("weights_fingerprint"),
        "keyseg.code_fingerprint": (info.get("code") or {}).get("fingerprint"),
        "keyseg.slurm_job_id": attempts[-1].get("slurm_job_id"),
        **{f"keyseg.{name}": value for name, value in described(info).items()},
        "keyseg.attempts": len(info.get("attempts") or []),
        "keyseg.state": info.get("status"),
        "keyseg.steps": info.get("steps"),
        "keyseg.training": (info.get("convergence") or {}).get("word"),
        "keyseg.trial": info.get("trial"),
        "keyseg.study": info.get("study"),
        "keyseg.error": info.get("error"),
    }
    return {key: str(value)[:LONGEST_TAG] for key, value in tags.items() if value is not None}


def _set_tags(client: MlflowClient, found: Run, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    changed = [RunTag(key, v) for key, v in tags.items() if found.data.tags.get(key) != v]
    if changed:
        client.log_batch(found.info.run_id, tags=changed)


def _log_params(client: MlflowClient, mlflow_run: Run, run: RunDirectory) -> None:
    """Log the config, and what explains it; those params that are not there yet."""
    from mlflow.entities import Param

    stored = stored_config(run.config_file) if imported.of(run.info) else run.config
    config = {k: v for k, v in flatten(stored).items() if not k.startswith("ablation")}
    named = {name_of(key): str(value)[:LONGEST_PARAM] for key, value in config.items()}
    missing = [
        Param(key, value) for key, value in named.items() if key not in mlflow_run.data.params
    ]
    for batch in batched(missing, 100):
        client.log_batch(mlflow_run.info.run_id, params=batch)
    if missing:  # a run that is lost for good still says what it was
        _log_artifacts(client, mlflow_run, run, ("config.yaml", "code.diff"))


def _log_artifacts(
    client: MlflowClient, found: Run, run: RunDirectory, names: Iterable[str]
) -> None:
    for name in names:
        if (run.path / name).exists():
            client.log_artifact(found.info.run_id, str(run.path / name))


def _send_rows(client: MlflowClient, run: RunDirectory, info: dict[str, Any], sent: _Sent) -> None:
    """Send the settled rows that were not sent yet: results, then what they took of the machine."""
    step = info.get("checkpoint_step")
    done = info.get("status") in (DONE, PRUNED)

    def settled(row: Row) -> bool:
        return done or not ((step is not None and row.step > step) or row.name.startswith(TEST))

    _send_file(client, run.metrics_file, settled, sent)
    _send_file(client, run.system_file, lambda row: True, sent)


def _send_file(
    client: MlflowClient, path: Path, settled: Callable[[Row], bool], sent: _Sent
) -> None:
    """Send the rows of a file, in batches, up to the first that is not settled."""
    from mlflow.entities import Metric

    if not path.exists():
        return
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        inode, offset = sent["read"].get(path.name, (None, 0))
        if inode != stat.st_ino or stat.st_size < offset:
            offset = 0
        file.seek(offset)
        lines = file.read().splitlines(keepends=True)
    for batch in batched(lines, 1000):
        waiting = False
        metrics = []
        for line in batch:
            rows = parse_rows(path, line)
            if not rows or not settled(rows[0]):
                waiting = True
                break
            row = rows[0]
            if row.step > sent["sent"].get(name_of(row.name), -1):
                stamp = int(row.time * 1000)
                metrics.append(Metric(name_of(row.name), row.value, stamp, row.step))
            offset += len(line)
        if metrics:
            client.log_batch(sent["run_id"], metrics=metrics)
        for metric in metrics:
            sent["sent"][metric.key] = max(metric.step, sent["sent"].get(metric.key, -1))
        sent["read"][path.name] = (stat.st_ino, offset)
        sent.save()
        if waiting:
            return


def _log_model(client: MlflowClient, run_id: str, run: RunDirectory) -> None:
    """runs:/ID/model, once."""
    if not run.best_file.exists() or client.list_artifacts(run_id, model.ARTIFACT):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / model.ARTIFACT
        model.write(run, folder)
        client.log_artifacts(run_id, str(folder), model.ARTIFACT)


def _signature(run: RunDirectory, info: dict[str, Any]) -> str:
    return str(info.get("signature") or run.path.name)


_members = sweep_directory.Members()


def _parent_of(run: RunDirectory, signature: str) -> str | None:
    try:
        return _members.parent(run.sweep_dir, signature)
    except ConfigError:
        if run.path.is_symlink():  # a damaged sweep.json concerns its own sweep, which says so
            return None
        raise


def _fingerprint(run: RunDirectory) -> list[Any]:
    """What must be the same for a finished run to need no sync."""
    info = run.info
    size = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    parent = _parent_of(run, _signature(run, info))
    return [info.get("status"), len(info.get("attempts") or []), size, parent]
