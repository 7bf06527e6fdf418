"""What is told at the end of a sweep, to whom, and how often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyseg import cli
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep import notify


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """One cell that is done and one that failed, half an hour each."""
    folder = tmp_path / "outputs" / "t"
    cells = [{"signature": name, "label": name, "seed": 0} for name in ("aa", "bb")]
    for cell, state in zip(cells, ("done", "failed"), strict=True):
        (folder / cell["signature"]).mkdir(parents=True)
        RunDirectory(folder / cell["signature"]).update(
            status=state,
            attempts=[{"seconds": 1800.0}],
            hardware={"cores": 2},
            error="Trace\nRuntimeError: no “luck”" if state == "failed" else None,
        )
    sweep_directory.write(folder, {"name": "t", "cells": cells})
    return folder


def test_one_line_says_it_all(sweep):
    told = notify.message(sweep, page=sweep / "index.html")
    assert (told["sweep"], told["state"], told["cells"], told["done"], told["failed"]) == (
        "t",
        "failed",
        2,
        1,
        1,
    )
    assert told["cpu_hours"] == 1
    assert told["report"] == str(sweep / "index.html")
    assert told["text"] == (
        "t: failed, 1 of 2 cells done, 1 failed, 1.00 CPU-hours: bb: RuntimeError: no “luck”"
    )
    RunDirectory(sweep / "bb").update(status="done", error=None)
    assert notify.message(sweep, page=None)["state"] == "done"
    assert notify.message(sweep, page=None, error="a\nGivenUp: b")["error"] == "GivenUp: b"


def test_a_sweep_that_has_not_ended_is_called_what_it_is(sweep):
    waiting = RunDirectory(sweep / "bb")
    waiting.update(status="running", error=None)
    told = notify.message(sweep, page=None)
    assert (told["state"], told["failed"], told["error"]) == ("stopped", 0, "")
    with waiting.lock():
        told = notify.message(sweep, page=None)
    assert told["state"] == "running"
    assert told["text"] == "t: running, 1 of 2 cells done, 1 running, 1.00 CPU-hours"
    waiting.update(status="queued", attempts=[])
    with sweep_directory.hold(sweep, ["aa", "bb"]):
        assert notify.message(sweep, page=None)["state"] == "queued"
    assert notify.message(sweep, page=None)["state"] == "stopped"


def test_the_command_gets_it_once_and_again_after_more_was_done(sweep, tmp_path):
    heard = tmp_path / "heard.jsonl"
    command = f"cat >> '{heard}'"
    for _ in range(2):
        assert notify.tell(command, sweep, page=None) is None
    assert [json.loads(line)["failed"] for line in heard.read_text().splitlines()] == [1]
    RunDirectory(sweep / "bb").update(status="done", attempts=[{"seconds": 1.0}] * 2, error=None)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--outputs", str(sweep.parent), "notify", "t", "--command", command])
    assert [json.loads(line)["failed"] for line in heard.read_text().splitlines()] == [1, 0]
    assert notify.tell(None, sweep, page=None) is None


def test_a_command_that_fails_or_hangs_is_told_and_tried_again(sweep, monkeypatch, capsys):
    told = notify.tell("echo no such host >&2; exit 3", sweep, page=None)
    assert told == "notify: the command ended with 3: no such host"
    monkeypatch.setattr(notify, "_PATIENCE", 0.2)
    assert notify.tell("sleep 60", sweep, page=None) == (
        "notify: the command did not end within 0 s"
    )
    assert notify.tell("exit 0", sweep, page=None) is None  # it does not read what it is told
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--outputs", str(sweep.parent), "notify", "t"])
    assert json.loads(capsys.readouterr().out)["sweep"] == "t"
