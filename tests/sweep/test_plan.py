"""What is still to run, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyseg import cli
from keyseg.commands import plan
from keyseg.config import ConfigError
from keyseg.sweep.design import read_design


def cell(label: str, seed: int) -> dict[str, Any]:
    signature = f"{label}{seed}"
    return {
        "signature": signature,
        "label": label,
        "seed": seed,
        "factors": {"fusion": label},
        "overrides": [f"fusion={label}", f"seed={seed}"],
    }


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "demo"
    cells = [cell(label, seed) for label in ("cross", "full") for seed in (0, 1)]
    folder.mkdir(parents=True)
    content = {"name": "demo", "cells": cells, "command": "python run.py -m fusion=cross,full"}
    (folder / "sweep.json").write_text(json.dumps(content))
    for name, info in {
        "cross0": {"status": "done", "minutes": 30, "hardware": {"gpus": ["H100"]}},
        "cross1": {"status": "failed", "error": "nan"},
        "full0": {"status": "done", "minutes": 90, "hardware": {"gpus": ["H100"]}},
    }.items():
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(json.dumps(info))
    return folder


def test_what_is_left_costs_what_its_variant_took(sweep: Path) -> None:
    found = plan.read(sweep)
    assert (found.cells, found.done, found.unit) == (4, 2, "GPU")
    assert [(t.label, t.seed, t.state, t.hours) for t in found.todo] == [
        ("cross", 1, "failed", 0.5),
        ("full", 1, "missing", 1.5),
    ]
    assert found.hours == pytest.approx(2.0)
    assert found.spent == pytest.approx(2.0)
    text = "\n".join(plan.lines(found, "python run.py -m x"))
    assert "2 to run (1 failed, 1 missing): about 2.00 GPU-hours" in text


def test_hours_count_every_gpu_of_every_attempt(sweep: Path) -> None:
    """Eight GPUs for a quarter of an hour are two GPU-hours; a failed cell has cost some too."""
    for name, attempts in {
        "full0": [{"seconds": 900, "gpus": 8, "processes": 8, "outcome": "done"}],
        "cross1": [{"seconds": 1800, "gpus": 2, "processes": 1, "outcome": "failed"}],
    }.items():
        file = sweep / name / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"attempts": attempts}))
    found = plan.read(sweep)
    assert [(t.label, t.hours) for t in found.todo] == [("cross", 0.5), ("full", 2.0)]
    assert plan.lines(found, "x")[0] == "2 of 4 cells done, 3.50 GPU-hours so far"


def test_the_command(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = str(sweep.parent)
    with pytest.raises(SystemExit) as end:
        cli.main(["--outputs", outputs, "plan", "demo"])
    assert end.value.code == 0
    assert "run them with  python run.py -m fusion=cross,full" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--outputs", outputs, "plan", "table4"])
    assert "0 of 9 cells done (3 fusion x 3 seed)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main(["--outputs", outputs, "plan", "dmo"])
    assert end.value.code == 2
    assert "Did you mean 'demo'?" in capsys.readouterr().err


def test_a_tuning_has_trials_and_no_cells(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--outputs", str(sweep.parent), "plan", "tune"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("0 of 24 trials done (loss.keyword.temperature, ")
    folder = sweep.parent / "t"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"name": "t", "cells": [], "tune": True}))
    states = ("complete", "complete", "pruned", "running", "waiting")
    told = [{"state": state, "from": None} for state in states]
    told.append({"state": "complete", "from": "outputs/other/abc"})
    content = {"n_trials": 8, "studies": [{"trials": told}]}
    for expected in ("0 trials done\n", "3 of 8 trials done (2 complete, 1 pruned)\n"):
        with pytest.raises(SystemExit):
            cli.main(["--outputs", str(sweep.parent), "plan", "t"])
        assert capsys.readouterr().out.startswith(expected)
        (folder / "trials.json").write_text(json.dumps(content))


def test_choices_with_commas_in_them_are_counted_as_hydra_counts(tmp_path: Path) -> None:
    params = "{fusion: 'a,b', model.lora.targets: '[q,v],[q]', seed: 0}"
    (tmp_path / "x.yaml").write_text(f"hydra: {{sweeper: {{params: {params}}}}}\n")
    found = plan.unstarted("x", tmp_path)
    assert found is not None
    assert found[0] == "0 of 4 cells done (2 fusion x 2 model.lora.targets)"


def test_nothing_done_has_no_cost(sweep: Path) -> None:
    for file in sweep.glob("*/run.json"):
        file.unlink()
    text = plan.lines(plan.read(sweep), "x")
    assert text[-2].endswith("cost unknown until one cell is done")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("full", r"contrasts\[0\]=full: give two variants"),
        ({"of": {"fusion": "full"}}, "give two variants"),
        ({"of": {"fusion": "fulll"}, "against": {"fusion": "cross"}}, "fusion=fulll is no value"),
        ({"of": "full", "against": {"fusion": "cross"}}, r"\.of=full: give factor and value"),
    ],
)
def test_contrasts_are_checked_before_anything_runs(entry: object, message: str) -> None:
    jobs = [["fusion=cross"], ["fusion=full"]]
    with pytest.raises(ConfigError, match=message):
        read_design(jobs, {"contrasts": [entry]})


def test_a_good_contrast_is_kept() -> None:
    entry = {"of": {"fusion": "full"}, "against": {"fusion": "cross"}, "name": "residual"}
    assert read_design([["fusion=cross"], ["fusion=full"]], {"contrasts": [entry]}).contrasts == [
        entry
    ]
