"""The launcher as a user meets it: `python run.py -m ...`, with workers that are quick."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from keyseg.config import PROJECT
from keyseg.runs.run_directory import RunDirectory
from tests.forked import Command

STUB = Path(__file__).with_name("cell_stub.py")
KILLS = int(os.environ.get("KEYSEG_TEST_KILLS", "3"))
LOOKS = ("fusion=seg_only,full,self", "ablation.replicate={until: verdict, looks: [2, 3, 4]}")
SAMPLES = {"SAMPLES": "seg_only=0.4~0,full=0.8~0.00001,self=0.49~0.05"}
"""full is far from seg_only whatever the seed; self is as far from it as its seeds are apart."""


class Sweep:
    """One place for outputs, and the command that is given again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self, *arguments: str, **environment: str) -> Command:
        words = (
            PROJECT / "run.py",
            "-m",
            f"hydra.launcher.worker=[{sys.executable},'{STUB}']",
            "hydra.launcher.report=false",
            "hydra.launcher.prepare=false",
            "name=t",
            f"paths.outputs={self.root / 'outputs'}",
            f"paths.reports={self.root / 'reports'}",
            *arguments,
        )
        environment = {"MLFLOW_TRACKING_URI": "none", "COLUMNS": "100", **environment}
        return Command(*words, cwd=self.root, env={**os.environ, **environment})

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode is not None
        return process.returncode, out, err

    @property
    def cells(self) -> dict[str, RunDirectory]:
        found = [RunDirectory(f.parent) for f in self.root.glob("outputs/t/*/run.json")]
        return {run.info["label"]: run for run in found}

    @property
    def written(self) -> dict:
        return json.loads((self.root / "outputs/t/sweep.json").read_text())

    def starts(self, cell: str) -> int:
        return len((self.cells[cell].path / "starts.txt").read_text().splitlines())

    def wait_for(self, cell: str) -> None:
        deadline = time.monotonic() + 60
        while cell not in self.cells or not self.cells[cell].metrics_file.exists():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def test_a_second_command_with_other_cells_waits_or_takes_another_name(sweep):
    first = sweep.start("fusion=cross,self", HANG="cross,self")
    sweep.wait_for("cross")
    code, out, err = sweep.run("fusion=full,self")
    assert code == 2
    assert "at work on the sweep 't' with other cells" in err
    assert "name=OTHER" in err
    assert [cell["label"] for cell in sweep.written["cells"]] == ["cross", "self"]
    for cell in ("cross", "self"):
        sweep.wait_for(cell)
        (sweep.cells[cell].path / "go").touch()
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    code, out, err = sweep.run("fusion=full,self")
    assert code == 0, err
    assert "t also holds 1 cell of other commands" in out
    assert sweep.starts("self") == 1


def test_a_sweep_and_the_same_command_again(sweep, empty_store):
    shutil.copy(empty_store, sweep.root / "mlflow.db")
    command = ("fusion=cross,self", "hydra.launcher.report=true")
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{sweep.root / 'mlflow.db'}"}
    code, out, err = sweep.run(*command, **store)
    assert code == 0, err
    assert {name: run.status for name, run in sweep.cells.items()} == {
        "cross": "done",
        "self": "done",
    }
    assert "sweep t · 2 cells" in out
    assert "cross  done after" in out
    assert "P@0.5" in out
    assert "MLflow  keyseg --outputs outputs ui t" in out
    written = sweep.written
    assert written["factors"] == {"fusion": ["cross", "self"]}
    assert [cell["label"] for cell in written["cells"]] == ["cross", "self"]
    assert written["command"].startswith("python ")
    assert written["mlflow_parent"]

    code, out, _ = sweep.run(*command, **store)
    assert code == 0
    assert "all cells were done already" in out
    assert sweep.starts("cross") == 1
    assert sweep.written["mlflow_parent"] == written["mlflow_parent"]
    # Nothing else is left where the command was given: no folders by date, no .hydra.
    left = {file.name for file in sweep.root.iterdir()}
    assert left <= {"outputs", "reports", "mlflow.db", "mlflow.db.lock", "mlartifacts"}


def test_a_failed_cell_is_shown_with_its_log(sweep):
    heard = sweep.root / "heard.jsonl"
    code, out, err = sweep.run("fusion=self,cross", f"notify='cat >> {heard}'", DIE="self")
    assert code == 1
    told = json.loads(heard.read_text())
    assert (told["state"], told["done"], told["failed"]) == ("failed", 1, 1)
    assert err == "error: 1 of 2 cells failed\n"
    assert "FAILED  self · seed 0: the worker was killed by SIGKILL (out of memory?)" in out
    assert f"log: {sweep.cells['self'].log_file.relative_to(sweep.root)}" in out
    assert "60.0" in out  # the other one's cIoU


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(sweep, number):
    process = sweep.start("fusion=self,cross", HANG="self")
    sweep.wait_for("self")
    worker = sweep.cells["self"].info["attempts"][-1]["pid"]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here: python" in out
    assert err == ""
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert sweep.cells["self"].status == "queued"


