import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from keyseg import cli
from keyseg.config import PROJECT
from keyseg.report.figures import drawing
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import Row, RunDirectory, now
from keyseg.sweep.slurm.queue import SlurmError
from tests.somebody_else import as_nobody


@pytest.fixture
def outputs(tmp_path, compose_run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    folder = tmp_path / "outputs"
    run = RunDirectory.create(
        folder / "fusion" / "abc", compose_run("optim.steps=4"), label="cross"
    )
    run.log([Row("train/loss", 0.5, 4, now())])
    run.update(status="done", attempts=[{"started": 1.0, "ended": 91.0, "seconds": 90.0}])
    cells = [
        {"signature": "abc", "label": "cross", "seed": 0},
        {"signature": "def", "label": "full", "seed": 0},
    ]
    sweep_directory.write(folder / "fusion", {"name": "fusion", "cells": cells})
    single = RunDirectory.create(folder / "single" / "xyz", compose_run(), label="self")
    single.update(status="failed", error="RuntimeError: no luck")
    (folder / "not a sweep").mkdir()
    return folder


def keyseg(outputs, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--outputs", str(outputs), *arguments])
    return caught.value.code


def test_status_of_a_sweep_with_a_hole(outputs, capsys):
    assert keyseg(outputs, "status", "fusion") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cross", "done", "4/4", "0.500", "1.5", "min"] in lines
    assert ["full", "stopped"] in lines  # no command is at work on it


def test_status_of_all_sweeps(outputs, capsys):
    assert keyseg(outputs, "status") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["sweep", "state", "cells"]
    assert ["fusion", "stopped", "2", "1", "-", "-", "0.03"] in [line[:7] for line in lines]
    assert ["single", "failed", "1", "-", "1", "-", "0.00"] in [line[:7] for line in lines]
    assert keyseg(outputs, "status", "--failed", "--watch") == 0
    out = capsys.readouterr().out
    assert "self: failed: RuntimeError: no luck" in out
    assert "cross" not in out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("keyseg sta", ["status"]),
        ("keyseg status f", ["fusion"]),
        ("keyseg rm fusion --", ["--failed", "--help", "--stale", "--yes"]),
        ("keyseg diff single/", ["single/self/0"]),
    ],
)
def test_tab_completion(outputs, tmp_path, typed, offered):
    """As bash asks: the line in its environment, the answers on descriptor 8."""
    line = typed.replace("keyseg", f"keyseg --outputs {outputs}", 1)
    answers = tmp_path / "answers"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answers), "_ARGCOMPLETE_IFS": "\n"}
    command = [sys.executable, "-m", "keyseg"]
    subprocess.run(command, cwd=PROJECT, env={**os.environ, **asked}, check=True)
    assert sorted(word.strip() for word in answers.read_text().split("\n")) == offered


def test_status_watched_ends_when_nothing_is_at_work(outputs, capsys):
    assert keyseg(outputs, "status", "single", "--watch") == 0
    assert "self" in capsys.readouterr().out


def test_nothing_there_yet(tmp_path, capsys):
    assert keyseg(tmp_path / "none", "status") == 0
    assert "no sweep" in capsys.readouterr().err
    assert keyseg(tmp_path / "none", "status", "x") == 2
    assert "There is no sweep yet." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "report", "sync"])
def test_a_misspelt_sweep(outputs, capsys, command):
    assert keyseg(outputs, command, "fusoin") == 2
    err = capsys.readouterr().err
    assert "no sweep 'fusoin'" in err
    assert "Did you mean 'fusion'? Sweeps: fusion, single" in err
    assert err.count("\n") == 1


def test_report(outputs, tmp_path, capsys, monkeypatch):
    class Files:
        html = tmp_path / "out" / "fusion" / "index.html"

    built = []

    def build(sweep_dir, out_dir):
        built.append((sweep_dir, out_dir))
        return Files

    monkeypatch.setattr("keyseg.commands.report.build", build)
    assert keyseg(outputs, "report", "fusion", "--out", str(tmp_path / "out")) == 0
    assert built == [(outputs / "fusion", tmp_path / "out" / "fusion")]
    assert capsys.readouterr().out.strip() == str(Files.html)
    assert keyseg(outputs, "report", "single") == 2
    assert "'single' holds single runs" in capsys.readouterr().err


def test_a_report_goes_to_the_parent_run_or_says_why_not(outputs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(
        "keyseg.commands.report.build",
        lambda *_, **__: SimpleNamespace(html=out / "fusion" / "index.html"),
    )
    sent = []
    monkeypatch.setattr("keyseg.tracking.parent_run.log_report", lambda *args: sent.append(args))
    assert keyseg(outputs, "report", "fusion", "--out", str(out)) == 0
    assert sent == [(outputs / "fusion", out / "fusion")]
    for other in (("--format", "md"), ("--metric", "giou"), ("--baseline", "fusion=full")):
        assert keyseg(outputs, "report", "fusion", "--out", str(out), *other) == 0
    assert len(sent) == 1  # what the design does not say is the reader's own
    assert capsys.readouterr().err == 4 * "reading fusion\n"

    def refuse(*_):
        raise ConnectionError("refused\nand more")

    monkeypatch.setattr("keyseg.tracking.parent_run.log_report", refuse)
    assert keyseg(outputs, "report", "fusion", "--out", str(out)) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out / "fusion" / "index.html")
    assert said.err == (
        "reading fusion\n"
        "warning: MLflow at none did not take the report (refused); `keyseg sync fusion` sends it "
        "later\n"
    )


