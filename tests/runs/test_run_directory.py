import json
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from keyseg.config import ConfigError, RunConfig, signature
from keyseg.runs.run_directory import Row, RunBusy, RunDirectory, exit_code


@pytest.fixture
def run(tmp_path: Path, run_config: RunConfig) -> RunDirectory:
    return RunDirectory.create(tmp_path / "a 'sweep'" / "cell", run_config, label="full")


def rows(*steps: int) -> list[Row]:
    return [Row("train/loss", 1 / step, step, 100.0 + step) for step in steps]


def test_create_freezes_the_config_and_keeps_what_is_there(run, run_config):
    assert run.config == run_config
    assert len(run.identity) == 32
    assert run.info == {
        "id": run.identity,
        "signature": signature(run_config),
        "status": "queued",
        "seed": 0,
        "steps": run_config.optim.steps,
        "tests": True,
        "attempts": [],
        "label": "full",
    }
    run.update(status="done")
    again = RunDirectory.create(run.path, run_config, label="other")
    assert again.status == "done"
    assert again.info["label"] == "full"
    assert again.identity == run.identity


def test_the_config_file_is_what_omegaconf_writes_and_reads(run, run_config):
    structured = OmegaConf.create(asdict(run_config))
    assert run.config_file.read_text() == OmegaConf.to_yaml(structured)
    texts = [
        "1e-3",
        "1_000",
        ".5e+3",
        "nan",
        "yes",
        "null",
        "~",
        "0x1F",
        "1:30",
        "",
        " é: {",
        "a\nb",
    ]
    run_config.data["texts"] = texts
    run.freeze(run_config)
    assert OmegaConf.load(run.config_file).data.texts == texts


def test_opening_writes_nothing(tmp_path):
    run = RunDirectory(tmp_path / "nowhere")
    assert run.info == {}
    assert run.status == "queued"
    assert not run.busy
    assert run.metrics().empty
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        _ = run.config
    with pytest.raises(FileNotFoundError, match=r"samples.parquet: none yet \(status: queued\)"):
        run.samples()
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_does_not_fit_is_an_error_with_the_key(run):
    run.config_file.write_text(run.config_file.read_text().replace("steps:", "stepz:"))
    with pytest.raises(ConfigError, match=r"optim.stepz"):
        _ = run.config


def test_rows_come_back_in_order_with_types(run):
    run.log(rows(1, 2))
    run.log([])
    run.log([Row("val/giou", float("nan"), 2, 102.5)])
    df = run.metrics()
    assert list(df.columns) == ["name", "value", "step", "time"]
    assert df["step"].tolist() == [1, 2, 2]
    assert df["step"].dtype == "int64"
    assert df["value"].isna().tolist() == [False, False, True]


def test_a_torn_last_line_is_skipped_and_then_removed(run):
    run.log(rows(1))
    with run.metrics_file.open("a") as file:
        file.write('{"name": "train/lo')
    assert run.metrics()["step"].tolist() == [1]
    RunDirectory(run.path).log(rows(2))  # a new process
    assert run.metrics()["step"].tolist() == [1, 2]


def test_a_damaged_line_inside_is_an_error_that_says_where(run):
    run.log(rows(1))
    with run.metrics_file.open("a") as file:
        file.write("???\n")
    run.log(rows(2))
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 cannot be read"):
        run.metrics()


def test_truncate_drops_what_came_after_a_step(run):
    run.truncate(5)  # nothing there yet
    run.log(rows(1, 2, 3))
    run.truncate(2)
    assert run.metrics()["step"].tolist() == [1, 2]
    run.log(rows(3))
    assert run.metrics()["step"].tolist() == [1, 2, 3]


def test_truncate_drops_the_test_split_which_the_next_attempt_reads_again(run):
    run.log([*rows(1, 2), Row("test/generated/giou", 0.5, 2, 103.0)])
    run.truncate(2)
    assert run.metrics()["name"].unique().tolist() == ["train/loss"]
    before = run.metrics_file.stat().st_ino
    run.truncate(2)  # nothing to drop: the same file
    assert run.metrics_file.stat().st_ino == before


def test_samples(run):
    df = pd.DataFrame({"id": ["a", "b"], "iou": [0.5, 1.0]})
    run.write_samples(df)
    pd.testing.assert_frame_equal(run.samples(), df)
    assert not [file for file in run.path.iterdir() if file.name.startswith(".samples")]


