"""One cell as a launcher starts it: a process of its own, on the real path with random weights."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from keyseg.config import ConfigError, signature
from keyseg.data.files import DataError
from keyseg.runs.convergence import of_rows
from keyseg.runs.run_directory import (
    DONE,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    PRUNED,
    QUEUED,
    RunBusy,
    RunDirectory,
)
from keyseg.sweep.tune.prune import request_prune, val_iou
from keyseg.worker.kept_records import KeptRecords
from tests.forked import Cell

TIMEOUT = 240
SHORT = (
    "optim.steps=8",
    "optim.eval_every=4",
    "optim.checkpoint_every=3",
    "runtime.log_every=2",
    "runtime.threads=1",
    "model.lora.dropout=0.1",  # so that the random state matters
)
TIMES = "seconds_per_step"


def command(run: RunDirectory) -> list[str]:
    return [sys.executable, "-m", "keyseg.worker", str(run.path)]


def environment() -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1"}


def finish(run: RunDirectory) -> int:
    return Cell(run).wait(TIMEOUT)


def wait_for(process: Cell, run: RunDirectory, step: int = 0) -> None:
    """Until a step is logged."""
    deadline = time.monotonic() + TIMEOUT
    while run.metrics().empty or run.metrics()["step"].max() < step:
        assert process.poll() is None, run.log_file.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def values(run: RunDirectory) -> pd.DataFrame:
    rows = run.metrics()
    return rows.loc[~rows["name"].str.contains(TIMES), ["name", "step", "value"]].reset_index(
        drop=True
    )


@pytest.fixture(scope="module")
def whole(small_run, tmp_path_factory) -> RunDirectory:
    """A run that nobody stopped."""
    cfg = small_run(*SHORT)
    run = RunDirectory.create(tmp_path_factory.mktemp("runs") / signature(cfg), cfg)
    with run.log_file.open("ab") as log:  # as launchers start it; the others are forked
        code = subprocess.run(command(run), stdout=log, stderr=log, env=environment()).returncode
    assert code == 0, run.log_file.read_text()
    return run


def test_leaves_what_a_report_needs(whole):
    info = whole.info
    assert whole.status == DONE
    assert info["summary"].keys() == {"teacher_forced", "generated"}
    assert info["trainable_parameters"] == sum(
        row["parameters"] for row in info["manifest"] if row["trainable"]
    )
    assert info["attempts"][-1]["outcome"] == DONE
    assert info["convergence"] == of_rows(whole.rows(), info).to_json()
    assert info["convergence"]["steps"] == info["steps"]
    assert info["minutes"] > 0
    assert [f.name for f in whole.checkpoints.iterdir()] == [whole.best_file.name]
    assert len(info["checkpoint_fingerprint"]) == 16
    protocol = info["protocol"]
    assert (protocol["texts"], protocol["protocols"]) == ("all", ["teacher_forced", "generated"])
    assert protocol["sources"]["long"] == {
        "dataset": "scenesg",
        "split_by": "keyseg",
        "keyword": "category",
        "keyword_file": None,
    }
    samples = whole.samples()
    assert samples.groupby("protocol").size().nunique() == 1
    for protocol, rows in samples.groupby("protocol"):
        assert rows["iou"].mean() == pytest.approx(info["summary"][protocol]["giou"])
    names = set(whole.metrics()["name"])
    assert {"train/loss", "val/giou", "test/generated/giou"} <= names


def test_the_first_sentence_protocol_reads_one_expression_of_a_target(
    whole, small_run, tmp_path, monkeypatch
):
    from keyseg.worker.cell import run_cell

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    cfg = small_run("optim.steps=0", "evaluation.texts=first", "evaluation.protocols=[generated]")
    run = RunDirectory.create(tmp_path / "run", cfg)
    run_cell(run)
    assert run.info["protocol"]["texts"] == "first"
    read, every = (set(r.samples()["id"]) for r in (run, whole))
    assert read == {i for i in every if i.endswith("-0")}
    assert read < every


def test_killed_at_any_step_it_ends_with_the_same_numbers(whole, small_run, tmp_path):
    """Before the first checkpoint, after it, and after an evaluation; each time it goes on."""
    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT))
    for after in (2, 4, 6):
        process = Cell(run)
        wait_for(process, run, after)
        process.send_signal(signal.SIGKILL)
        assert process.wait(TIMEOUT) == -signal.SIGKILL
        assert run.status != DONE
    assert finish(run) == 0, run.log_file.read_text()
    *killed, last = run.info["attempts"]
    assert [a["outcome"] for a in killed] == ["killed"] * 3
    assert all(0 < a["seconds"] < last["started"] - a["started"] for a in killed)
    pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
    pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)


@pytest.mark.parametrize("what", ["data", "weights"])
def test_a_run_does_not_go_on_at_a_checkpoint_with_other_data_or_weights(
    small_run, tmp_path, monkeypatch, what
):
    from keyseg.worker.cell import run_cell

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT))
    run.last_file.write_bytes(b"of step 4")  # it is not even read
    run.update(**{f"{what}_fingerprint": "before"})
    with pytest.raises(
        ConfigError, match=rf"the {what} changed .*before then, \w+ now.*rerun=true"
    ):
        run_cell(run)
    assert run.status == FAILED
    assert run.info[f"{what}_fingerprint"] == "before"  # the next attempt is told the same
    assert run.last_file.exists()


def test_runs_of_one_worker_are_as_if_alone(whole, small_run, tmp_path):
    names = ("first", "broken", "again")
    runs = [RunDirectory.create(tmp_path / name, small_run(*SHORT)) for name in names]
    broken = small_run(*SHORT, "data.root=nowhere")
    broken.data.pop("prepare")
    runs[1].freeze(broken)
    assert Cell(*runs).wait(TIMEOUT) == 1
    assert [run.status for run in runs] == [DONE, FAILED, DONE]
    assert "nowhere" in runs[1].info["error"]
    assert "nowhere" in runs[1].log_file.read_text()
    for run in (runs[0], runs[2]):
        pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
        pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)
    assert len({run.info["attempts"][0]["pid"] for run in runs}) == 3


def test_what_is_loaded_for_several_runs_leaves_gpus_to_those_who_are_forked():
    """bitsandbytes, which the tests have, would ask for them when peft imports it."""
    code = (
        "import os, sys; from keyseg.worker import cell; cell.load([]); import torch\n"
        "if child := os.fork(): sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "os._exit(int(torch.cuda._is_in_bad_fork()))"
    )
    assert importlib.util.find_spec("bitsandbytes")
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_where_a_gpu_was_touched_before_the_fork_a_run_gets_a_new_process(monkeypatch):
    from keyseg.worker import cell

    started = []
    monkeypatch.setattr("torch.cuda._is_in_bad_fork", lambda: True)
    monkeypatch.setattr("os.execv", lambda program, words: started.append(words))
    monkeypatch.setattr(cell, "attempt", lambda path: 0)
    cell.attempt_forked("run")
    assert started == [[sys.executable, "-m", "keyseg.worker", "run"]]


def test_a_worker_of_several_told_to_stop_begins_no_other(small_run, tmp_path):
    runs = [RunDirectory.create(tmp_path / name, small_run(*SHORT)) for name in "ab"]
    process = Cell(*runs)
    wait_for(process, runs[0])
    process.send_signal(signal.SIGUSR2)
    assert process.wait(TIMEOUT) == EXIT_STOPPED
    assert [len(run.info["attempts"]) for run in runs] == [1, 0]
    assert runs[0].info["attempts"][0]["outcome"].startswith("stopped at step ")


def test_told_to_stop_it_leaves_a_checkpoint_and_ends_with_the_same_numbers(
    whole, small_run, tmp_path
):
    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT))
    process = Cell(run)
    wait_for(process, run)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(TIMEOUT) == EXIT_STOPPED
    assert run.status == QUEUED
    (attempt,) = run.info["attempts"]
    step = run.info["checkpoint_step"]
    assert attempt["outcome"] == f"stopped at step {step} of 8, checkpoint written"
    assert attempt["seconds"] > 0
    assert finish(run) == 0, run.log_file.read_text()
    pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
    pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)


def test_a_test_split_longer_than_a_job_is_read_on_not_anew(
    whole, small_run, tmp_path, monkeypatch
):
    """Stopped after every batch that it reads: as many attempts as batches, none read twice."""
    from keyseg.worker import cell
    from keyseg.worker import run as work_of

    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT, "evaluation.images_per_batch=2"))
    alone = RunDirectory.create(tmp_path / "one", run.config)
    assert finish(alone) == 0, alone.log_file.read_text()
    read: list[tuple[str, int]] = []
    batches = work_of.evaluate_batches

    def watched(parts, groups, cfg, protocol, *rest):
        for start, records in batches(parts, groups, cfg, protocol, *rest):
            read.append((protocol, start))
            cell._stop.set()
            yield start, records

    monkeypatch.setattr(work_of, "evaluate_batches", watched)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    ends = []
    while run.status != DONE:
        cell._stop.clear()
        ends.append(cell.attempt(str(run.path)))
        assert len(ends) < 20
    cell._stop.clear()
    assert ends[-1] == 0
    assert set(ends[:-1]) == {EXIT_STOPPED}
    assert len(read) == len(set(read)) == len(ends) - 1 > 2
    assert [a["reached"] for a in run.info["attempts"][:-1]] == [
        [8, n + 1] for n in range(len(read))
    ]
    pd.testing.assert_frame_equal(run.samples(), alone.samples(), check_exact=True)
    assert not list(run.checkpoints.glob("test.*"))


def test_kept_records_of_other_weights_or_torn_are_not_used(tmp_path):
    kept = KeptRecords(tmp_path, "weights-a")
    kept.add("generated", 0, [{"id": "x", "iou": 0.1 + 0.2}])
    kept.add("generated", 4, [])
    file = tmp_path / "test.0.jsonl"
    with file.open("a") as out:
        out.write('{"of": "weights-a", "proto')
    assert KeptRecords(tmp_path, "weights-b").read("generated") == {}
    assert kept.read("teacher_forced") == {}
    next_time = KeptRecords(tmp_path, "weights-a")
    assert next_time.read("generated") == {0: [{"id": "x", "iou": 0.1 + 0.2}], 4: []}
    next_time.add("generated", 8, [])
    assert sorted(next_time.read("generated")) == [0, 4, 8]
    KeptRecords(tmp_path, "weights-a", rank=1).add("generated", 12, [])
    assert sorted(next_time.read("generated")) == [0, 4, 8, 12]


def test_a_finished_run_is_left_alone(whole):
    before = whole.info
    assert finish(whole) == 0
    assert whole.info == before


def test_the_untrained_model_is_a_cell_like_any_other(small_run, tmp_path):
    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT, "optim.steps=0"))
    assert finish(run) == 0, run.log_file.read_text()
    assert run.status == DONE
    assert run.info["seconds_per_step"] is None
    assert set(run.metrics()["step"]) == {0}
    assert len(run.samples())


def test_fewer_training_images_are_another_cell_of_the_same_data(
    whole, small_run, tmp_path, monkeypatch
):
    from keyseg.worker.cell import run_cell

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    cfg = small_run(*SHORT, "data.train_images=2", "evaluation.protocols=[teacher_forced]")
    assert signature(cfg) != signature(small_run(*SHORT))
    run = RunDirectory.create(tmp_path / "run", cfg)
    run_cell(run)
    assert run.info["data_fingerprint"] == whole.info["data_fingerprint"]
    losses = [values(r).query("name == 'train/loss'")["value"].tolist() for r in (run, whole)]
    assert losses[0] != losses[1]
    too_many = RunDirectory.create(tmp_path / "many", small_run(*SHORT, "data.train_images=99"))
    with pytest.raises(DataError, match="train has 12 images"):
        run_cell(too_many)


def test_a_failure_is_recorded_with_its_reason(small_run, tmp_path):
    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT, "model.sam=/nowhere/sam"))
    assert finish(run) == 1
    assert run.status == FAILED
    assert "/nowhere/sam" in run.info["error"]
    assert run.info["attempts"][-1]["outcome"] == FAILED


def test_a_full_disk_is_told_and_with_room_the_run_goes_on(whole, small_run, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here: a full disk is not tested")
    try:
        run = RunDirectory.create(path, small_run(*SHORT))
        assert finish(run) == EXIT_NO_SPACE
        assert run.status == FAILED
        full = (
            f"No space left on device: {run.checkpoints / 'best.safetensors'} could not be written"
        )
        assert run.info["error"].startswith(full)
        assert full in run.log_file.read_text()
        assert list(run.checkpoints.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=64m", str(path)], check=True)
        assert finish(run) == 0, run.log_file.read_text()
        pd.testing.assert_frame_equal(values(run), values(whole), check_exact=True)
        pd.testing.assert_frame_equal(run.samples(), whole.samples(), check_exact=True)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_run_that_is_asked_to_end_does_so_at_its_next_evaluation(small_run, tmp_path):
    """As a tuner's trial: no test split, IoUs of val by example, pruned for good."""
    cfg = small_run(*SHORT, "evaluation.protocols=[]")
    run = RunDirectory.create(tmp_path / "run", cfg)
    run.update(keep_val_iou=True)
    process = Cell(run)
    deadline = time.monotonic() + TIMEOUT
    while not run.val_iou_file.exists() or len(run.val_iou_file.read_text().splitlines()) < 2:
        assert process.poll() is None, run.log_file.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    request_prune(run, 4, 0.0)
    assert process.wait(TIMEOUT) == 0, run.log_file.read_text()
    assert run.status == PRUNED
    assert run.info["attempts"][-1]["outcome"] == PRUNED
    rows = run.metrics()
    val = rows[rows["name"] == "val/giou"]
    assert val["step"].tolist() == [0, 4]
    assert sum(val_iou(run)[4].values()) / len(val_iou(run)[4]) == pytest.approx(
        val["value"].iloc[-1]
    )
    before = run.info
    assert finish(run) == 0
    assert run.info == before

    run.prune_file.unlink()
    run.update(status=QUEUED)
    assert finish(run) == 0
    assert run.status == DONE
    assert run.info["summary"] == {}
    assert not run.samples_file.exists()


