"""A real SQLite store in a temporary folder."""

import errno
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from keyseg.config import ConfigError
from keyseg.data.example import Example
from keyseg.data.predictions import matching, reading
from keyseg.runs import evaluations, sweep_directory
from keyseg.runs.evaluations import Evaluation, TestSet
from keyseg.runs.run_directory import Row, RunDirectory, now
from keyseg.sweep.imported import Import, write
from keyseg.tracking import parent_run, sqlite_file, sync
from keyseg.tracking.background import mirror
from keyseg.tracking.sqlite_file import BrokenStoreError
from keyseg.tracking.store import batched, client_of, remember, store_uri

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def store(empty_store, tmp_path, monkeypatch):
    file = tmp_path / "store" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_store, file)
    uri = f"sqlite:///{file}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return client_of(uri)


def half_made(empty_store: Path, folder: Path, *, runs: int = 0) -> Path:
    """As a process leaves it that was killed while MLflow made its tables."""
    file = folder / "half" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_store, file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("update alembic_version set version_num = '451aebb31d03'")
        connection.execute("drop table registered_model_aliases")
        for number in range(runs):
            connection.execute("insert into runs (run_uuid) values (?)", (str(number),))
        connection.commit()
    return file


def test_a_store_that_is_half_made_and_empty_is_made_anew(empty_store, tmp_path, caplog):
    file = half_made(empty_store, tmp_path)
    client_of.cache_clear()
    client = client_of(f"sqlite:///{file}")
    assert client.search_experiments()
    assert client.create_run("0").info.run_id
    (aside,) = file.parent.glob("mlflow.db.broken-*")
    assert f"was half made and held no run: now {aside.name}" in caplog.text


def test_a_store_that_is_half_made_with_runs_is_named_with_the_remedy(empty_store, tmp_path):
    file = half_made(empty_store, tmp_path, runs=2)
    with pytest.raises(BrokenStoreError, match="is half made, with 2 runs in it") as caught:
        client_of(f"sqlite:///{file}")
    assert f"`mv {file} " in str(caught.value)
    assert "`keyseg sync` fills a new one" in str(caught.value)
    assert file.exists()
    assert not list(file.parent.glob("*broken*"))


def test_a_store_of_an_older_mlflow_is_left_as_it_is(tmp_path):
    def refuse(file: Path) -> None:
        raise RuntimeError("Detected out-of-date database schema: run `mlflow db upgrade`")

    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("create table runs (run_uuid text)")
    with pytest.raises(RuntimeError, match="mlflow db upgrade"):
        sqlite_file.prepare(tmp_path / "mlflow.db", refuse)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_file_that_is_no_database_is_named(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_text("not a database, and long enough to be taken for one " * 40)
    with pytest.raises(BrokenStoreError, match="is no SQLite database"):
        client_of(f"sqlite:///{file}")


def test_a_process_that_is_killed_making_a_store_leaves_none(tmp_path):
    file = tmp_path / "mlflow.db"
    script = f"from keyseg.tracking.store import client_of; client_of('sqlite:///{file}')"

    def begun() -> bool:
        """Tables are being made; SQLite's journals beside the file come and go."""
        sizes = (new.stat().st_size for new in tmp_path.glob(f".mlflow.db.new-{process.pid}"))
        return any(size > 100_000 for size in sizes)

    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while not begun():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.001)
        finally:
            process.kill()
    assert not file.exists()
    assert client_of(f"sqlite:///{file}").search_experiments()
    assert not list(tmp_path.glob(".mlflow.db.new-*"))  # what was left is gone