def test_updates_of_threads_do_not_lose_each_other(run):
    def work(name: str) -> None:
        for i in range(20):
            run.update(**{f"{name}{i}": i})

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(key[0] in "abc" and key[1:].isdigit() for key in run.info) == 60


HOLD = """
import sys, time
from keyseg.runs.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_keeps_others_out_and_dies_with_its_process(run):
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert run.busy
        with pytest.raises(RunBusy, match=r"cell: another process"), run.lock():
            pass
        process.kill()
    assert not run.busy
    with run.lock():
        assert run.busy
    assert not run.busy


def finished(run):
    run.log(rows(1))
    run.write_samples(pd.DataFrame({"id": ["a"]}))
    run.best_file.write_bytes(b"old")
    run.interventions.mkdir()
    run.update(status="done", summary={"x": 1}, attempts=[{"pid": 1}], mlflow_run_id="old")


def state(run):
    """All that a run has, but for locks and its log."""
    files = {f for f in run.path.rglob("*") if f.is_file() and not f.name.endswith("lock")}
    return {f.relative_to(run.path).as_posix(): f.read_bytes() for f in files} | {"run.json": b""}


def test_a_run_that_begins_anew_has_no_results_and_keeps_its_history(run):
    finished(run)
    before = run.identity
    run.begin_anew()
    assert run.identity not in ("", before)
    assert run.info["status"] == "queued"
    assert run.info["attempts"] == [{"pid": 1, "superseded": True}]
    assert "summary" not in run.info
    assert "mlflow_run_id" not in run.info
    assert run.metrics().empty
    assert list(run.checkpoints.iterdir()) == []
    assert not run.samples_file.exists()
    assert not run.interventions.exists()


def test_new_results_replace_the_old_ones(run):
    finished(run)
    run.begin_anew()
    assert (run.before / "samples.parquet").exists()
    run.replaced()
    assert not run.before.exists()


@pytest.mark.parametrize("status", ["done", "pruned"])
def test_a_run_that_fails_at_its_start_has_its_results_back(run, status):
    finished(run)
    run.update(status=status)
    before = state(run)
    run.begin_anew()
    run.log(rows(7))
    run.best_file.write_bytes(b"new")
    run.update(status="failed", attempts=[*run.info["attempts"], {"pid": 2}])
    assert run.restore("no such device")
    assert state(run) == before
    assert run.info["status"] == status
    assert run.info["summary"] == {"x": 1}
    assert run.info["attempts"] == [{"pid": 1}, {"pid": 2, "superseded": True}]
    assert run.info["rerun_error"] == "no such device"
    assert exit_code(run) == 1


def test_results_wait_while_there_is_a_checkpoint_to_go_on_from(run):
    finished(run)
    run.begin_anew()
    run.last_file.write_bytes(b"step 25")
    run.update(status="failed")
    assert not run.restore("killed")
    assert run.last_file.exists()
    assert (run.before / "samples.parquet").exists()
    run.begin_anew()  # of a run that is not finished: the older results still wait
    assert (run.before / "samples.parquet").exists()
    assert run.restore("no such device")
    assert run.status == "done"


def test_nothing_is_lost_when_killed_while_results_are_set_aside(run, run_config, monkeypatch):
    finished(run)
    before = state(run)

    def killed(source, target):  # config.yaml was copied, results were moved, run.json was not
        if source.name == "run.json":
            raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copy2", killed)
    with pytest.raises(KeyboardInterrupt):
        run.begin_anew()
    monkeypatch.undo()
    assert not run.samples_file.exists()
    again = RunDirectory.create(run.path, run_config)
    assert state(again) == before
    assert again.status == "done"


def test_a_run_without_results_has_nothing_to_restore(run):
    run.begin_anew()
    assert not run.before.exists()
    assert not run.restore("why")


def test_a_writer_that_fails_leaves_the_old_file(run, monkeypatch):
    before = (run.path / "run.json").read_bytes()

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        run.update(status="done")
    assert (run.path / "run.json").read_bytes() == before
    assert json.loads(before)["status"] == "queued"
    assert not [
        file
        for file in run.path.iterdir()
        if file.name.startswith(".run.json.") and file.suffix != ".lock"
    ]
