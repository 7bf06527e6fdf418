"""A file that cannot be read concerns its own run: it is named, with the remedy; others go on."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace

import pytest

from keyseg import cli
from keyseg.config import ConfigError
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import DamagedError, RunDirectory
from keyseg.sweep.status import Watch, watches
from keyseg.sweep.supervise import Supervisor

DAMAGE = {"torn": b'{"status": "do', "empty": b"", "binary": bytes(range(256)), "other": b"[1]"}


@pytest.fixture
def cells(make_cell, pool, finish):
    """Two that are done."""
    made = [make_cell("cross"), make_cell("self")]
    supervisor = Supervisor(pool)
    for cell in made:
        supervisor.add(cell)
    finish(supervisor)
    return made


def again(pool, finish, *cells):
    supervisor = Supervisor(pool)
    for cell in cells:
        supervisor.add(cell)
    return finish(supervisor)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_json(cells, pool, finish, kind):
    cross, self_ = cells
    file = cross.path / "run.json"
    file.write_bytes(DAMAGE[kind])
    assert again(pool, finish, cross, self_) == {"cross0": "failed", "self0": "found"}
    info = cross.open().info
    assert str(file) in info["error"]
    assert "rerun=true" in info["error"]
    assert file.read_bytes() == DAMAGE[kind]  # it is left for whoever can mend it
    with pytest.raises(DamagedError, match=str(file)):
        cross.open().update(status="done")
    row = Watch(cross.open(), "cross").read()
    assert (row.state, row.error) == ("failed", info["error"])
    assert again(pool, finish, replace(cross, rerun=True), self_) == {
        "cross0": "done",
        "self0": "found",
    }
    assert cross.open().info["label"] == "cross"


def test_a_damaged_metrics_file_in_status(cells):
    cross, self_ = cells
    lines = cross.open().metrics_file.read_bytes().splitlines(keepends=True)
    cross.open().metrics_file.write_bytes(b"".join([lines[0], b"{rubbish}\n", *lines[1:]]))
    (row, other) = (Watch(c.open(), c.label).read() for c in (cross, self_))
    assert row.state == "done"
    assert f"{cross.open().metrics_file}, line 2 cannot be read" in row.error
    assert "rerun=true" in row.error
    assert other.error is None
    assert other.step == 4


@pytest.mark.parametrize("name", ["job.json", "mlflow.json", "code.json"])
def test_records_that_can_be_made_again_are_as_none(cells, pool, finish, name):
    from keyseg.runs import code
    from keyseg.sweep.slurm.pool import Submission
    from keyseg.tracking import sync

    cross, self_ = cells
    (cross.path / name).write_bytes(b"{torn")
    assert again(pool, finish, cross, self_) == {"cross0": "found", "self0": "found"}
    assert Submission.read(cross.open()) is None
    assert not sync.is_level(cross.open()) or sync.store_uri() == sync.OFF
    assert code.parts_of(cross.path) == {}


def test_a_damaged_sweep_json_is_named_and_other_sweeps_are_shown(cells, capsys):
    outputs = cells[0].path.parent.parent
    other = outputs / "other"
    shutil.copytree(outputs / "t", other)
    (outputs / "t" / "sweep.json").write_text("{torn")
    with pytest.raises(ConfigError, match=r"sweep\.json cannot be read .*given again"):
        sweep_directory.read(outputs / "t")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--outputs", str(outputs), "status"])
    said = capsys.readouterr()
    assert "\nother " in said.out
    assert str(outputs / "t" / "sweep.json") in said.err


def test_the_command_of_a_sweep_writes_a_damaged_sweep_json_anew(cells):
    from keyseg.sweep.design import read_design
    from keyseg.sweep.launcher import write_sweep

    folder = cells[0].path.parent
    (folder / "sweep.json").write_text("{torn")
    plan = read_design([["fusion=cross"], ["fusion=self"]], {}, name="t", fusion="full")
    assert write_sweep(folder, plan, cells) == []
    assert len(watches(folder)) == 2


def test_cells_of_another_command_of_the_same_name_stay_in_view(cells, make_cell):
    from keyseg.runs.finding import find_run
    from keyseg.sweep.design import read_design
    from keyseg.sweep.launcher import write_sweep

    folder = cells[0].path.parent
    plan = read_design([["fusion=cross"], ["fusion=self"]], {}, name="t", fusion="full")
    assert write_sweep(folder, plan, cells) == []
    assert write_sweep(folder, plan, cells) == []  # the same command again
    full = make_cell("full")
    full.create()
    (line,) = write_sweep(
        folder, read_design([["fusion=full"]], {}, name="t", fusion="full"), [full]
    )
    assert "t also holds 2 cells of other commands" in line
    assert "name=OTHER" in line
    assert [w.title for w in watches(folder)] == ["full", "cross", "self"]
    assert find_run(folder.parent, "t/cross").path == cells[0].path
    assert "earlier" in json.loads((folder / "sweep.json").read_text())
    write_sweep(folder, plan, cells)  # and back again
    assert [w.title for w in watches(folder)] == ["cross", "self", "full"]


def test_two_commands_with_other_cells_are_not_at_work_on_one_sweep(tmp_path):
    sweep = tmp_path / "outputs" / "fusion"
    with sweep_directory.hold(sweep, ["a", "b"]):
        with sweep_directory.hold(sweep, ["b", "a"]):  # the same command, given twice
            pass
        with (
            pytest.raises(ConfigError, match=r"at work on the sweep 'fusion'.*name=OTHER"),
            sweep_directory.hold(sweep, ["a", "c"]),
        ):
            pass
        with sweep_directory.hold(tmp_path / "outputs" / "other", ["a", "c"]):
            pass
    with ExitStack() as second:
        with sweep_directory.hold(sweep, ["a", "b"]):
            second.enter_context(sweep_directory.hold(sweep, ["a", "b"]))
        with pytest.raises(ConfigError, match="at work"), sweep_directory.hold(sweep, ["c"]):
            pass  # the second of the same is still there
    with sweep_directory.hold(sweep, ["a", "c"]):
        pass


def test_a_damaged_config_is_named(cells):
    run = cells[0].open()
    for content in ("{", "- a list", "\x00"):
        run.config_file.write_text(content)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            _ = RunDirectory(run.path).config
        assert Watch(run, "cross").read().state == "done"
