"""Runs at the same time on a real tracking server with a real PostgreSQL behind it.

KEYSEG_TEST_RUNS=32 has as many as docs/cluster.md tells of.
"""

import os
import threading
import time

import pytest

from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import Row, RunDirectory, now
from keyseg.tracking import parent_run, store, sync
from keyseg.tracking.background import mirror
from keyseg.tracking.names import name_of
from tests.tracking_server import missing, tracking_server

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(missing() is not None, reason=f"{missing()}: not tested here"),
]

RUNS, STEPS = int(os.environ.get("KEYSEG_TEST_RUNS", "8")), 20
NAMES = ("train/loss", "train/seconds_per_step", "val/precision@0.5")


def work(run: RunDirectory) -> None:
    """A run as far as MLflow can see, in a second."""
    with mirror(run, every=1.0, patience=300):
        for step in range(1, STEPS + 1):
            run.log([Row(name, 1 / step, step, now()) for name in NAMES])
            if step % 10 == 0:
                run.update(checkpoint_step=step)
            time.sleep(0.05)
        run.log([Row("test/generated/giou", 0.5, STEPS, now())])
        run.update(status="done", attempts=[{**run.info["attempts"][0], "ended": now()}])


def test_many_runs_lose_nothing_and_send_nothing_twice(
    tmp_path, run_config, monkeypatch, caplog, capfd
):
    sweep = tmp_path / "many"
    sweep.mkdir()
    cells = [{"signature": f"r{i}", "label": "full", "seed": i} for i in range(RUNS)]
    sweep_directory.write(sweep, {"name": "many", "cells": cells})
    runs = []
    for cell in cells:
        run = RunDirectory.create(sweep / cell["signature"], run_config, label="full")
        run.update(signature=cell["signature"], status="running", attempts=[{"started": now()}])
        runs.append(run)

    with tracking_server(tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        parent_run.start(sweep)
        threads = [threading.Thread(target=work, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert caplog.records == []
        assert capfd.readouterr().out == ""
        assert all(sync.is_level(run) for run in runs)
        for run in runs[:4]:
            sync.sync(run)
        parent_run.finish(sweep, None)

        client = store.client_of(address)
        parent = sweep_directory.read(sweep)["mlflow_parent"]
        (experiment,) = {client.get_run(r.info["mlflow_run_id"]).info.experiment_id for r in runs}
        assert len(client.search_runs([experiment])) == RUNS + 2  # the sweep's and its variant's
        assert client.get_run(parent).info.status == "FINISHED"
        for run in runs:
            found = client.get_run(run.info["mlflow_run_id"])
            assert found.info.status == "FINISHED"
            assert found.data.tags["mlflow.parentRunId"] == parent
            assert len(found.data.params) > 60
            metrics = run.metrics()
            for name, rows in metrics.groupby("name"):
                history = client.get_metric_history(found.info.run_id, name_of(str(name)))
                sent = sorted((point.step, point.value) for point in history)
                assert sent == list(zip(rows["step"], rows["value"], strict=True))
        artifacts = {a.path for a in client.list_artifacts(runs[-1].info["mlflow_run_id"])}
        assert {"config.yaml", "run.json"} <= artifacts
    log = (tmp_path / "postgres.log").read_text().splitlines()
    assert not [line for line in log if "ERROR" in line]
