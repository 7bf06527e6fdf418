"""Several budgets off one trunk: the same numbers as alone, for fewer steps."""

import json
import signal

import pandas as pd
import pytest

from keyseg.config import signature
from keyseg.runs import trunk
from keyseg.runs.run_directory import DONE, RunDirectory
from keyseg.worker.cell import run_cell
from tests.forked import Cell
from tests.worker.test_cell import TIMEOUT, finish, values, wait_for

WSD = (
    "optim.schedule=wsd",
    "optim.decay=0.25",
    "optim.warmup=2",
    "optim.eval_every=3",
    "optim.checkpoint_every=4",
    "evaluation.protocols=[teacher_forced]",
    "runtime.log_every=2",
    "runtime.threads=1",
    "model.lora.dropout=0.1",  # so that the random state matters
)


@pytest.fixture
def cell(small_run, tmp_path):
    """A cell with a budget in the folder of a sweep."""

    def make(sweep: str, steps: int, *overrides: str) -> RunDirectory:
        cfg = small_run(*WSD, f"optim.steps={steps}", *overrides)
        return RunDirectory.create(tmp_path / sweep / signature(cfg), cfg)

    return make


def trained(run: RunDirectory) -> int:
    """Steps that the run's own attempts logged."""
    began = run.info["attempts"][0]["started"]
    return len({r.step for r in run.rows() if r.name == "train/loss" and r.time >= began})


def assert_same(run: RunDirectory, alone: RunDirectory) -> None:
    pd.testing.assert_frame_equal(values(run), values(alone), check_exact=True)
    pd.testing.assert_frame_equal(run.samples(), alone.samples(), check_exact=True)
    assert run.best_file.read_bytes() == alone.best_file.read_bytes()
    assert run.info["convergence"] == alone.info["convergence"]


def test_a_budget_off_the_trunk_is_as_if_trained_alone(cell):
    """4, 8 and 12 steps; the larger ones killed where they go on, and in their decay."""
    alone = {steps: cell(f"alone{steps}", steps) for steps in (8, 12)}
    shared = {steps: cell("shared", steps) for steps in (4, 8, 12)}
    for run in (*alone.values(), shared[4], shared[8]):
        assert finish(run) == 0, run.log_file.read_text()
    assert shared[8].info["trunk"]["step"] == 3
    assert shared[8].info["trunk"]["signature"] == shared[4].info["signature"]
    assert "trunk" not in alone[8].info
    assert trained(shared[8]) < trained(alone[8])
    assert_same(shared[8], alone[8])
    for after in (8, 10):
        process = Cell(shared[12])
        wait_for(process, shared[12], after)
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT)
    assert finish(shared[12]) == 0, shared[12].log_file.read_text()
    assert shared[12].info["trunk"]["step"] == 6
    assert_same(shared[12], alone[12])
    states = sorted((shared[4].path.parent / "trunks").glob("*/[0-9]*"))
    assert [state.name for state in states] == ["9"]  # the farthest is kept


def test_killed_before_it_left_its_state_a_run_leaves_it_when_it_goes_on(cell, monkeypatch):
    run = cell("sweep", 4)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    with monkeypatch.context() as broken:
        broken.setattr(trunk, "leave", killed)
        with pytest.raises(KeyboardInterrupt):
            run_cell(run)
    assert not list(run.path.parent.glob("trunks/*/[0-9]*"))
    assert finish(run) == 0, run.log_file.read_text()
    assert list(run.path.parent.glob("trunks/*/3/last.pt"))


@pytest.mark.parametrize(
    "other", [("seed=1",), ("optim.lr=1e-3",), ("optim.decay=0.5",), ("optim.until=plateau",)]
)
def test_only_the_budget_may_differ(cell, other):
    assert trunk.key(cell("a", 4).config) == trunk.key(cell("a", 8).config) is not None
    assert trunk.key(cell("a", 4).config) != trunk.key(cell("a", 8, *other).config)


def test_other_schedules_have_no_trunk(compose_run):
    assert trunk.key(compose_run("optim.schedule=cosine")) is None


def test_a_state_of_other_data_or_code_is_not_gone_on_from(cell):
    first, second = cell("sweep", 4), cell("sweep", 8)
    assert finish(first) == 0, first.log_file.read_text()
    (origin,) = first.path.parent.glob("trunks/*/3/origin.json")
    known = {name: first.info[name] for name in ("data_fingerprint", "weights_fingerprint")}
    second.update(**known)
    assert trunk.take(second, second.config, 2) is None  # too far
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {"data_fingerprint": "other"}))
    assert trunk.take(second, second.config, 6) is None
    assert not list(second.checkpoints.iterdir())
    other = {"step": 3, **known, "attempts": [{"code": "other"}]}
    origin.write_text(json.dumps(other))
    second.update(attempts=[{"code": "this"}])
    assert trunk.take(second, second.config, 6) is None
    origin.write_text(json.dumps({"step": 3, **known, "attempts": [{"code": "this"}]}))
    assert trunk.take(second, second.config, 6) is not None
    assert trunk.take(second, second.config, 6) is None  # it has begun


def test_to_be_run_again_is_to_be_trained_from_the_first_step(cell):
    run = cell("sweep", 4)
    assert finish(run) == 0, run.log_file.read_text()
    trunk.forget(run, run.config)
    assert not list(run.path.parent.glob("trunks/*/[0-9]*"))
    assert run.status == DONE


def test_a_run_may_end_where_val_has_flattened(cell, monkeypatch):
    """Where that is, is told: random weights learn no masks."""
    from keyseg.train import trainer

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    flat = cell("flat", 40, "optim.until=plateau")
    monkeypatch.setattr(trainer, "settled", lambda curve: curve[-1][0] >= 6)
    run_cell(flat)
    assert flat.info["steps"] == 8  # 6 at the full rate, and a quarter of all to decay
    rates = {r.step: r.value for r in flat.rows() if r.name == "train/lr"}
    assert rates[6] == pytest.approx(2e-3)
    assert 0 < rates[8] < 2e-3
    assert max(r.step for r in flat.rows()) == 8