def test_a_full_disk_leaves_no_store_that_is_half_made(tmp_path):
    def half(file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        sqlite_file.prepare(tmp_path / "mlflow.db", half)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").touch()  # nothing but a name: as a full disk leaves a file
    with pytest.raises(OSError, match="No space left"):
        sqlite_file.prepare(tmp_path / "mlflow.db", half)
    assert (tmp_path / "mlflow.db").stat().st_size == 0


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "fusion"
    folder.mkdir()
    cells = [{"signature": "abc", "label": "cross", "seed": 0}]
    sweep_directory.write(
        folder, {"name": "fusion", "question": "Why?", "command": "run", "cells": cells}
    )
    return folder


@pytest.fixture
def run(sweep, run_config):
    run = RunDirectory.create(sweep / "abc", run_config, label="cross")
    attempt = {"started": 1000.0, "slurm_job_id": "77"}
    git = {"commit": "c0ffee", "dirty": True}
    info = {"signature": "abc", "status": "running", "attempts": [attempt], "git": git}
    run.update(data_fingerprint="d1", **info)
    return run


def log(run, *steps: int) -> None:
    """Two rows a step; values and times follow from the step."""
    for name in ("train/loss", "val/precision@0.5"):
        run.log(Row(name, 1.0 / step, step, 1000.5 + step) for step in steps)


def test_a_run_without_key_is_tagged_as_not_asked_for_keywords(store, sweep, compose_run):
    run = RunDirectory.create(sweep / "abc", compose_run("fusion=no_key"), label="no_key")
    run.update(signature="abc", status="running", attempts=[{"started": 1000.0}])
    sync.sync(run)
    assert found(store, run).data.tags["keyseg.keyword"] == "not asked"
    assert found(store, run).data.params["model.tokens.n_keys"] == "0"


def done(run) -> None:
    run.update(status="done", attempts=[{**run.info["attempts"][-1], "ended": 2000.0}])


def found(store, run):
    return store.get_run(run.info["mlflow_run_id"])


def history(store, run, name: str = "train/loss") -> list[tuple[int, float, int]]:
    points = store.get_metric_history(run.info["mlflow_run_id"], name)
    return [(p.step, p.value, p.timestamp) for p in points]


def expected(*steps: int) -> list[tuple[int, float, int]]:
    return [(step, 1.0 / step, 1000500 + 1000 * step) for step in steps]


def test_a_run_as_it_goes_and_ends(store, run):
    sync.sync(run)
    log(run, 1, 2)
    sync.sync(run)
    mirrored = found(store, run)
    assert mirrored.info.status == "RUNNING"
    assert mirrored.info.start_time == 1_000_000
    assert mirrored.info.run_name == "cross · seed 0"
    assert mirrored.data.params["fusion.name"] == "full"
    assert mirrored.data.params["loss.keyword.weight"] == "0.5"
    assert mirrored.data.tags["keyseg.signature"] == "abc"
    assert mirrored.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert mirrored.data.tags["keyseg.data_fingerprint"] == "d1"
    assert mirrored.data.tags["keyseg.slurm_job_id"] == "77"
    assert history(store, run) == expected(1, 2)
    assert not sync.is_level(run)

    log(run, 3)
    run.update(convergence={"word": "still rising"})
    done(run)
    sync.sync(run)
    mirrored = found(store, run)
    assert mirrored.info.status == "FINISHED"
    assert mirrored.info.end_time == 2_000_000
    assert mirrored.data.tags["keyseg.training"] == "still rising"
    assert history(store, run) == expected(1, 2, 3)
    assert history(store, run, "val/precision_at_0.5") == expected(1, 2, 3)
    artifacts = {a.path for a in store.list_artifacts(mirrored.info.run_id)}
    assert {"config.yaml", "run.json"} <= artifacts
    assert sync.is_level(run)


def test_twice_is_once(store, run):
    log(run, 1, 2)
    done(run)
    for _ in range(2):
        sync.sync(run)
    assert history(store, run) == expected(1, 2)
    assert len(store.search_runs([found(store, run).info.experiment_id])) == 1


def test_many_rows_go_in_batches(store, run):
    log(run, *range(1, 1203))
    sync.sync(run)
    assert len(history(store, run)) == 1202


def test_rows_after_the_last_checkpoint_wait(store, run):
    run.update(checkpoint_step=2)
    log(run, 1, 2)
    run.log([Row("train/loss", 9.0, 3, 1.0)])  # of an attempt that is then killed
    sync.sync(run)
    assert history(store, run) == expected(1, 2)
    run.truncate(2)
    run.log([Row("train/loss", 1 / 3, 3, 1003.5)])
    sync.sync(run)
    assert history(store, run) == expected(1, 2)
    run.update(checkpoint_step=3)
    sync.sync(run)
    assert history(store, run) == expected(1, 2, 3)


def test_rows_of_the_test_split_wait_until_the_run_is_done(store, run):
    run.update(checkpoint_step=2)
    log(run, 1, 2)
    run.log([Row("test/generated/giou", 0.5, 2, 1003.0)])
    sync.sync(run)
    assert history(store, run, "giou.test.generated") == []
    run.truncate(2)  # it was killed before it was done
    run.log([Row("test/generated/giou", 0.5, 2, 1004.0)])
    done(run)
    sync.sync(run)
    assert history(store, run, "giou.test.generated") == [(2, 0.5, 1_004_000)]
    assert history(store, run) == expected(1, 2)


def test_params_that_did_not_arrive_are_sent_by_the_next_sync(store, run, monkeypatch):
    sending = MlflowClient.log_batch
    requests = []

    def second_fails(client, run_id, **what):
        requests.append(what)
        if len(requests) == 2:
            raise ConnectionError("reset by peer")
        sending(client, run_id, **what)

    monkeypatch.setattr(sync, "batched", lambda items, size: batched(items, 20))
    monkeypatch.setattr(MlflowClient, "log_batch", second_fails)
    with pytest.raises(ConnectionError):
        sync.sync(run)
    assert len(found(store, run).data.params) == 20
    sync.sync(run)
    assert len(found(store, run).data.params) > 60


def test_load_of_the_machine_and_attempts_are_there(store, run):
    run.log_system([Row("system/process_cores", 1.5, 3, 1003.0)])
    killed = {"started": 1000.0, "ended": 1360.0, "seconds": 360.0, "gpu_hours": 0.2}
    first = {**killed, "host": "n1", "slurm_job_id": "77", "outcome": "killed"}
    run.update(
        attempts=[first, {"started": 1400.0, "host": "n2"}],
        gpu_hours=0.2,
        hardware={"host": "n2", "gpus": ["A100"], "cpu": "EPYC", "cores": 8, "memory_gib": 64.0},
        versions={"torch": "2.11"},
    )
    sync.sync(run)
    assert history(store, run, "system/process_cores") == [(3, 1.5, 1_003_000)]
    tags = found(store, run).data.tags
    assert tags["keyseg.attempt_1"] == "n1, job 77: 360 s, 0.200 GPU-hours, killed"
    assert tags["keyseg.attempt_2"] == "n2: at work"
    assert tags["keyseg.hardware"] == "A100 · 8 cores, EPYC · 64.0 GiB"
    assert tags["keyseg.versions"] == "torch 2.11"
    assert tags["keyseg.gpu_hours"] == "0.200"
    artifacts = {a.path for a in store.list_artifacts(run.info["mlflow_run_id"])}
    assert artifacts == {"config.yaml"}  # at once: a run may be lost for good


def test_results_on_other_data_belong_to_the_run(store, run):
    def read(giou: float, when: float) -> None:
        about = {"summary": {"giou": giou, "keyword_accuracy": None}, "when": when}
        of_set = TestSet("refcoco", "testA")
        rows = pd.DataFrame({"iou": [giou]})
        evaluations.write(run, Evaluation(of_set, "teacher_forced", {}, about, rows))

    log(run, 1)
    done(run)
    sync.sync(run)
    assert sync.is_level(run)
    read(0.5, 1500.0)
    assert not sync.is_level(run)
    name = "giou.refcoco.testA.teacher_forced"
    for _ in range(2):
        sync.sync(run)
        assert history(store, run, name) == [(0, 0.5, 1_500_000)]
        assert sync.is_level(run)
        (run.path / "mlflow.json").unlink()  # nobody knows what was sent
    assert not any("keyword_accuracy.refcoco" in m for m in found(store, run).data.metrics)
    files = store.list_artifacts(run.info["mlflow_run_id"], "evaluations/refcoco.testA")
    assert {Path(f.path).name for f in files} == {"teacher_forced.json", "teacher_forced.parquet"}
    read(0.75, 1600.0)
    sync.sync(run)
    assert history(store, run, name)[1:] == [(0, 0.75, 1_600_000)]
    assert found(store, run).data.metrics[name] == 0.75


def test_rows_that_were_sent_are_not_sent_again_after_a_truncation(store, run):
    run.log(Row("train/loss", 1 / s, s, 1000.5 + s) for s in (1, 2, 3))
    sync.sync(run)
    run.truncate(1)
    run.log(Row("train/loss", 1 / s, s, 5000.0 + s) for s in (2, 3, 4))  # later, same values
    sync.sync(run)
    assert [step for step, _, _ in history(store, run)] == [1, 2, 3, 4]


def test_a_resumed_run_is_the_same_run(store, run):
    log(run, 1)
    run.update(status="failed", error="RuntimeError: x")
    sync.sync(run)
    first = found(store, run)
    assert first.info.status == "FAILED"
    assert first.data.tags["keyseg.error"] == "RuntimeError: x"
    run.update(status="running", error=None)
    log(run, 2)
    sync.sync(run)
    again = found(store, run)
    assert again.info.run_id == first.info.run_id
    assert again.info.status == "RUNNING"
    assert "keyseg.error" not in again.data.tags
    assert history(store, run) == expected(1, 2)


@pytest.mark.parametrize("known", [True, False])
def test_a_lost_offset_is_learned_from_the_store(store, run, known):
    log(run, 1, 2)
    sync.sync(run)
    first = run.info["mlflow_run_id"]
    (run.path / "mlflow.json").unlink()
    if not known:
        run.update(mlflow_run_id=None)
    log(run, 3)
    sync.sync(run)
    assert run.info["mlflow_run_id"] == first
    assert history(store, run) == expected(1, 2, 3)


def test_a_run_that_is_run_again_is_another_run(store, run):
    log(run, 1, 2)
    done(run)
    sync.sync(run)
    first = run.info["mlflow_run_id"]
    run.begin_anew()
    log(run, 1)
    sync.sync(run)
    assert run.info["mlflow_run_id"] != first
    assert history(store, run) == expected(1)


def test_two_checkouts_on_one_store_have_their_own_runs(store, run, tmp_path, run_config):
    log(run, 1)
    done(run)
    theirs = RunDirectory.create(tmp_path / "clone" / "fusion" / "abc", run_config)
    theirs.update(signature="abc", status="running", attempts=[{"started": 1000.0}])
    log(theirs, 1, 2)
    for one in (run, theirs, run):
        sync.sync(one)
    assert run.info["mlflow_run_id"] != theirs.info["mlflow_run_id"]
    assert history(store, run) == expected(1)
    assert history(store, theirs) == expected(1, 2)
    assert found(store, run).info.experiment_id == found(store, theirs).info.experiment_id


def test_a_run_that_was_deleted_and_made_again_is_another_run(store, run, run_config):
    run.log([Row("test/generated/giou", 0.25, 2, 1004.0)])
    done(run)
    sync.sync(run)
    first = run.info["mlflow_run_id"]
    shutil.rmtree(run.path)
    again = RunDirectory.create(run.path, run_config, label="cross")
    again.update(signature="abc", data_fingerprint="d2", attempts=[{"started": 3000.0}])
    again.log([Row("test/generated/giou", 0.75, 2, 3004.0)])
    done(again)
    assert not sync.is_level(again)
    sync.sync(again)
    assert again.info["mlflow_run_id"] != first
    assert found(store, again).data.metrics["giou.test.generated"] == 0.75
    old = store.get_run(first).data
    assert (old.metrics["giou.test.generated"], old.tags["keyseg.data_fingerprint"]) == (0.25, "d1")


def test_a_run_from_before_runs_had_an_id_keeps_its_run_in_mlflow(store, run):
    log(run, 1)
    sync.sync(run)
    first = run.info["mlflow_run_id"]
    store.delete_tag(first, "keyseg.run")
    info = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({k: info[k] for k in info if k != "id"}))
    sent = json.loads((run.path / "mlflow.json").read_text())
    (run.path / "mlflow.json").write_text(json.dumps({k: sent[k] for k in sent if k != "run"}))
    log(run, 2)
    sync.sync(run)
    assert run.info["mlflow_run_id"] == first
    assert found(store, run).data.tags["keyseg.run"] == run.info["id"]
    assert history(store, run) == expected(1, 2)


