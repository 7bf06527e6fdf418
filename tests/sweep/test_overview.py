"""All sweeps at a glance: what each is as a whole, its counts, its hours and its last change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep import overview
from keyseg.sweep.overview import SweepSummary
from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.pool import Submission
from keyseg.sweep.slurm.queue import Job, Jobs
from keyseg.sweep.slurm.reconcile import Overview
from keyseg.sweep.status import watches

ENDED = {"started": 0.0, "ended": 1800.0, "seconds": 1800.0}


def sweep(folder: Path, **states: str) -> Path:
    """A sweep of cells in these states, each of half an hour where it was begun."""
    folder.mkdir(parents=True)
    cells = [{"signature": name, "label": name, "seed": 0} for name in states]
    sweep_directory.write(folder, {"name": folder.name, "cells": cells})
    for name, state in states.items():
        (folder / name).mkdir()
        attempts = [] if state == "queued" else [ENDED]
        hardware = {"cores": 2}
        RunDirectory(folder / name).update(status=state, attempts=attempts, hardware=hardware)
    return folder


def only(folder: Path) -> SweepSummary:
    rows, damaged, trouble = overview.summaries([folder])
    assert (damaged, trouble) == ([], None)
    return rows[0]


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ({"a": "done", "b": "pruned"}, "done"),
        ({"a": "done", "b": "failed"}, "failed"),
        ({"a": "done", "b": "failed", "c": "queued"}, "stopped"),
        ({"a": "queued", "b": "queued"}, "stopped"),  # no command is at work
        ({"a": "done", "b": "running"}, "stopped"),  # nobody holds it
    ],
)
def test_what_a_sweep_is_as_a_whole(tmp_path, states, whole):
    assert only(sweep(tmp_path / "t", **states)).state == whole


def test_cells_wait_as_long_as_a_command_is_at_work(tmp_path):
    folder = sweep(tmp_path / "t", a="done", b="queued", c="queued")
    with sweep_directory.hold(folder, ["a", "b", "c"]):
        assert only(folder).state == "queued"
        assert [row.state for row in Overview(watches(folder)).read()] == [
            "done",
            "queued",
            "queued",
        ]
    assert only(folder).state == "stopped"
    assert [row.state for row in Overview(watches(folder)).read()] == [
        "done",
        "stopped",
        "stopped",
    ]


def test_counts_hours_and_the_last_change(tmp_path):
    folder = sweep(tmp_path / "t", a="done", b="failed", c="queued", d="running")
    for file in folder.rglob("run.json"):
        os.utime(file, (1e9, 1e9))
    with RunDirectory(folder / "d").lock():
        row = only(folder)
    assert (row.state, row.cells, row.failed, row.hours, row.unit) == ("running", 4, 1, 1.5, "CPU")
    assert row.changed == 1e9
    header, line = overview.table([row])
    assert header.split()[1:7] == ["state", "cells", "done", "failed", "running", "CPU-hours"]
    assert line.split()[:7] == ["t", "running", "4", "1", "1", "1", "1.50"]


def test_jobs_are_asked_for_once_and_tell_who_waits_and_who_is_lost(tmp_path, monkeypatch):
    asked = []
    folders = [sweep(tmp_path / name, a="done", b="queued", c="queued") for name in ("t", "u")]
    told = {0: Job("7_0", "PENDING"), 1: Job("7_1", "NODE_FAIL")}
    jobs = Jobs({(name, n): job for name in ("t-1", "u-1") for n, job in told.items()})
    monkeypatch.setattr(queue, "look", lambda names: asked.append(set(names)) or jobs)
    for folder in folders:
        for place, cell in enumerate(("b", "c")):
            Submission(f"{folder.name}-1", place, 0.0).write(RunDirectory(folder / cell))
    rows, _, _ = overview.summaries(folders)
    assert asked == [{"t-1", "u-1"}]
    assert [(row.state, row.states["queued"], row.failed) for row in rows] == [("queued", 1, 1)] * 2


def test_a_thousand_cells_are_looked_at_in_a_moment(tmp_path):
    layer = {"module": "x" * 60, "parameters": 10**6, "trainable": True, "dtype": "float32"}
    folder = sweep(tmp_path / "t", **{f"c{n}": "done" for n in range(1000)})
    for n in range(0, 1000, 10):
        RunDirectory(folder / f"c{n}").update(manifest=[layer] * 40)
    began = time.process_time()
    assert only(folder).states == {"done": 1000}
    assert time.process_time() - began < 1.0
