"""Brings MLflow level with a run directory, from any point and any number of times.

The run directory is written first and by itself; `sync` brings MLflow level with it, now or later,
once or many times. What was sent is kept in `mlflow.json` beside the rows:

    store, experiment, run_id   where this run lives in MLflow
    run             which run that was: `id` in run.json, so that one which began anew starts over
    sent            highest step sent, by metric name: a row is never sent twice
    read            how far metrics.jsonl and system.jsonl were read: file and offset of each (a
                    truncated file is a new file, and read again)
    level           what the run looked like when everything of it had been sent

Rows that a killed run may still take back wait until they are settled, because MLflow cannot delete
a metric: those after its last checkpoint (`checkpoint_step` in run.json), and those of the test
split until it is done. A value that is no number is never sent: MLflow's filters take it for 0.

A run is found again by its `id`, never by its signature: others may have run the same config, in
another checkout or with other data, and their runs in MLflow stay theirs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from keyseg.config import ConfigError, flatten
from keyseg.runs import disk, evaluations, imported, sweep_directory
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
from keyseg.tracking import model, pictures, tags
from keyseg.tracking.names import IDENTITY, LONGEST_PARAM, evaluated, name_of, param_name
from keyseg.tracking.store import OFF as OFF
from keyseg.tracking.store import (
    batched,
    client_of,
    experiment,
    get_run,
    remember,
    settings,
    shown_store,
)
from keyseg.tracking.store import store_uri as store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_FINAL = {DONE: "FINISHED", FAILED: "FAILED", PRUNED: "KILLED"}
_ARTIFACTS = ("config.yaml", "run.json", "samples.parquet", "code.diff", "log.txt")


class _Sent(dict[str, Any]):
    """mlflow.json of one run directory."""

    def __init__(self, run: RunDirectory) -> None:
        self.file = run.path / "mlflow.json"
        try:
            super().__init__(json.loads(self.file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):  # the store is asked what it has
            super().__init__()
        self.of = run.info.get("id")
        self.where = shown_store(run.sweep_dir)
        if (self.get("store"), self.get("run", self.of)) != (self.where, self.of):
            self.start_over(None)

    def start_over(self, run_id: str | None) -> None:
        self.clear()
        fresh: dict[str, Any] = {
            "run_id": run_id,
            "experiment": None,
            "run": self.of,
            "sent": {},
            "read": {},
            "level": None,
        }
        self.update(store=self.where, **fresh)

    def save(self) -> None:
        disk.replace(self.file, disk.json_text(self).encode())


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
    if store_uri(run.sweep_dir) == OFF:
        return
    with filelock.FileLock(run.path / ".mlflow.lock", timeout=60):
        client = client_of(store_uri(run.sweep_dir))
        remember(run.sweep_dir)
        _ = run.identity  # a run from before runs had one gets it now
        sent = _Sent(run)
        mlflow_run = _find(client, run, sent) or _create(client, run, sent)
        info = run.info
        level = _fingerprint(run)
        sent["experiment"] = mlflow_run.info.experiment_id
        _set_tags(client, mlflow_run, _tags(run, info))
        if "keyseg.error" in mlflow_run.data.tags and not info.get("error"):
            client.delete_tag(mlflow_run.info.run_id, "keyseg.error")
        _log_params(client, mlflow_run, run)
        _log_datasets(client, run, info, sent)
        _send_rows(client, run, info, sent)
        status = _FINAL.get(str(info.get("status")))
        if status is None:
            if mlflow_run.info.status != "RUNNING":
                client.update_run(mlflow_run.info.run_id, status="RUNNING")
            return
        _send_cost(client, run, info, sent)
        _send_evaluations(client, run, sent)
        _log_artifacts(client, mlflow_run, run, _ARTIFACTS)
        if status == _FINAL[DONE]:
            _log_pictures(client, mlflow_run, run)
            if not imported.of(info) and run.config.runtime.log_model:
                _log_model(client, mlflow_run, run)
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
    if store_uri(run.sweep_dir) == OFF:
        return True
    return bool(_Sent(run)["level"] == _fingerprint(run))


def behind(runs: Sequence[RunDirectory]) -> list[RunDirectory]:
    """Those of a sweep's runs that need `sync`.

    A run that was level is taken for that if the store has the first and the last of them: it asks
    for two runs instead of all. A store that was emptied, or another one, gets everything.

    Raises:
        Exception: whatever MLflow or the network raises.
    """
    if not runs or store_uri(runs[0].sweep_dir) == OFF:
        return list(runs)
    ids = {run.path: _Sent(run)["run_id"] for run in runs if _is_level(run)}
    client = client_of(store_uri(runs[0].sweep_dir))
    ends = list(ids.values())[:1] + list(ids.values())[-1:]
    if any(run_id is None or get_run(client, run_id) is None for run_id in ends):
        return list(runs)
    return [run for run in runs if run.path not in ids]


def _is_level(run: RunDirectory) -> bool:
    try:
        return is_level(run)
    except ValueError:  # a file of it that cannot be read: sync says which
        return False


# -- one run -------------------------------------------------------------------------------------


def _find(client: MlflowClient, run: RunDirectory, sent: _Sent) -> Run | None:
    """The MLflow run of this run directory: the one it remembers, else by its identity."""
    info = run.info
    for run_id in (sent["run_id"], info.get("mlflow_run_id")):
        mlflow_run = get_run(client, run_id) if run_id else None
        if mlflow_run is not None and _is_of(mlflow_run, info):
            break
    else:
        wanted = f"tags.`{IDENTITY}` = '{info['id']}'"
        mlflow_run = next(
            iter(client.search_runs([experiment(client, run.sweep_dir)], wanted, max_results=1)),
            None,
        )
    if mlflow_run is None or mlflow_run.info.run_id == sent["run_id"]:
        return mlflow_run
    # What was sent is known to the store only: mlflow.json is lost, or another store's.
    sent.start_over(mlflow_run.info.run_id)
    for name in mlflow_run.data.metrics:
        history = client.get_metric_history(mlflow_run.info.run_id, name)
        sent["sent"][name] = max(metric.step for metric in history)
    _remember(run, sent)
    return mlflow_run


def _is_of(mlflow_run: Run, info: dict[str, Any]) -> bool:
    """Whether a run that is remembered is this one's; one from before runs had an id has no tag."""
    return mlflow_run.data.tags.get(IDENTITY) in (None, info["id"])