def test_a_report_that_fails(outputs, capsys, monkeypatch):
    def build(sweep_dir, out_dir):
        raise ValueError("no cell is done")

    monkeypatch.setattr("keyseg.commands.report.build", build)
    assert keyseg(outputs, "report", "fusion") == 1
    assert "the report could not be made: no cell is done" in capsys.readouterr().err


def test_sync_calls_the_store_for_every_run_and_says_what_failed(outputs, capsys, monkeypatch):
    synced = []
    monkeypatch.setattr("keyseg.tracking.sync.sync", lambda run: synced.append(run.path.name))
    assert keyseg(outputs, "sync") == 0
    assert synced == ["abc", "xyz"]
    assert "fusion: 1 run level with none" in capsys.readouterr().out

    def refuse(run):
        raise ConnectionError("refused")

    monkeypatch.setattr("keyseg.tracking.sync.sync", refuse)
    assert keyseg(outputs, "sync", "fusion") == 1
    assert capsys.readouterr().err == "error: fusion: none: refused\n"


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "keyseg", "--outputs", str(tmp_path), "status", "x"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no sweep 'x'")


def test_cancel_without_jobs_says_so(outputs, capsys):
    assert keyseg(outputs, "cancel", "fusion") == 1
    assert capsys.readouterr().err == "fusion: no job is queued or at work\n"


def test_failed_logs_are_shown_below_the_table(outputs, capsys):
    (outputs / "single" / "xyz" / "log.txt").write_text("one line\nRuntimeError: no luck\n")
    assert keyseg(outputs, "status", "single", "--failed") == 0
    out = capsys.readouterr().out
    assert "self: failed: RuntimeError: no luck\n    one line\n    RuntimeError: no luck\n" in out
    assert f"log: {outputs / 'single' / 'xyz' / 'log.txt'}" in out


def test_whose_sweep_it_is_that_one_may_not_cancel(outputs, capsys, monkeypatch):
    def denied(sweep_dir):
        raise SlurmError("scancel: error: Kill job error on job id 7: Access/permission denied")

    monkeypatch.setattr("keyseg.sweep.slurm.reconcile.cancel", denied)
    assert keyseg(outputs, "cancel", "fusion") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: fusion is {(outputs / 'fusion').owner()}'s: only they, or an op")
    assert err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="root can give files away")
def test_whose_sweep_it_is_where_that_user_has_no_name(outputs):
    os.chown(outputs / "fusion", 4711, -1)
    assert sweep_directory.owner(outputs / "fusion") == "user 4711"


@pytest.mark.skipif(os.geteuid() != 0, reason="root can be another user for a moment")
def test_a_colleague_who_may_only_read_sees_all(outputs, capsys):
    """Cells that are not done have a lock; whoever looks must not need to write to it."""
    assert keyseg(outputs, "status", "single") == 0  # what it imports is loaded from now on
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "outputs"
        shutil.copytree(outputs, shared)
        idle, working = (RunDirectory(shared / "fusion" / name) for name in ("abc", "def"))
        shutil.copytree(idle.path, working.path)
        for run in (idle, working):
            run.update(status="running")
        with idle.lock():
            pass
        with working.lock():
            for path in (Path(folder), *shared.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            code, told = as_nobody(lambda: keyseg(shared, "status", "fusion"))
            assert code == 0, told
            lines = [line.split() for line in told.splitlines()]
            assert [line[1] for line in lines if line[:1] in (["cross"], ["full"])] == [
                "stopped",
                "running",
            ]
            code, told = as_nobody(lambda: locked(shared / "fusion"))
            assert code == 0, told


@pytest.mark.skipif(os.geteuid() != 0, reason="root can be another user for a moment")
def test_an_archive_that_nobody_may_write_to_has_its_report_elsewhere(outputs, monkeypatch):
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    content = sweep_directory.read(outputs / "fusion")
    sweep_directory.write(outputs / "fusion", {**content, "command": "python run.py -m ..."})
    with tempfile.TemporaryDirectory() as folder:
        archive, own = Path(folder) / "outputs", Path(folder) / "own"
        shutil.copytree(outputs, archive)
        # what the report imports is loaded from now on
        assert keyseg(outputs, "report", "fusion", "--out", str(outputs / "reports")) == 0
        own.mkdir()
        for path in archive.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        archive.chmod(0o555)
        own.chmod(0o777)
        Path(folder).chmod(0o755)
        code, told = as_nobody(lambda: keyseg(archive, "report", "fusion", "--out", str(own)))
        assert code == 0, told
        assert (own / "fusion" / "index.html").exists()


def locked(sweep_dir: Path) -> int:
    with sweep_directory.lock_if_ours(sweep_dir, "report", timeout=1):
        return 0
