"""A tuning in MLflow: the parent has the figures, its children number and state of their trial."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from keyseg.config import PROJECT
from tests import forked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STUB = Path(__file__).with_name("analytic_worker.py")


@pytest.fixture
def place(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def tune(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A tuning of quick workers that a SQLite file follows."""
    return forked.run(
        PROJECT / "run.py",
        "-m",
        "hydra/sweeper=optuna",
        "name=t",
        "hydra.sweeper.sampler=grid",
        "hydra.sweeper.final=false",
        *arguments,
        f"hydra.launcher.worker=[{sys.executable},-S,-E,'{STUB}']",
        "hydra.launcher.prepare=false",
        f"paths.outputs={place / 'outputs'}",
        f"paths.reports={place / 'reports'}",
        cwd=place,
        env={**os.environ, "MLFLOW_TRACKING_URI": store(place), **environment},
        timeout=600,
    )


def store(place: Path) -> str:
    return f"sqlite:///{place / 'mlflow.db'}"


def test_parent_with_figures_and_children_with_trial_and_state(place):
    done = tune(place, "loss.bce=1,2")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    assert "report  reports/t/index.html" in done.stdout
    client = MlflowClient(store(place))
    experiment = client.get_experiment_by_name("t")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert parent.info.status == "FINISHED"
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    assert sorted(c.data.tags["keyseg.trial"] for c in children) == ["0", "1"]
    assert {c.data.tags["keyseg.state"] for c in children} == {"done"}
    assert {c.data.tags["keyseg.study"] for c in children} == {"t"}
    figures = {f.path for f in client.list_artifacts(parent.info.run_id, "report/figures")}
    for name in ("history", "slices", "best_of_n", "timeline"):
        assert f"report/figures/tuning_{name}.png" in figures


def test_a_tuning_that_ends_early_has_failed(place):
    done = tune(place, "loss.bce=1,2", "hydra.sweeper.same_errors=2", CRASH="1")
    assert done.returncode == 1
    assert "the last 2 trials failed with the same error" in done.stderr
    client = MlflowClient(store(place))
    experiment = client.get_experiment_by_name("t")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"] * 3  # the parent, and both trials
