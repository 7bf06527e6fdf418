"""Where commands look for the report of a sweep: where the sweep itself wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyseg import cli
from keyseg.commands.sweeps import report_folder
from keyseg.config import resolve_path


def cell(sweep_dir: Path, name: str, text: str) -> Path:
    folder = sweep_dir / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    return folder


def test_it_is_the_sweeps_own_unless_the_command_line_says_another(tmp_path):
    cell(tmp_path / "fusion", "b", f"paths: {{reports: {tmp_path}/mine}}")
    assert report_folder(tmp_path / "fusion", None) == tmp_path / "mine"
    assert report_folder(tmp_path / "fusion", str(tmp_path / "other")) == tmp_path / "other"
    assert report_folder(tmp_path / "empty", None) == resolve_path("reports/out")


def test_a_cell_of_another_sweep_or_a_damaged_one_says_nothing_of_it(tmp_path):
    sweep_dir = tmp_path / "fusion"
    cell(sweep_dir, "c", f"paths: {{reports: {tmp_path}/mine}}")
    other = cell(tmp_path / "other", "a", "paths: {reports: elsewhere}")
    (sweep_dir / "a").symlink_to(other)
    cell(sweep_dir, "b", "paths: {reports: '${oc.env:HOME}'}")
    cell(sweep_dir, "bb", "paths: none")
    assert report_folder(sweep_dir, None) == tmp_path / "mine"


@pytest.mark.parametrize("given", [[], ["--out", "{}/mine"]])
def test_a_command_finds_it(tmp_path, capsys, given):
    run = cell(tmp_path / "outputs" / "fusion", "b", f"paths: {{reports: {tmp_path}/mine}}")
    (run / "run.json").write_text(json.dumps({"status": "done"}))
    design = {"name": "fusion", "cells": [{"signature": "b", "label": "full", "seed": 0}]}
    (run.parent / "sweep.json").write_text(json.dumps(design))
    page = tmp_path / "mine" / "fusion" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    out = [word.format(tmp_path) for word in given]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--outputs", str(tmp_path / "outputs"), "notify", "fusion", *out])
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