def test_a_run_at_work_is_not_started_again(whole, monkeypatch):
    from keyseg.worker.cell import run_cell

    with whole.lock(), pytest.raises(RunBusy, match=str(Path(whole.path))):
        run_cell(RunDirectory(whole.path))


def test_several_processes_end_together_and_one_goes_on_alone(whole, small_run, tmp_path):
    """The first one writes. One that is lost ends the others; one that is told stops all."""
    exact = ("model.precision=fp32", "model.lora.dropout=0", "runtime.sharding=fsdp")
    run = RunDirectory.create(tmp_path / "run", small_run(*SHORT, *exact))

    processes = start_two(run, until=0)
    processes[1].send_signal(signal.SIGKILL)
    assert processes[1].wait(TIMEOUT) == -signal.SIGKILL
    assert processes[0].wait(TIMEOUT) == 1
    assert run.status == FAILED

    processes = start_two(run, until=2)
    processes[1].send_signal(signal.SIGUSR2)
    assert [p.wait(TIMEOUT) for p in processes] == [EXIT_STOPPED] * 2, run.log_file.read_text()
    assert run.status == QUEUED
    assert 2 <= run.info["checkpoint_step"] < 8

    assert finish(run) == 0, run.log_file.read_text()
    assert [a["processes"] for a in run.info["attempts"]] == [2, 2, 1]
    assert not values(run).duplicated(["name", "step"]).any()
    assert set(values(run)["name"]) == set(values(whole)["name"])
    assert run.samples()["id"].tolist() == whole.samples()["id"].tolist()


def start_two(run: RunDirectory, until: int) -> list[Cell]:
    """Two processes, as torchrun starts them, that have logged a step."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [Cell(run, **told, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    for process in processes:
        wait_for(process, run, until)
    return processes