def _create(client: MlflowClient, run: RunDirectory, sent: _Sent) -> Run:
    info = run.info
    started = (info.get("attempts") or [{}])[0].get("started")
    created = client.create_run(
        experiment(client, run.sweep_dir),
        start_time=int(started * 1000) if started else None,
        tags=_tags(run, info) | {"mlflow.user": tags.owner(info)},
    )
    sent.start_over(created.info.run_id)
    _remember(run, sent)
    return created


def _remember(run: RunDirectory, sent: _Sent) -> None:
    sent.save()
    if run.info.get("mlflow_run_id") != sent["run_id"]:
        run.update(mlflow_run_id=sent["run_id"])


def _tags(run: RunDirectory, info: dict[str, Any]) -> dict[str, str]:
    return tags.of_run(run, info, *_known_of(run, _signature(run, info)))


def _set_tags(client: MlflowClient, mlflow_run: Run, given: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    changed = [RunTag(key, v) for key, v in given.items() if mlflow_run.data.tags.get(key) != v]
    if changed:
        client.log_batch(mlflow_run.info.run_id, tags=changed)


def _log_params(client: MlflowClient, mlflow_run: Run, run: RunDirectory) -> None:
    """Log the config, and what explains it; those params that are not there yet."""
    from mlflow.entities import Param

    stored = stored_config(run.config_file) if imported.of(run.info) else run.config
    config = {k: v for k, v in flatten(stored).items() if not k.startswith("ablation")}
    named = {param_name(key): str(value)[:LONGEST_PARAM] for key, value in config.items()}
    missing = [
        Param(key, value) for key, value in named.items() if key not in mlflow_run.data.params
    ]
    for batch in batched(missing, 100):
        client.log_batch(mlflow_run.info.run_id, params=batch)
    if missing:  # a run that is lost for good still says what it was
        _log_artifacts(client, mlflow_run, run, ("config.yaml", "code.diff"))


def _log_artifacts(
    client: MlflowClient, mlflow_run: Run, run: RunDirectory, names: Iterable[str]
) -> None:
    for name in names:
        if (run.path / name).exists():
            client.log_artifact(mlflow_run.info.run_id, str(run.path / name))


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
            if isfinite(row.value) and row.step > sent["sent"].get(name_of(row.name), -1):
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


def _send_cost(client: MlflowClient, run: RunDirectory, info: dict[str, Any], sent: _Sent) -> None:
    """What the run took, as metrics: a list of runs can be sorted by them. Anew with an attempt."""
    from mlflow.entities import Metric

    attempts = info.get("attempts") or []
    ended = (attempts or [{}])[-1].get("ended")
    if not ended or sent["sent"].get("minutes", 0) >= len(attempts):
        return
    spent = {name: info.get(name) for name in ("minutes", "gpu_hours")}
    metrics = [Metric(k, v, int(ended * 1000), len(attempts)) for k, v in spent.items() if v]
    client.log_batch(sent["run_id"], metrics=metrics)
    sent["sent"] |= {metric.key: metric.step for metric in metrics}


def _send_evaluations(client: MlflowClient, run: RunDirectory, sent: _Sent) -> None:
    """What the run says of other data than its own test, by data set and split; its files beside.

    A test set that is read again has another time: the later one is what MLflow shows. Sent twice,
    the store knows it.
    """
    from mlflow.entities import Metric

    when = sent.setdefault("evaluations", {})
    for of_set, protocol, said in evaluations.facts(run):
        place = f"{of_set.folder}.{protocol}"
        read = float(said.get("when") or 0)
        if when.get(place) == read:
            continue
        values = {evaluated(name, place): value for name, value in said["summary"].items()}
        metrics = [
            Metric(name, value, int(read * 1000), 0)
            for name, value in values.items()
            if value is not None and isfinite(value)
        ]
        for batch in batched(metrics, 1000):
            client.log_batch(sent["run_id"], metrics=batch)
        for file in evaluations.files(run, of_set, protocol):
            client.log_artifact(sent["run_id"], str(file), f"evaluations/{of_set.folder}")
        when[place] = read
        sent.save()


def _log_datasets(
    client: MlflowClient, run: RunDirectory, info: dict[str, Any], sent: _Sent
) -> None:
    """The splits that the run reads, as MLflow's dataset inputs; once."""
    if not info.get("data_counts") or sent.get("data") == info.get("data_fingerprint"):
        return
    client.log_inputs(sent["run_id"], datasets=tags.datasets(run, info))
    sent["data"] = info["data_fingerprint"]
    sent.save()


def _log_pictures(client: MlflowClient, mlflow_run: Run, run: RunDirectory) -> None:
    """Examples as pictures, and keyword against mask as tables: what MLflow shows by itself."""
    if not run.samples_file.exists():
        return
    with tempfile.TemporaryDirectory() as temporary:
        pictures.write(run, Path(temporary))
        client.log_artifacts(mlflow_run.info.run_id, temporary)


def _log_model(client: MlflowClient, mlflow_run: Run, run: RunDirectory) -> None:
    """A logged model of MLflow's, linked to its run: runs:/ID/model and models:/MODEL_ID. Once."""
    from mlflow.entities import LoggedModelOutput

    run_id, experiment_id = mlflow_run.info.run_id, mlflow_run.info.experiment_id
    linked = mlflow_run.outputs is not None and bool(mlflow_run.outputs.model_outputs)
    if linked or not run.best_file.exists() or client.list_artifacts(run_id, model.ARTIFACT):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / model.ARTIFACT
        model.write(run, folder)
        logged = client.create_logged_model(experiment_id, model.ARTIFACT, source_run_id=run_id)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    step = int(run.info.get("steps") or 0)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])


def _signature(run: RunDirectory, info: dict[str, Any]) -> str:
    return str(info.get("signature") or run.path.name)


_members = sweep_directory.Members()


def _known_of(run: RunDirectory, signature: str) -> sweep_directory.Known:
    """The parent run of a run's sweep, and its command."""
    try:
        return _members.of(run.sweep_dir, signature)
    except ConfigError:
        if run.path.is_symlink():  # a damaged sweep.json concerns its own sweep, which says so
            return None, None
        raise


def _fingerprint(run: RunDirectory) -> list[Any]:
    """What must be the same for a finished run to need no sync."""
    info = run.info
    size = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    parent, _ = _known_of(run, _signature(run, info))
    marks = [info.get("status"), len(info.get("attempts") or []), size, parent]
    known = {f"{s.folder}.{p}": said.get("when") for s, p, said in evaluations.facts(run)}
    return [*marks, known] if known else marks