def test_what_is_no_number_is_not_sent(store, run):
    run.log([Row("val/keyword_accuracy", math.nan, 1, 1.0), Row("train/loss", math.inf, 1, 1.0)])
    log(run, 2)
    sync.sync(run)
    assert found(store, run).data.metrics.keys() == {"train/loss", "val/precision_at_0.5"}
    assert history(store, run) == expected(2)
    experiment = found(store, run).info.experiment_id
    zero = store.search_runs([experiment], "metrics.`val/keyword_accuracy` <= 0")
    assert list(zero) == []


def test_a_command_that_names_no_store_leaves_a_sweep_in_its_own(
    store, run, sweep, monkeypatch, tmp_path
):
    monkeypatch.setattr("keyseg.tracking.store.resolve_path", lambda path: tmp_path / path)
    done(run)
    parent_run.start(sweep)
    sync.sync(run)
    before = (run.path / "mlflow.json").read_text(), (sweep / "sweep.json").read_text()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    sync.sync(run)
    parent_run.start(sweep)
    assert ((run.path / "mlflow.json").read_text(), (sweep / "sweep.json").read_text()) == before
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "another").mkdir()
    assert store_uri(tmp_path / "another") == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_the_password_of_a_store_is_written_nowhere(run, monkeypatch, caplog):
    address = "http://me:s3cret@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with mirror(run, every=0.05):
        log(run, 1)
    (warned,) = [record.getMessage() for record in caplog.records]
    assert "MLflow at http://me:***@127.0.0.1:9 cannot be written" in warned
    remember(run.sweep_dir)
    written = [f.read_bytes() for f in run.sweep_dir.rglob("*") if f.is_file()]
    assert not any(b"s3cret" in content for content in [*written, caplog.text.encode()])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(LookupError, match="its password is kept nowhere: set MLFLOW_TRACKING_URI"):
        sync.sync(run)


