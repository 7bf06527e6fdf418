"""A cell that another sweep has is taken over by a link."""

import shutil
import threading
from dataclasses import replace

import pytest

from keyseg.runs import code
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep import reuse
from keyseg.sweep.supervise import Supervisor


@pytest.fixture
def in_sweep(make_cell, tmp_path):
    """The same cell as one of several sweeps."""

    def in_sweep(name):
        cell = make_cell("full")
        return replace(cell, path=tmp_path / "outputs" / name / cell.signature)

    return in_sweep


@pytest.fixture
def done(in_sweep, pool, finish):
    cell = in_sweep("table3")
    supervisor = Supervisor(pool)
    supervisor.add(cell)
    finish(supervisor)
    code.record(cell.open(), cell.config)
    return cell


def run(cell, pool, finish):
    supervisor = Supervisor(pool)
    supervisor.add(cell)
    return finish(supervisor)["full0"]


def starts(cell):
    return len((cell.path / "starts.txt").read_text().splitlines())


def test_a_finished_cell_of_another_sweep_is_taken_over(done, in_sweep, pool, finish):
    cell = in_sweep("table4")
    assert reuse.others([cell]) == ["taken over from table3 (links): full · seed 0"]
    assert not cell.path.exists()
    assert reuse.take_over([cell], wanted=True) == ["taken over from table3 (links): full · seed 0"]
    assert cell.path.is_symlink()
    assert cell.path.resolve() == done.path.resolve()
    assert cell.open().sweep_dir.resolve() == done.path.parent.resolve()  # MLflow shows it there
    assert cell.open().sweep_dir.name == done.open().sweep_dir.name == "table3"
    assert run(cell, pool, finish) == "found"
    assert starts(done) == 1
    assert reuse.take_over([cell], wanted=True) == []  # it is there now


def test_not_what_other_code_made_what_failed_what_is_a_trial_or_where_reuse_is_off(done, in_sweep):
    cell = in_sweep("table4")
    assert reuse.take_over([cell], wanted=False) == []
    info = done.open().info
    for change in (
        {"code": info["code"] | {"fingerprint": "other"}},
        {"code": None},
        {"status": "failed"},
        {"trial": 3},
    ):
        done.open().update(**{**info, "trial": None, **change})
        if change != {"trial": 3}:
            kept = {k: v for k, v in done.open().info.items() if k != "trial"}
            (done.path / "run.json").unlink()
            done.open().update(**kept)
        assert reuse.take_over([cell], wanted=True) == [], change
        assert not cell.path.exists()


def test_a_cell_that_runs_again_does_so_in_its_own_sweep(done, in_sweep, pool, finish):
    cell = in_sweep("table4")
    reuse.take_over([cell], wanted=True)
    assert run(replace(cell, rerun=True), pool, finish) == "done"
    assert not cell.path.is_symlink()
    assert (starts(done), starts(cell)) == (1, 1)


def test_a_cell_at_work_in_another_sweep_is_waited_for(in_sweep, pool, finish):
    first, second = in_sweep("table3"), in_sweep("table4")
    run_ = first.create()
    with run_.lock():
        run_.update(status="running", attempts=[{"started": 1.0}])
        assert reuse.take_over([second], wanted=True)
        supervisor = Supervisor(pool)
        supervisor.add(second)
        supervisor.step()
        assert supervisor.active
        assert not pool.waiting()
        run_.update(status="done")
    assert finish(supervisor) == {"full0": "done"}


def test_of_launchers_at_once_one_makes_the_cell_and_the_other_links_to_it(in_sweep):
    cells = [in_sweep(f"sweep{i}") for i in range(8)]
    together = threading.Barrier(len(cells))

    def launch(cell):
        together.wait()
        reuse.take_over([cell], wanted=True, create=True)

    threads = [threading.Thread(target=launch, args=(cell,)) for cell in cells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not cell.path.is_symlink() for cell in cells) == 1
    assert len({cell.path.resolve() for cell in cells}) == 1


def test_a_link_to_a_sweep_that_was_deleted_is_a_cell_to_run(done, in_sweep, pool, finish):
    cell = in_sweep("table4")
    reuse.take_over([cell], wanted=True)
    shutil.rmtree(done.path.parent)
    assert reuse.take_over([cell], wanted=True, create=True) == []
    assert run(cell, pool, finish) == "done"
    assert RunDirectory(cell.path).status == "done"
