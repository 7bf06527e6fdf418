"""How cells end, with real worker processes that are quick."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keyseg.config import ConfigError
from keyseg.runs.environment import worker_environment
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.local.launcher import LocalLauncher
from keyseg.sweep.local.pool import LocalPool, gpus
from keyseg.sweep.pool import same_threads
from keyseg.sweep.supervise import Supervisor

WORKER = (sys.executable, str(Path(__file__).with_name("cell_stub.py")))


def starts(cell) -> int:
    return len((cell.path / "starts.txt").read_text().splitlines())


def test_done_cells_are_found_and_rerun_starts_them_anew(make_cell, pool, finish):
    cells = [make_cell("cross"), make_cell("self"), make_cell("full")]
    for rerun, outcome, count in ((False, "done", 1), (False, "found", 1), (True, "done", 2)):
        supervisor = Supervisor(pool)
        for cell in cells:
            supervisor.add(replace(cell, rerun=rerun))
        assert finish(supervisor) == dict.fromkeys(("cross0", "self0", "full0"), outcome)
        assert [starts(cell) for cell in cells] == [count] * 3
        assert cells[0].open().metrics()["step"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_new_results_replace_the_old_ones_only_when_there_are_any(
    make_cell, pool, finish, monkeypatch
):
    cell = make_cell("cross")
    supervisor = Supervisor(pool)
    supervisor.add(cell)
    finish(supervisor)
    before = cell.open().info

    for trouble, told in (("FAIL", "no luck today"), ("DIE", "SIGKILL"), ("MUTE", "exit code 3")):
        with monkeypatch.context() as patch:
            patch.setenv(trouble, "cross")
            again = Supervisor(pool)
            again.add(replace(cell, rerun=True))
            assert finish(again) == {"cross0": "failed"}
        assert told in again.outcomes[0].error
        assert "results from before are kept" in again.outcomes[0].error
        info = cell.open().info
        assert info["status"] == "done"
        assert info["summary"] == before["summary"]
        found = Supervisor(pool)
        found.add(cell)
        assert finish(found) == {"cross0": "found"}

    new = Supervisor(pool)
    new.add(replace(cell, rerun=True))
    assert finish(new) == {"cross0": "done"}
    assert "rerun_error" not in cell.open().info
    assert not cell.open().before.exists()


@pytest.mark.parametrize("cells_per_job", [1, 4])
def test_done_is_done_whatever_becomes_of_its_worker(make_cell, finish, monkeypatch, cells_per_job):
    monkeypatch.setenv("LATE", "self")
    pool = LocalPool(1, 1, worker=WORKER, grace=5, cells_per_job=cells_per_job)
    supervisor = Supervisor(pool)
    cells = [make_cell("self"), make_cell("cross")]
    for cell in cells:
        supervisor.add(cell)
    assert finish(supervisor) == {"self0": "done", "cross0": "done"}
    assert [starts(cell) for cell in cells] == [1, 1]


@pytest.mark.parametrize("cells_per_job", [1, 4])
def test_cells_that_fail_do_not_stop_the_others(make_cell, finish, monkeypatch, cells_per_job):
    pool = LocalPool(2, 1, worker=WORKER, grace=5, cells_per_job=cells_per_job)
    for trouble, fusion in (("FAIL", "self"), ("DIE", "full"), ("MUTE", "seg_only")):
        monkeypatch.setenv(trouble, fusion)
    cells = {f: make_cell(f) for f in ("self", "full", "seg_only", "cross")}
    supervisor = Supervisor(pool)
    for cell in cells.values():
        supervisor.add(cell)
    assert finish(supervisor) == {
        "self0": "failed",
        "full0": "failed",
        "seg_only0": "failed",
        "cross0": "done",
    }
    infos = {fusion: cell.open().info for fusion, cell in cells.items()}
    assert infos["self"]["error"] == "RuntimeError: no luck today"
    assert infos["full"]["error"] == "the worker was killed by SIGKILL (out of memory?)"
    assert infos["full"]["attempts"][-1]["outcome"] == infos["full"]["error"]
    assert infos["full"]["attempts"][-1]["ended"] is not None
    said = "the worker ended with exit code 3 before the run was done: last words"
    assert infos["seg_only"]["error"] == said
    assert cells["full"].open().log_file.read_text() == "working on full\n"

    for trouble in ("FAIL", "DIE", "MUTE"):
        monkeypatch.delenv(trouble)
    again = Supervisor(pool)  # what is not done is tried again
    for cell in cells.values():
        again.add(cell)
    assert sorted(finish(again).values()) == ["done", "done", "done", "found"]
    assert cells["full"].open().info["error"] is None


def test_cells_of_one_worker_outlive_it_and_wait_their_turn(make_cell, finish, monkeypatch):
    monkeypatch.setenv("TAKE_ALONG", "self")
    pool = LocalPool(1, 1, worker=WORKER, cells_per_job=3)
    cells = [make_cell(fusion) for fusion in ("cross", "self", "full")]
    supervisor = Supervisor(pool)
    for cell in cells:
        supervisor.add(cell)
    supervisor.step()
    supervisor.step()
    assert pool.free() == 0
    assert sorted(supervisor.states().values()) == ["queued", "queued", "running"]
    assert finish(supervisor) == {"cross0": "done", "self0": "failed", "full0": "done"}
    told = "the worker was killed by SIGKILL (out of memory?)"
    assert cells[1].open().info["error"] == told
    assert [starts(cell) for cell in cells] == [1, 1, 1]
    workers = [int((c.path / "starts.txt").read_text().split()[1]) for c in (cells[0], cells[1])]
    assert workers[0] == workers[1]  # both were started by one


def test_a_worker_of_several_leaves_alone_what_has_ended(make_cell):
    cells = [make_cell(fusion) for fusion in ("cross", "self", "full")]
    runs = [cell.create() for cell in cells]
    runs[0].update(status="failed", error="no luck")
    runs[1].update(status="done")
    code = subprocess.run([*WORKER, *(str(run.path) for run in runs)]).returncode
    assert code == 1
    assert [(run.path / "starts.txt").exists() for run in runs] == [False, False, True]
    assert [run.status for run in runs] == ["failed", "done", "done"]


def test_cells_are_spread_before_they_are_packed(make_cell, monkeypatch):
    monkeypatch.setenv("HANG", "self")
    pool = LocalPool(2, 1, worker=WORKER, grace=5, cells_per_job=4)
    supervisor = Supervisor(pool)
    for seed in range(6):
        supervisor.add(make_cell("self", seed=seed))
    supervisor.step()
    supervisor.step()
    assert [len(worker.paths) for worker in pool._at_work.values()] == [3, 3]
    supervisor.stop()
    assert pool.free() == 8


def test_cells_that_share_a_worker_share_its_threads():
    asked = [("a", 2), ("b", 2), ("c", 1), ("d", 2), ("e", 2), ("f", 2), ("g", 2)]
    names = ["".join(run for run, _ in together) for together in same_threads(asked, 3)]
    assert names == ["ab", "c", "def", "g"]


def test_never_more_at_work_than_slots(make_cell, pool, monkeypatch):
    monkeypatch.setenv("HANG", "self")
    supervisor = Supervisor(pool)
    for seed in range(3):
        supervisor.add(make_cell("self", seed=seed))
    supervisor.step()
    assert pool.free() == 0
    assert sorted(supervisor.states().values()) == ["queued", "running", "running"]
    supervisor.stop()
    assert not supervisor.active
    assert pool.free() == 2


def test_stopping_is_no_failure(make_cell, pool, finish, monkeypatch):
    monkeypatch.setenv("HANG", "self")
    cell = make_cell("self")
    supervisor = Supervisor(pool)
    supervisor.add(cell)
    while not cell.open().metrics_file.exists():
        supervisor.step()
        time.sleep(0.02)
    supervisor.stop()
    info = cell.open().info
    assert info["status"] == "queued"
    assert info["attempts"][-1]["outcome"] == "stopped"
    assert not cell.open().busy
    monkeypatch.delenv("HANG")
    again = Supervisor(pool)
    again.add(cell)
    assert finish(again) == {"self0": "done"}


HOLD = """
import sys, time
from keyseg.runs.run_directory import RunDirectory
run = RunDirectory(sys.argv[1])
with run.lock():
    print("held", flush=True)
    sys.stdin.readline()
    run.update(status=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("left_as", "outcome", "count"),
    [("done", "done", 0), ("failed", "failed", 0), ("queued", "done", 1)],
)
def test_a_cell_at_work_elsewhere_is_waited_for(make_cell, pool, finish, left_as, outcome, count):
    cell = make_cell("self")
    cell.create()
    command = [sys.executable, "-c", HOLD, str(cell.path), left_as]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        supervisor = Supervisor(pool)
        supervisor.add(cell)
        for _ in range(5):
            supervisor.step()
        assert supervisor.states() == {cell.path: "running"}
        other.communicate("\n")
    assert finish(supervisor) == {"self0": outcome}
    assert (starts(cell) if count else 0) == count


