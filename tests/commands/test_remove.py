"""`keyseg rm`: what it would free, asked before; links, other sweeps and runs at work are safe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keyseg import cli
from keyseg.commands import remove
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.stale import StaleCheck


@pytest.fixture
def sweep(tmp_path: Path, compose_run, monkeypatch) -> Path:
    """Cells that are done, failed and queued."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    folder = tmp_path / "outputs" / "t"
    states = {"aa": "done", "bb": "failed", "cc": "queued"}
    cells = [{"signature": name, "label": name, "seed": 0} for name in states]
    for name, state in states.items():
        run = RunDirectory.create(folder / name, compose_run(), label=name)
        run.update(
            status=state, error="Traceback\nRuntimeError: no luck" if state != "done" else ""
        )
    (folder / "bb" / "checkpoints" / "last.pt").write_bytes(b"x" * 2_000_000)
    sweep_directory.write(folder, {"name": "t", "cells": cells})
    return folder


def rm(sweep: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--outputs", str(sweep.parent), "rm", sweep.name, *arguments])
    return int(caught.value.code or 0)


def names(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


def test_failed_runs_go_after_a_yes(sweep, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdin, "readline", lambda: "n\n", raising=False)
    assert rm(sweep, "--failed") == 1
    out = capsys.readouterr().out
    assert "bb     2.0 MB  bb  failed: RuntimeError: no luck" in out
    assert "1 run, 2.0 MB\ndelete it? [y/N] nothing was removed" in out
    monkeypatch.setattr(sys.stdin, "readline", lambda: "y\n")
    assert rm(sweep, "--failed") == 0
    assert names(sweep) == ["aa", "cc"]
    assert "1 run removed" in capsys.readouterr().out


def test_nobody_to_ask_and_nothing_said(sweep, capsys):
    assert rm(sweep) == 2
    assert "--failed, --stale, or both" in capsys.readouterr().err
    assert rm(sweep, "--failed") == 2
    assert "--yes removes them without" in capsys.readouterr().err
    assert names(sweep) == ["aa", "bb", "cc"]


def test_stale_runs(sweep, capsys, monkeypatch):
    found = {"aa": ["other data: 1 then, 2 now"]}
    monkeypatch.setattr(StaleCheck, "reasons", lambda _, run: found.get(run.path.name, []))
    assert rm(sweep, "--stale", "--yes") == 0
    assert names(sweep) == ["bb", "cc"]
    assert "other data: 1 then, 2 now" in capsys.readouterr().out
    assert rm(sweep, "--stale", "--yes") == 0
    assert capsys.readouterr().out == "t: nothing to remove\n"


def test_what_another_sweep_has_by_a_link_stays_and_a_link_frees_nothing(sweep, capsys):
    other = sweep.parent / "u"
    other.mkdir()
    (other / "bb").symlink_to("../t/bb", target_is_directory=True)
    cell = {"signature": "bb", "label": "bb", "seed": 0}
    sweep_directory.write(other, {"name": "u", "cells": [cell]})
    assert rm(sweep, "--failed", "--yes") == 0
    assert capsys.readouterr().out == "kept: bb: u has it by a link\nt: nothing to remove\n"
    assert rm(other, "--failed", "--yes") == 0
    assert "a link" in capsys.readouterr().out
    assert names(sweep) == ["aa", "bb", "cc"]
    assert not (other / "bb").is_symlink()


def test_runs_and_sweeps_at_work_are_left(sweep, capsys):
    with RunDirectory(sweep / "bb").lock():
        assert rm(sweep, "--failed", "--yes") == 0
    with sweep_directory.hold(sweep, ["aa"]):
        assert rm(sweep, "--failed", "--yes") == 2
    assert "a command is at work on the sweep 't'" in capsys.readouterr().err
    assert names(sweep) == ["aa", "bb", "cc"]


def test_a_run_that_was_worked_on_while_somebody_was_asked_is_left(sweep, capsys, monkeypatch):
    def agreed(count: int) -> bool:
        RunDirectory(sweep / "bb").update(status="done", attempts=[{"seconds": 1.0}])
        return True

    monkeypatch.setattr(remove, "_agreed", agreed)
    assert rm(sweep, "--failed") == 1
    assert capsys.readouterr().err == (
        "error: bb: somebody works on it, or has since; it was left\n"
    )
    assert names(sweep) == ["aa", "bb", "cc"]


def test_sizes_are_readable():
    assert [remove.readable(n) for n in (0, 999, 1500, 3.2e9, 2e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "3.2 GB",
        "2.0 TB",
    ]
