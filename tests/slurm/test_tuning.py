"""A tuning on a real SLURM: trials are jobs, and come back to their controller."""

import signal
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

STUB = Path(__file__).parent.parent / "sweep" / "analytic_worker.py"


def test_trials_are_jobs_and_a_controller_that_was_killed_comes_back_to_them(sweep):
    command = (
        "hydra/sweeper=optuna",
        "loss.bce=interval(0.5,8)",
        "hydra.sweeper.final=false",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=2",
        f"hydra.launcher.worker=[{sys.executable},-S,-E,'{STUB}']",
    )
    process = sweep.start(*command, SLOW="3")
    sweep.wait(lambda: len(list(sweep.root.glob("outputs/t/*/starts.txt"))) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(sweep.cluster.jobs()) == 2  # they go on
    code, out, err = sweep.run(*command)
    assert code == 0, err
    assert "tuning t · 4 trials, 2 at a time · 2 there already" in out
    storage = JournalStorage(JournalFileBackend(str(sweep.root / "outputs" / "t" / "study.log")))
    trials = optuna.load_study(study_name="t", storage=storage).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 4
    assert {sweep.starts(f"trial {t.number}") for t in trials} == {1}
    assert f"best of 4 trials: trial {max(trials, key=lambda t: t.value).number}, val/giou" in out
