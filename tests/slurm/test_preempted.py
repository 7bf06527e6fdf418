"""A real cell that is told to leave its machine: checkpoint, requeue, and the same numbers."""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from keyseg.runs.run_directory import DONE, RunDirectory
from tests.forked import Cell
from tests.plain import PLAIN

WAITING = Path(__file__).with_name("waiting_cell.py")
SHORT = (
    "optim.steps=8",
    "optim.eval_every=8",
    "optim.checkpoint_every=100",  # so that the only checkpoints on the way are the signal's
    "evaluation.protocols=[teacher_forced]",
    "evaluation.images_per_batch=1",
    "runtime.log_every=1",
    "runtime.threads=1",
    "model.lora.dropout=0.1",  # so that the random state matters
)
MINUTES = 5


@pytest.fixture(scope="module")
def whole(small_run, tmp_path_factory) -> RunDirectory:
    """The run that nobody stopped."""
    run = RunDirectory.create(tmp_path_factory.mktemp("whole"), small_run("fusion=full", *SHORT))
    assert Cell(run).wait(60 * MINUTES) == 0, run.log_file.read_text()
    return run


def values(run: RunDirectory) -> pd.DataFrame:
    rows = run.metrics()
    kept = ~rows["name"].str.contains("seconds_per_step")
    return rows.loc[kept, ["name", "step", "value"]].reset_index(drop=True)


def stops(run: RunDirectory) -> int:
    return sum(str(a.get("outcome")).startswith("stopped ") for a in run.info["attempts"])


def test_a_job_of_more_importance_and_a_time_limit_cost_no_step_and_no_batch(
    sweep, small_overrides, whole, empty_store, tmp_path
):
    """The one comes while it trains, the other while it reads the test split."""

    def limit(minutes: int) -> None:
        sweep.cluster.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    store = tmp_path / "mlflow.db"
    shutil.copy(empty_store, store)
    process = sweep.start(
        "fusion=full",
        *PLAIN,
        *small_overrides,
        *SHORT,
        "hydra.launcher.report=false",
        f"hydra.launcher.worker=[{sys.executable},'{WAITING}']",
        "hydra.launcher.memory=4G",
        "hydra.launcher.partition=low",
        "hydra.launcher.time=60",
        "hydra.launcher.signal_delay=30",
        "hydra.launcher.cpus_per_task=8",
        stub=False,
        MLFLOW_TRACKING_URI=f"sqlite:///{store}",
    )
    sweep.wait_for("full", 60 * MINUTES)
    run, job = sweep.cells["full"], sweep.job("full")
    rival = ("--partition=main", "--cpus-per-task=8", "--output=/dev/null", "--wrap=true")
    sweep.cluster.call("sbatch", *rival)
    sweep.wait(lambda: stops(run) == 1, 60 * MINUTES)
    saved = run.info["checkpoint_step"]
    sweep.go("full")
    sweep.wait(lambda: any(run.checkpoints.glob("test.*")), 60 * MINUTES)
    # SLURM looks every 30 s, and sends the signal where the end may come before it looks again
    limit(1)
    sweep.wait(lambda: stops(run) == 2, 60 * MINUTES)
    limit(60)
    (run.path / "read").touch()
    _, err = process.communicate(timeout=60 * MINUTES)
    assert process.returncode == 0, err + run.log_file.read_text()

    attempts = run.info["attempts"]
    assert len(attempts) == 3
    assert attempts[0]["outcome"] == f"stopped at step {saved} of 8, checkpoint written"
    assert 0 < saved < 8
    assert "while it read the test split" in attempts[1]["outcome"]
    assert attempts[1]["reached"] == [8, 2]
    assert "2 batches were read before" in run.log_file.read_text()
    assert {attempt["slurm_job_id"] for attempt in attempts} == {job}
    with closing(sqlite3.connect(store)) as database:
        (runs,) = database.execute("select count(*) from runs").fetchone()
    assert runs == 3  # the parent, the variant, and one for all attempts
    assert whole.status == run.status == DONE
    pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
    pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)
