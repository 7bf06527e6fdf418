"""`keyseg diff`: what is not the same in two runs, and all their numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyseg import cli
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import RunDirectory


@pytest.fixture
def outputs(tmp_path: Path, compose_run) -> Path:
    folder = tmp_path / "outputs"
    cells = []
    for seed, (fusion, giou) in enumerate((("full", 0.5), ("cross", 0.25))):
        name = fusion * 3
        run = RunDirectory.create(folder / "t" / name, compose_run(f"fusion={fusion}", "seed=1"))
        cells.append({"signature": name, "label": fusion, "seed": 1})
        run.update(
            label=fusion,
            status="done",
            git={"commit": "0123456789abcdef", "dirty": False},
            versions={"python": "3.12", "torch": f"2.{seed}"},
            data_fingerprint="d0",
            summary={"teacher_forced": {"giou": giou, "ciou": 0.5}},
            attempts=[{"seconds": 1800.0}],
        )
        parts = {"keyseg/a.py: Same": "1", "keyseg/model/fusion.py: Cross": fusion}
        (run.path / "code.json").write_text(json.dumps(parts))
    sweep_directory.write(folder / "t", {"name": "t", "cells": cells})
    return folder


def diff(
    outputs: Path,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
    runs: tuple[str, str] = ("t/full", "t/cross"),
) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--outputs", str(outputs), "diff", *runs, *arguments])
    assert caught.value.code == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_two_runs_side_by_side(outputs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    told = diff(outputs, capsys)
    assert "t/full/1 t/cross/1" in told
    assert "fusion.name full cross" in told
    assert "keyseg/model/fusion.py: Cross full cross" in told
    assert "torch 2.0 2.1" in told
    assert "gIoU, teacher forced 50.00 % 25.00 % -25.00 points" in told
    same = ("cIoU", "python", "seed", "data fingerprint", "status")
    assert not any(line.startswith(same) for line in told)
    assert any(line.startswith("the same in both") for line in told)
    every = diff(outputs, capsys, "--all")
    assert "python 3.12 3.12" in every
    assert "data fingerprint d0 d0" in every
    assert "cIoU, teacher forced 50.00 % 50.00 % +0.00 points" in every


def test_a_long_value_has_a_line_of_its_own(outputs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    told = diff(outputs, capsys)
    at = told.index("fusion._target_")
    assert told[at + 1].startswith("- keyseg.model.fusion.Full")
    assert told[at + 2].startswith("+ keyseg.model.fusion.Cross")


def test_names_of_runs_are_never_cut(outputs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert diff(outputs, capsys)[:2] == ["config", "t/full/1 t/cross/1"]
    monkeypatch.setenv("COLUMNS", "50")
    told = diff(outputs, capsys)
    assert told[:5] == ["- t/full/1", "+ t/cross/1", "", "config", "- +"]
    assert "gIoU, teacher forced 50.00 % 25.00 % -25.00 points" in told


def test_a_run_compared_with_itself(outputs, capsys):
    for runs in (("t/full", "t/full"), ("t/full", "fullfullfull")):
        told = diff(outputs, capsys, runs=runs)
        assert told == ["t/full/1: one and the same run, nothing to compare"]
    (outputs / "u").mkdir()
    (outputs / "u" / "fullfullfull").symlink_to(outputs / "t" / "fullfullfull")
    cell = {"signature": "fullfullfull", "label": "full", "seed": 1}
    sweep_directory.write(outputs / "u", {"name": "u", "cells": [cell]})
    told = diff(outputs, capsys, runs=("t/full", "u/full"))
    assert told == ["t/full/1 and u/full/1: one and the same run, nothing to compare"]


def test_a_run_that_is_not_there(outputs, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--outputs", str(outputs), "diff", "t/full", "t/none"])
    assert caught.value.code == 2
    assert "there is no run 't/none'" in capsys.readouterr().err