def test_a_worker_that_lost_the_race_for_a_cell_steps_back(make_cell, pool, finish):
    cell = make_cell("self")
    supervisor = Supervisor(pool)
    supervisor.add(cell)
    with RunDirectory(cell.path).lock():  # between the look and the start
        pool.start(cell.open())
        supervisor._queue.clear()
        supervisor._working[cell.path] = cell
        while pool.free() < pool.slots:
            supervisor.step()
            time.sleep(0.02)
        assert supervisor.active
        assert not supervisor.outcomes
    assert finish(supervisor) == {"self0": "done"}


def test_cells_may_come_while_others_are_at_work(make_cell, pool, finish):
    supervisor = Supervisor(pool)
    supervisor.add(make_cell("self"))
    supervisor.step()
    supervisor.add(make_cell("cross"))
    assert finish(supervisor) == {"self0": "done", "cross0": "done"}


def test_what_only_concerns_speed_may_change_on_the_way(make_cell, pool, finish, monkeypatch):
    monkeypatch.setenv("FAIL", "self")
    for overrides in ((), ("runtime.threads=3",)):
        cell = make_cell("self", *overrides)
        supervisor = Supervisor(pool)
        supervisor.add(cell)
        finish(supervisor)
    run = cell.open()
    assert run.config.runtime.threads == 3
    assert run.info["environment"]["OMP_NUM_THREADS"] == "3"


