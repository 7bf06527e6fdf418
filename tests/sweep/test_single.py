"""`python run.py` and the debug launcher, which run cells in this process."""

import sys
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from keyseg.config import PROJECT, ConfigError
from keyseg.runs.run_directory import Row, RunBusy, RunDirectory, now
from keyseg.sweep.local.launcher import DebugLauncher
from keyseg.sweep.single import run_single


@pytest.fixture
def started(monkeypatch):
    """Stands in for keyseg.worker.cell, which would train; the runs that it was given."""
    runs: list[RunDirectory] = []

    def run_cell(run: RunDirectory) -> None:
        runs.append(run)
        if run.config.fusion["name"] == "self":
            raise RuntimeError("no luck today")
        if run.config.fusion["name"] == "cross":
            raise KeyboardInterrupt
        if run.config.fusion["name"] == "seg_only":
            raise RunBusy("another process works on this run")
        run.log([Row("train/loss", 0.5, 1, now())])
        run.update(status="done", summary={"teacher_forced": {"giou": 0.5}}, minutes=1.0)

    monkeypatch.setitem(sys.modules, "keyseg.worker.cell", SimpleNamespace(run_cell=run_cell))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "KEYSEG_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    monkeypatch.setattr("keyseg.sweep.preflight.check", lambda configs: None)
    return runs


@pytest.fixture
def run(tmp_path):
    def run(*overrides: str) -> None:
        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            cfg = compose("config", [*overrides, f"paths.outputs={tmp_path}"])
        run_single(cfg)

    return run


def test_one_run_then_found_then_run_again(run, started, tmp_path, capsys):
    run("seed=3")
    assert started[0].path.parent == tmp_path / "single"
    assert started[0].info["label"] == "full"
    out = capsys.readouterr().out
    assert "full  started" in out
    assert "50.0" in out
    run("seed=3")
    assert len(started) == 1
    assert "done already" in capsys.readouterr().out
    run("seed=3", "rerun=true", "runtime.threads=2")
    assert len(started) == 2
    assert started[1].config.runtime.threads == 2
    run("seed=3", "name=mine")
    assert started[2].path.parent == tmp_path / "mine"


def test_of_several_processes_the_first_one_prepares_and_tells(run, started, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    run("seed=3")
    assert "full  started" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    run("seed=3")
    run("seed=3", "dry=true")
    assert len(started) == 2
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    run("seed=3")
    assert "done already" in capsys.readouterr().out
    assert len(started) == 3  # the other process waits for a word


@pytest.mark.parametrize(
    ("fusion", "code", "message"),
    [
        ("self", 1, "RuntimeError: no luck today"),
        ("cross", 130, "the same command goes on from here"),
        ("seg_only", 1, "another process works on this run"),
    ],
)
def test_how_one_run_may_end(run, started, capsys, fusion, code, message):
    with pytest.raises(SystemExit) as caught:
        run(f"fusion={fusion}")
    assert caught.value.code == code
    printed = capsys.readouterr()
    assert message in printed.out + printed.err


def test_dry_calls_what_was_killed_stopped(run, started, capsys):
    run()
    started[0].update(status="running")
    run("dry=true")
    assert "full · seed 0: stopped" in capsys.readouterr().out
    with started[0].lock():
        run("dry=true")
    assert "full · seed 0: running" in capsys.readouterr().out


def test_a_run_at_work_elsewhere(run, started, capsys):
    run()
    with started[0].lock(), pytest.raises(SystemExit):
        run("rerun=true")
    assert "another process works on this run" in capsys.readouterr().err


WRONG = [
    ("optim.steps=-1", "optim.steps=-1: must be 0 or more"),
    ("evaluation.protocols=[]", "evaluation.protocols=[]: nothing would read the test split"),
    ("runtime.device=cuda:99", "runtime.device=cuda:99: torch "),
    ("+ablation.metrics=[gIoU]", "ablation.metrics: gIoU is no measure. Did you mean giou?"),
    ("+ablation.basline={}", "ablation.basline: no such key. Did you mean ablation.baseline?"),
    ("+ablation.margin=0.01", "ablation.margin: giou=0.01: give points"),
    ("data.splits.test=[]", "data.splits.test is empty: list at least one entry"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_a_wrong_value_is_one_line_also_where_nothing_is_to_start(
    run, started, monkeypatch, capsys, override, message
):
    monkeypatch.undo()  # the real preflight
    for more in ("dry=true", "dry=false"):
        with pytest.raises(SystemExit) as caught:
            run(override, more)
        assert caught.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {message}")
        assert told.count("\n") == 1
    assert not started


def test_a_block_for_sweeps_says_that_one_run_does_not_read_it(run, started, capsys):
    run("+ablation.metrics=[ciou]")
    assert "ablation: is of sweeps (-m); one run compares nothing" in capsys.readouterr().out


@pytest.fixture
def launcher(tmp_path):
    """A debug launcher over a config of these overrides; within `initialize_config_dir`."""

    def launcher(*overrides: str, report: bool = False) -> DebugLauncher:
        def load_sweep_config(config, job):
            return compose("config", [f"paths.outputs={tmp_path}", *job])

        debug = DebugLauncher(report=report)
        debug.setup(
            hydra_context=SimpleNamespace(
                config_loader=SimpleNamespace(load_sweep_config=load_sweep_config)
            ),
            task_function=None,
            config=compose("config", list(overrides)),
        )
        return debug

    return launcher


def test_debug_runs_in_this_process_and_lets_errors_through(started, launcher, capsys):
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        for _ in range(2):
            (done,) = launcher().launch([["fusion=full"]], 0)
            assert done.return_value == {"teacher_forced": {"giou": 0.5}}
        assert len(started) == 1
        out = capsys.readouterr().out
        assert "[1/1] full · seed 0: starts" in out
        assert "[1/1] full · seed 0: found" in out
        with pytest.raises(RuntimeError, match="no luck today"):
            launcher().launch([["fusion=self"], ["fusion=full"]], 0)


@pytest.mark.parametrize("dry", ["dry=true", "dry=false"])
@pytest.mark.parametrize(
    "override", ["evaluation.protocols=[]", "runtime.device=cuda:99", "data.splits.val=[]"]
)
def test_of_a_sweep_too_it_is_known_before_a_job(
    started, launcher, monkeypatch, capsys, override, dry
):
    monkeypatch.undo()  # the real preflight
    with (
        initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"),
        pytest.raises(SystemExit),
    ):
        launcher(dry, report=True).launch([["fusion=full", override]], 0)
    assert f"error: {override.partition('=')[0]}" in capsys.readouterr().err
    assert not started


def test_data_and_weights_are_looked_at_once_before_anything_starts(
    run, started, monkeypatch, capsys
):
    looked = []

    def check(configs):
        looked.append(len(configs))
        if len(looked) > 1:
            raise ConfigError("model.sam=x: there is no x")

    monkeypatch.setattr("keyseg.sweep.preflight.check", check)
    run()
    run()  # done: nothing to look for
    assert looked == [1]
    with pytest.raises(SystemExit) as caught:
        run("seed=1")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: model.sam=x: there is no x\n"
    assert len(started) == 1
