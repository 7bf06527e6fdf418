"""A real cell that is told to leave its machine: checkpoint, requeue, and the same numbers."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pandas as pd

from keyseg.rundir import DONE, RunDirectory

SHORT = (
    "optim.steps=8",
    "optim.eval_every=8",
    "optim.checkpoint_every=100",  # so that the only checkpoint on the way is the signal's
    "evaluation.protocols=[teacher_forced]",
    "runtime.log_every=1",
    "runtime.threads=1",
    "model.lora.dropout=0.1",  # so that the random state matters
)


def values(run: RunDirectory) -> pd.DataFrame:
    rows = run.metrics()
    kept = ~rows["name"].str.contains("seconds_per_step")
    return rows.loc[kept, ["name", "step", "value"]].reset_index(drop=True)


def test_preempted_and_requeued_it_ends_with_the_same_numbers(sweep, small_overrides, tmp_path):
    store = tmp_path / "mlflow.db"
    process = sweep.start(
        *("fusion=full", *small_overrides, *SHORT, "hydra.launcher.report=false"),
        "hydra.launcher.memory=4G",
        stub=False,
        MLFLOW_TRACKING_URI=f"sqlite:///{store}",
    )
    sweep.wait_for("full")
    run = sweep.cells["full"]
    sweep.wait(lambda: run.metrics()["step"].max() >= 2)
    (job,) = sweep.cluster.jobs()
    sweep.cluster.call("scancel", "--signal=USR2", job)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err + run.log_file.read_text()

    first, second = run.info["attempts"]
    assert first["outcome"].startswith("stopped at step ")
    assert first["slurm_job_id"] == second["slurm_job_id"] == job
    with closing(sqlite3.connect(store)) as database:
        (runs,) = database.execute("select count(*) from runs").fetchone()
    assert runs == 2  # the parent, and one for both attempts

    whole = RunDirectory.create(tmp_path / "whole", run.config)
    subprocess.run(
        [sys.executable, "-m", "keyseg.cell", str(whole.path)],
        env={**os.environ, "MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )
    assert whole.status == run.status == DONE
    pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
    pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)