def test_the_worker_gets_its_share(make_cell, finish, monkeypatch):
    pool = LocalPool(
        1, 2, worker=(sys.executable, str(Path(__file__).with_name("cell_stub.py"))), gpus=["5"]
    )
    cell = make_cell("self")
    supervisor = Supervisor(pool)
    supervisor.add(cell)
    finish(supervisor)
    assert cell.open().info["environment"] == {
        "KEYSEG_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
        "CUDA_VISIBLE_DEVICES": "5",
    }


def test_gpus_are_read_from_the_environment():
    assert gpus("cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}) == []
    assert gpus("auto", {"CUDA_VISIBLE_DEVICES": "2,5"}) == ["2", "5"]
    assert gpus("auto", {"CUDA_VISIBLE_DEVICES": ""}) == []
    assert worker_environment(3, "5")["CUDA_VISIBLE_DEVICES"] == "5"


def test_one_cell_per_gpu_or_core(make_cell, monkeypatch):
    cells = [make_cell("self", seed=seed) for seed in range(5)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    pool = LocalLauncher().pool(cells)
    assert (pool.slots, pool.gpus) == (3, ["0", "1", "2"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("keyseg.sweep.local.launcher.cores", lambda: 8)
    assert (LocalLauncher().pool(cells).slots, LocalLauncher().pool(cells).threads) == (5, 1)
    assert (
        LocalLauncher(n_jobs=2).pool(cells).slots,
        LocalLauncher(n_jobs=2).pool(cells).threads,
    ) == (2, 4)
    assert LocalLauncher().pool(cells[:2]).threads == 4


@pytest.mark.parametrize(("cores", "slots"), [(4, 5), (3, 3), (2, 2)])
def test_a_few_cells_more_than_cores_share_them(make_cell, monkeypatch, cores, slots):
    """Rather than one after the other, with idle cores at the end; never on a GPU's memory."""
    cells = [make_cell("self", seed=seed) for seed in range(5)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("keyseg.sweep.local.launcher.cores", lambda: cores)
    pool = LocalLauncher().pool(cells)
    assert (pool.slots, pool.threads) == (slots, 1)
    assert LocalLauncher(n_jobs=cores).pool(cells).slots == cores
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(cores))))
    assert LocalLauncher().pool(cells).slots == cores


def test_a_worker_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"hydra.launcher.worker: there is no program no-such"):
        LocalPool(1, 1, worker=["no-such"])