@pytest.mark.parametrize("cells_per_job", [1, 3])
def test_two_launching_processes_run_no_cell_twice(sweep, cells_per_job):
    command = ("fusion=self,cross,full", f"hydra.launcher.cells_per_job={cells_per_job}")
    both = [sweep.start(*command, STEP_SECONDS="0.5") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.count("50.0") == 3  # both report all results
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 1, "cross": 1, "full": 1}


def test_workers_outlive_a_launcher_that_is_killed_and_are_found_again(sweep):
    process = sweep.start("fusion=self", STEP_SECONDS="1.5")
    sweep.wait_for("self")
    process.kill()
    process.communicate()
    code, _, _ = sweep.run("fusion=self")
    assert code == 0
    assert sweep.starts("self") == 1


def test_threads_stay_with_a_run(sweep):
    sweep.run("fusion=self,cross", "hydra.launcher.n_jobs=1", FAIL="self")
    cores = str(len(os.sched_getaffinity(0)))
    assert sweep.cells["cross"].info["environment"]["KEYSEG_THREADS"] == cores
    sweep.run("fusion=self,cross", "hydra.launcher.n_jobs=2")  # goes on with what it began with
    assert sweep.starts("self") == 2
    assert sweep.cells["self"].info["environment"]["KEYSEG_THREADS"] == cores


def test_a_wrong_value_in_any_cell_ends_it_before_it_begins(sweep):
    code, _, err = sweep.run("fusion=self,cross", "optim.steps=5,-1")
    assert code == 2
    assert err.count("\n") == 1
    assert "optim.steps=-1: must be 0 or more" in err
    assert not (sweep.root / "outputs").exists()


def test_a_store_that_is_down_hides_no_result(sweep):
    code, out, _ = sweep.run("fusion=self", MLFLOW_TRACKING_URI="sqlite:////proc/none/mlflow.db")
    assert code == 0
    assert "50.0" in out
    assert "is not level" in out
    assert "`keyseg sync t` sends them later" in out


def test_sweep_files_run_by_name_without_m(sweep):
    file = sweep.root / "mine" / "sweeps" / "question.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      fusion: self,cross\n"
        "ablation:\n  question: Does KEY help?\n  baseline: {fusion: cross}\n"
    )
    code, _, err = sweep.run("+sweeps=question", f"--config-dir={file.parent.parent}")
    assert code == 0, err
    assert sweep.written["question"] == "Does KEY help?"
    assert sweep.written["baseline"] == {"fusion": "cross"}
    assert [cell["label"] for cell in sweep.written["cells"]] == ["self", "cross"]


def taken(sweep) -> list[dict]:
    file = sweep.root / "outputs" / "t" / "looks.json"
    return json.loads(file.read_text())["looks"] if file.exists() else []


def test_seeds_come_until_the_answer_is_in_and_kills_change_nothing(sweep, tmp_path):
    """The second sweep's command is killed again and again: between looks, and while it looks."""
    code, out, err = sweep.run(*LOOKS, "--dry")
    assert code == 0, err
    assert "sweep t · 6 cells, nothing started" in out
    assert "looks at 2, 3, 4 seeds (obrien_fleming); giou decides; 0 taken" in out
    assert "asked for now: 6 cells; at most: 12 cells; expected: about" in out
    code, out, err = sweep.run(*LOOKS, "hydra.launcher.order=by_seed", **SAMPLES)
    assert code == 0, err
    assert "look 1 of 3 (2 seeds): full − seg_only: differs" in out
    assert "open: self − seg_only; 1 more seed for seg_only, self" in out
    labels = [cell["label"] for cell in sweep.written["cells"]]
    assert (labels.count("full"), labels.count("self"), labels.count("seg_only")) == (2, 4, 4)
    assert [cell["label"] for cell in sweep.written["planned"]] == ["full", "full"]

    other = Sweep(tmp_path / "killed")
    other.root.mkdir()
    rng, before, seen = random.Random(0), [], []
    for kill in range(KILLS):
        process = other.start(*LOOKS, **SAMPLES)
        process.stdout.readline()  # it has begun
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 4))
        process.kill()
        process.communicate()
        now = taken(other)
        assert now[: len(before)] == before, f"kill {kill}: a look was taken again"
        before = now
        seen.append(len(now))
    code, out, err = other.run(*LOOKS, **SAMPLES)
    assert code == 0, err
    whole, ours = taken(sweep), taken(other)
    assert ours[: len(before)] == before, seen
    assert [{**look, "taken": 0} for look in ours] == [{**look, "taken": 0} for look in whole]
    starts = list(other.root.glob("outputs/t/*/starts.txt"))
    assert len(starts) == len(other.written["cells"]) == len(sweep.written["cells"])
    assert {len(file.read_text().splitlines()) for file in starts} == {1}, seen

    code, out, err = sweep.run(*LOOKS, "rerun=true", **SAMPLES)
    assert code == 2
    assert "is not run again: what look 3 of t decided rests on it" in err
