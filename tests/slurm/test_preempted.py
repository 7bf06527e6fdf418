"""A real cell that is told to leave its machine: checkpoint, requeue, and the same numbers."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from keyseg.rundir import DONE, RunDirectory

SLOW = Path(__file__).with_name("slow_cell.py")
SHORT = (
    "optim.steps=6",
    "optim.eval_every=6",
    "optim.checkpoint_every=100",  # so that the only checkpoints on the way are the signal's
    "evaluation.protocols=[teacher_forced]",
    "runtime.log_every=1",
    "runtime.threads=1",
    "model.lora.dropout=0.1",  # so that the random state matters
)
REPORT_OFF = "hydra.launcher.report=false"


@pytest.fixture(scope="module")
def whole(small_run, tmp_path_factory) -> RunDirectory:
    """The run that nobody stopped."""
    run = RunDirectory.create(tmp_path_factory.mktemp("whole"), small_run("fusion=full", *SHORT))
    subprocess.run(
        [sys.executable, "-m", "keyseg.cell", str(run.path)],
        env={**os.environ, "MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=600,
    )
    return run


def values(run: RunDirectory) -> pd.DataFrame:
    rows = run.metrics()
    kept = ~rows["name"].str.contains("seconds_per_step")
    return rows.loc[kept, ["name", "step", "value"]].reset_index(drop=True)


def check_same(run: RunDirectory, whole: RunDirectory) -> None:
    assert whole.status == run.status == DONE
    pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
    pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)


def test_preempted_and_requeued_it_ends_with_the_same_numbers(
    sweep, small_overrides, whole, tmp_path
):
    store = tmp_path / "mlflow.db"
    process = sweep.start(
        *("fusion=full", *small_overrides, *SHORT, REPORT_OFF),
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
    check_same(run, whole)


def test_a_time_limit_is_met_again_and_again(sweep, small_overrides, whole):
    process = sweep.start(
        *("fusion=full", *small_overrides, *SHORT, REPORT_OFF, "hydra.launcher.memory=4G"),
        f"hydra.launcher.worker=[{sys.executable},'{SLOW}']",
        *("hydra.launcher.time=1", "hydra.launcher.signal_delay=30"),
        stub=False,
        STEP_SLEEP="10",  # all of them take a minute, and more
    )
    _, err = process.communicate(timeout=600)
    run = sweep.cells["full"]
    assert process.returncode == 0, err + run.log_file.read_text()
    *stopped, last = run.info["attempts"]
    assert len(stopped) >= 2
    # at a step or, with the training complete, while it read the test split
    assert all(attempt["outcome"].startswith("stopped ") for attempt in stopped), stopped
    assert len({attempt["slurm_job_id"] for attempt in (*stopped, last)}) == 1
    check_same(run, whole)


def test_a_job_of_more_importance_takes_the_machine(sweep, small_overrides, whole):
    process = sweep.start(
        *("fusion=full", *small_overrides, *SHORT, REPORT_OFF, "hydra.launcher.memory=4G"),
        f"hydra.launcher.worker=[{sys.executable},'{SLOW}']",
        *("hydra.launcher.partition=low", "hydra.launcher.cpus_per_task=8"),
        stub=False,
        STEP_SLEEP="2",
    )
    sweep.wait_for("full")
    run = sweep.cells["full"]
    sweep.wait(lambda: run.metrics()["step"].max() >= 2, 240)
    rival = ("--partition=main", "--cpus-per-task=8", "--output=/dev/null", "--wrap=sleep 3")
    sweep.cluster.call("sbatch", *rival)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err + run.log_file.read_text()
    first, second = run.info["attempts"]
    assert first["outcome"].startswith("stopped at step ")
    assert first["slurm_job_id"] == second["slurm_job_id"]
    check_same(run, whole)