def test_a_run_deleted_in_mlflow_comes_back(store, run):
    log(run, 1, 2)
    done(run)
    sync.sync(run)
    store.delete_run(run.info["mlflow_run_id"])
    sync.sync(run)
    assert history(store, run) == expected(1, 2)


def test_runs_that_are_level_are_not_asked_for_again(store, sweep, run_config, monkeypatch):
    runs = [RunDirectory.create(sweep / f"{n:012}", run_config) for n in range(4)]
    for one in runs:
        one.update(attempts=[{"started": 1000.0}])
        log(one, 1)
        done(one)
    assert sync.behind(runs) == runs
    assert sync.sync_all(runs) == []
    asked = []
    get_run = sync.get_run
    monkeypatch.setattr(sync, "get_run", lambda *given: asked.append(given) or get_run(*given))
    assert sync.behind(runs) == []
    assert len(asked) == 2
    log(runs[1], 2)
    (runs[2].path / "mlflow.json").write_text("{")
    assert sync.behind(runs) == runs[1:3]
    store.delete_run(runs[3].info["mlflow_run_id"])
    assert sync.behind(runs) == runs  # who knows what else is gone


def test_another_store_gets_everything(store, run, empty_store, tmp_path, monkeypatch):
    log(run, 1, 2)
    done(run)
    sync.sync(run)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    shutil.copy(empty_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert not sync.is_level(run)
    sync.sync(run)
    assert history(client_of(other), run) == expected(1, 2)


def test_a_sweep_whose_folder_was_renamed_has_its_parent_there(store, sweep):
    renamed = sweep.rename(sweep.with_name("kept"))
    parent_run.start(renamed)
    parent = store.get_run(sweep_directory.read(renamed)["mlflow_parent"])
    assert parent.data.tags["keyseg.sweep"] == "kept"
    assert store.get_experiment(parent.info.experiment_id).name == "kept"
    assert store.get_experiment_by_name("fusion") is None  # no ghost


def test_parent_and_children(store, sweep, run, tmp_path):
    parent_run.start(sweep)
    parent = sweep_directory.read(sweep)["mlflow_parent"]
    parent_run.start(sweep)  # the same command again
    assert sweep_directory.read(sweep)["mlflow_parent"] == parent
    done(run)
    sync.sync(run)
    assert found(store, run).data.tags["mlflow.parentRunId"] == parent
    report = tmp_path / "report"
    report.mkdir()
    (report / "index.html").write_text("<html>")
    parent_run.finish(sweep, report)
    ended = store.get_run(parent)
    assert ended.info.status == "FINISHED"
    assert ended.data.tags["keyseg.question"] == "Why?"
    assert [a.path for a in store.list_artifacts(parent, "report")] == ["report/index.html"]
    run.update(status="failed")
    parent_run.finish(sweep, None)
    assert store.get_run(parent).info.status == "FAILED"
    # A sweep of other cells has a parent of its own, and its children move to it.
    content = sweep_directory.read(sweep)
    sweep_directory.write(
        sweep, {k: content[k] for k in content if k not in ("id", "mlflow_parent")}
    )
    done(run)
    parent_run.start(sweep)
    assert not sync.is_level(run)
    sync.sync(run)
    moved = found(store, run).data.tags["mlflow.parentRunId"]
    assert moved == sweep_directory.read(sweep)["mlflow_parent"] != parent


def test_a_report_made_by_hand_goes_to_the_parent_that_is_there(store, sweep, run, tmp_path):
    report = tmp_path / "report"
    (report / "tables").mkdir(parents=True)
    (report / "index.html").write_text("<html>")
    (report / "tables" / "runs.csv").write_text("signature")
    parent_run.log_report(sweep, report)  # no parent: none is made
    assert "mlflow_parent" not in sweep_directory.read(sweep)
    assert store.get_experiment_by_name("fusion") is None
    parent_run.start(sweep)
    parent = sweep_directory.read(sweep)["mlflow_parent"]
    parent_run.log_report(sweep, report)
    assert store.get_run(parent).info.status == "RUNNING"  # as it was
    (report / "index.html").write_text("<html>again")
    done(run)
    parent_run.finish(sweep, None)
    parent_run.log_report(sweep, report)
    assert store.get_run(parent).info.status == "FINISHED"
    assert {a.path for a in store.list_artifacts(parent, "report")} == {
        "report/index.html",
        "report/tables",
    }
    kept = store.download_artifacts(parent, "report/index.html", str(tmp_path))
    assert Path(kept).read_text() == "<html>again"
    store.delete_run(parent)
    with pytest.raises(LookupError, match=f"it has no run {parent}"):
        parent_run.log_report(sweep, report)


def test_the_mirror_follows_and_ends_level(store, run):
    with mirror(run, every=0.05):
        log(run, 1)
        deadline = time.monotonic() + 30
        while not (run.info.get("mlflow_run_id") and history(store, run)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        log(run, 2)
        done(run)
    assert history(store, run) == expected(1, 2)
    assert sync.is_level(run)


def test_a_store_that_is_down_stops_nothing_and_is_told_once(run, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db")
    with mirror(run, every=0.05):
        log(run, 1)
        time.sleep(0.5)
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "sqlite:////proc/none/mlflow.db cannot be written" in message
    assert "`keyseg sync fusion` sends them later" in message


def wait_for_mirrors():
    """A thread that outlives its test would write to the store of whatever comes next."""
    for thread in threading.enumerate():
        if thread.name == "mlflow-mirror":
            thread.join(30)
            assert not thread.is_alive()


def test_a_store_that_hangs_is_given_up_at_the_end(run, monkeypatch, caplog):
    release = threading.Event()
    monkeypatch.setattr("keyseg.tracking.background.sync", lambda run: release.wait(30))
    monkeypatch.setattr(parent_run, "update", lambda sweep: None)
    started = time.monotonic()
    with mirror(run, every=0.01, patience=0.2):
        log(run, 1)
    assert time.monotonic() - started < 5
    assert "did not take the last rows" in caplog.text
    release.set()
    wait_for_mirrors()


def test_a_store_that_was_silent_is_not_waited_for_in_full(run, monkeypatch, caplog):
    release = threading.Event()
    monkeypatch.setattr("keyseg.tracking.background.sync", lambda run: release.wait(30))
    monkeypatch.setattr(parent_run, "update", lambda sweep: None)
    with mirror(run, every=0.01, patience=1.0):
        time.sleep(1.2)
        ended = time.monotonic()
    assert time.monotonic() - ended < 0.9
    assert "did not take the last rows" in caplog.text
    release.set()
    wait_for_mirrors()


def test_what_a_run_that_is_told_to_go_has_saved_is_flushed(store, run):
    log(run, 1, 2, 3)
    run.update(checkpoint_step=2, status="queued")
    with pytest.raises(InterruptedError), mirror(run, every=60):
        raise InterruptedError
    assert history(store, run) == expected(1, 2)


def test_a_run_that_cannot_be_read_holds_up_no_other(store, run, sweep, run_config):
    other = RunDirectory.create(sweep / "def", run_config, label="self")
    for one in (run, other):
        log(one, 1)
        done(one) if one is run else one.update(status="done")
    damaged = other.metrics_file.read_bytes()
    other.metrics_file.write_bytes(b"???\n" + damaged)
    (problem,) = sync.sync_all([other, run])
    assert problem.startswith("def: ")
    assert "line 1 cannot be read" in problem
    assert history(store, run) == expected(1)


def test_an_error_inside_passes_through_the_mirror(store, run):
    with pytest.raises(ZeroDivisionError), mirror(run):
        1 / 0  # noqa: B018


def test_off(run, sweep, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    with mirror(run):
        sync.sync(run)
        parent_run.start(sweep)
        parent_run.finish(sweep, None)
    assert sync.is_level(run)
    assert "mlflow_run_id" not in run.info


def test_a_parallel_start_makes_one_experiment(store, sweep, run_config):
    runs = []
    for name in ("r1", "r2", "r3"):
        run = RunDirectory.create(sweep / name, run_config, label=name)
        run.update(signature=name, attempts=[{"started": now()}])
        runs.append(run)
    threads = [threading.Thread(target=sync.sync, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    experiments = [e.name for e in store.search_experiments()]
    assert sorted(experiments) == ["Default", "fusion"]
    assert len(store.search_runs([store.get_experiment_by_name("fusion").experiment_id])) == 3
    assert all(json.loads((run.path / "mlflow.json").read_text())["run_id"] for run in runs)


def test_a_damaged_sweep_stops_no_other_that_has_its_runs_by_link(small_run, tmp_path):
    theirs, ours = tmp_path / "aa", tmp_path / "bb"
    run = RunDirectory.create(theirs / "abc", small_run())
    (theirs / "sweep.json").write_bytes(b"\xff\x00")
    ours.mkdir()
    (ours / "abc").symlink_to(Path("..") / "aa" / "abc")
    assert sync._known_of(RunDirectory(ours / "abc"), "abc") == (None, None)
    with pytest.raises(ConfigError, match=r"aa/sweep\.json cannot be read"):
        sync._known_of(run, "abc")


def test_another_systems_masks_are_a_run_with_their_origin_and_no_model(store, tmp_path):
    masks = tmp_path / "p.jsonl"
    masks.write_text('{"id": "x/test/1-0", "mask": null}\n')
    target = np.eye(4, dtype=np.uint8)
    example = Example(
        "x/test/1-0", Path("1.jpg"), "1", "a dog", False, None, None, {}, lambda: target
    )
    file = reading.read(masks)
    matched = matching.match(file.predictions, [example])
    data = {"name": "x", "sources": {}, "splits": {"test": []}}
    each = Import("LISA", file, matched, data, "all", "generated", "the authors", 0)
    (run,) = write(tmp_path / "outputs" / "lisa", [each], "keyseg import predictions p.jsonl")
    for _ in range(2):
        parent_run.start(run.sweep_dir)
        assert sync.sync_all([run]) == []
        parent_run.finish(run.sweep_dir, None)
    sent = store.get_run(run.info["mlflow_run_id"])
    assert sent.info.status == "FINISHED"
    assert sent.data.tags["keyseg.imported"] == "LISA"
    assert sent.data.tags["keyseg.imported_sha256"] == file.sha256
    assert sent.data.tags["keyseg.imported_said_by"] == "the authors"
    assert sent.data.tags["mlflow.runName"] == "LISA (imported) · seed 0"
    assert sent.data.params["imported.system"] == "LISA"
    assert sent.data.metrics["giou.test.generated"] == 0.0
    names = {artifact.path for artifact in store.list_artifacts(sent.info.run_id)}
    assert {"config.yaml", "samples.parquet"} <= names
    assert "model" not in names
