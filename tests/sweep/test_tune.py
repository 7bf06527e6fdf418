"""The tuner as a user meets it: `python run.py -m hydra/sweeper=optuna ...`, with quick workers."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from keyseg.config import PROJECT
from keyseg.runs.run_directory import RunDirectory
from tests import forked
from tests.forked import Command

STUB = Path(__file__).with_name("analytic_worker.py")
TRIALS = 80
SPACE = ("loss.keyword.temperature=tag(log,interval(0.05,5))", "loss.bce=interval(0.5,8)")


class Tuning:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweep = root / "outputs" / "t"

    def start(self, *arguments: str, **environment: str) -> Command:
        words = (
            PROJECT / "run.py",
            "-m",
            "name=t",
            f"hydra.launcher.worker=[{sys.executable},-S,-E,'{STUB}']",
            "hydra.launcher.report=false",
            "hydra.launcher.prepare=false",
            f"paths.outputs={self.root / 'outputs'}",
            f"paths.reports={self.root / 'reports'}",
            *arguments,
        )
        environment = {"MLFLOW_TRACKING_URI": "none", "COLUMNS": "100", **environment}
        return Command(*words, cwd=self.root, env={**os.environ, **environment})

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=240)
        assert process.returncode is not None
        return process.returncode, out, err

    @property
    def study(self) -> optuna.Study:
        """Opened as optuna-dashboard opens it."""
        storage = JournalStorage(JournalFileBackend(str(self.sweep / "study.log")))
        return optuna.load_study(study_name="t", storage=storage)


@pytest.fixture
def tuning(tmp_path):
    return Tuning(tmp_path)


def test_dry_shows_the_space_and_starts_nothing(tuning):
    code, out, _ = tuning.run("hydra/sweeper=optuna", *SPACE, "dry=true")
    assert code == 0
    assert "nothing started" in out
    assert "loss.bce" in out
    assert not tuning.sweep.exists()
    code, _, err = tuning.run("hydra/sweeper=optuna", *SPACE, "detach=true")
    assert code == 2
    assert err.startswith("error: detach=true: a tuner stays")


def test_many_trials_find_the_optimum_and_hand_it_over(tuning):
    command = ("hydra/sweeper=optuna", *SPACE)
    budget = f"hydra.sweeper.n_trials={TRIALS}"
    process = tuning.start(*command, budget)
    deadline = time.monotonic() + 120  # killed on the way, and the same command again
    while len(list(tuning.sweep.glob("*/starts.txt"))) < TRIALS // 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    code, out, err = tuning.run(*command, budget)
    assert code == 0, err
    assert err == ""
    trials = tuning.study.trials
    assert [t.number for t in trials] == list(range(TRIALS))
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert tuning.study.best_value > 0.9
    assert f"best of {TRIALS} trials: trial {tuning.study.best_trial.number}, val/giou" in out
    # Default and best are compared, and are the only cells of the design.
    written = json.loads((tuning.sweep / "sweep.json").read_text())
    assert [c["label"] for c in written["cells"]] == ["default", "tuned"]
    assert written["baseline"] == {"settings": "default"}
    dumped = json.loads((tuning.sweep / "trials.json").read_text())
    assert len(dumped["studies"][0]["trials"]) == TRIALS

    lines = out.splitlines()
    pasted = lines[next(i for i, line in enumerate(lines) if "best of" in line) + 1]
    best = tuning.study.best_params
    assert pasted.split() == [f"{k}={v!r}" for k, v in best.items()]
    assert "temperature" in (tuning.sweep / "best.yaml").read_text()

    code, again, _ = tuning.run(*command, budget)  # the budget counts what is there
    assert code == 0
    assert f"{TRIALS} there already" in again
    assert len(tuning.study.trials) == TRIALS


def test_one_error_over_and_over_ends_the_study_and_says_it(tuning):
    code, _, err = tuning.run("hydra/sweeper=optuna", *SPACE, CRASH="1")
    assert code == 1
    assert err.count("\n") == 1
    assert "the last 3 trials failed with the same error: RuntimeError: no luck" in err


def test_every_variant_is_compared_with_its_default_and_with_the_first(tuning):
    """Values with a slash, which no file may have in its name; and settings that are mute."""
    a, b = "keyseg/tiny/weights/sam", "x/sam"
    search = (
        "hydra/sweeper=optuna",
        *SPACE,
        f"model.sam={a},{b}",
        "hydra.sweeper.tune_per=model.sam",
    )
    point = "hydra.sweeper.enqueue=[{loss.keyword.temperature: 0.3, loss.bce: 2.0}]"
    code, out, err = tuning.run(*search, point, "hydra.sweeper.n_trials=2", NO_SEG="1")
    assert code == 0, err
    written = json.loads((tuning.sweep / "sweep.json").read_text())
    pairs = [
        tuple("-".join(map(str, entry[side].values())) for side in ("of", "against"))
        for entry in written["contrasts"]
    ]
    assert pairs == [
        (f"{a}-tuned", f"{a}-default"),
        (f"{b}-tuned", f"{b}-default"),
        (f"{b}-tuned", f"{a}-tuned"),
        (f"{b}-default", f"{a}-default"),
    ]
    assert len(list(tuning.sweep.glob("best-*.yaml"))) == 2
    assert "100 % of its generated answers have no SEG" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hydra/sweeper=optuna",), "there is nothing to tune"),
        (("hydra/sweeper=optuna", *SPACE, "hydra.sweeper.sampler=tpee"), "Did you mean tpe?"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tuning, arguments, said):
    code, _, err = tuning.run(*arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not tuning.sweep.exists()


def test_the_file_of_the_best_is_ready_for_sweeps(tuning):
    """And the tune sweep's own file: its space, its known points, its trials without test."""
    code, _, err = tuning.run("+sweeps=tune", "hydra.sweeper.n_trials=4")
    assert code == 0, err
    trials = tuning.study.trials
    assert trials[0].params["loss.text"] == 0.2
    assert trials[1].params["loss.keyword.temperature"] == 0.07
    runs = {t.number: RunDirectory(tuning.sweep / t.user_attrs["cell"]) for t in trials}
    assert runs[0].config.evaluation.protocols == []
    assert runs[0].info["trial"] == 0
    sweeps = tuning.root / "mine" / "sweeps"
    sweeps.mkdir(parents=True)
    shutil.copy(tuning.sweep / "best.yaml", sweeps / "found.yaml")
    asked = (f"--config-dir={sweeps.parent}", "+sweeps=found", "--cfg", "job")
    done = forked.run(PROJECT / "run.py", *asked, cwd=tuning.root)
    assert done.returncode == 0, done.stderr
    assert f"temperature: {tuning.study.best_params['loss.keyword.temperature']}" in done.stdout
