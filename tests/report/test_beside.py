"""Numbers in print beside measured ones, and the list of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from keyseg.config import PROJECT
from keyseg.dialects.score import dialects
from keyseg.report.stats.scores import SCORE_COLUMNS
from keyseg.report.store import load
from keyseg.report.tables import headline, printed, runs
from keyseg.runs.run_directory import RunDirectory


@pytest.fixture
def in_print() -> pd.DataFrame:
    return printed.load(PROJECT / "reports" / "published", "keyseg")


def relabel(sweep: Path, data: str, **columns: str) -> None:
    for path in (p for p in sweep.iterdir() if p.is_dir()):
        run = RunDirectory(path)
        run.write_samples(run.samples().assign(**columns))
        run.update(protocol={**run.info["protocol"], "data": data})


@pytest.mark.parametrize("name", ["scenes", "our_own"])
def test_nothing_in_print_stands_beside_other_data(
    store: Callable[..., Path], in_print: pd.DataFrame, name: str
) -> None:
    """Also not where it lies in the form of a public data set, whose reader names it so."""
    folder = store(images=3)
    relabel(folder, name, slice_dataset="ReasonSeg", slice_split="test")
    sweep = load(folder)
    assert printed.table(sweep, in_print) is None
    table = headline.table(sweep, pd.DataFrame(columns=list(SCORE_COLUMNS)), in_print)
    assert (table.mark, table.header[-1], len(table.header)) == ("measured", "Training", 5)


def test_rows_of_another_split_say_so(store: Callable[..., Path], in_print: pd.DataFrame) -> None:
    folder = store(images=3)
    relabel(folder, "refcocog", slice_dataset="refcocog", slice_split="val")
    sweep = load(folder)
    rows = printed.beside(sweep, in_print)
    assert set(rows["data"]) == {"refCOCOg"}
    assert set(rows["variant"]) == {"cross", "full"}  # LISA's rows are those of no_key
    rest = "texts (not stated), prompt, dialect"  # the released code sums polygons
    assert set(printed.differs(sweep, rows)) == {f"data, protocol, backbone, {rest}"}
    table = headline.table(sweep, pd.DataFrame(columns=list(SCORE_COLUMNS)), in_print)
    assert table.header[-3:] == ("gIoU, in print†", "cIoU, in print†", "Training")
    assert [e.value for e in table.lines[2].entries[-3:-1]] == ["63.85†", "62.4†"]
    assert table.mark == "measured and in print"


def test_on_the_same_data_those_rows_stand_beside(
    store: Callable[..., Path], in_print: pd.DataFrame
) -> None:
    folder = store(images=3)
    relabel(folder, "reason_seg_key", slice_dataset="ReasonSeg", slice_split="test")
    sweep = load(folder)
    rows = printed.beside(sweep, in_print)
    assert set(rows["data"]) == {"ReasonSeg"}
    assert set(printed.differs(sweep, rows)) == {"protocol, backbone, texts, prompt"}
    stated = rows.assign(protocol="teacher-forced, all sentences", backbone="tiny")
    assert set(printed.differs(sweep, stated)) == {"texts, prompt"}
    for path in (p for p in folder.iterdir() if p.is_dir()):
        run = RunDirectory(path)
        run.update(protocol={**run.info["protocol"], "texts": "first", "prompt": "lisa_literal"})
    sweep, stated = load(folder), stated.assign(prompt="lisa_literal")
    assert set(printed.differs(sweep, stated)) == {""}
    for kind in printed.RULES:
        silent = stated.assign(**{kind: "not stated"})
        assert set(printed.differs(sweep, silent)) == {f"{kind} (not stated)"}
        other = stated.assign(**{kind: "not stated (released code: segzero)"})
        assert set(printed.differs(sweep, other)) == {kind}


def test_every_printed_row_says_how_it_was_measured_or_that_it_does_not(
    in_print: pd.DataFrame,
) -> None:
    every = printed.load(PROJECT / "reports" / "published")
    assert len(every) > len(in_print)
    assert (every[list(printed.RULES)] != "").all(axis=None)
    stated = every["dialect"].map(printed.known)
    assert {name.split(",")[0] for name in stated if name} <= set(dialects())


def test_variants_that_are_not_in_print(store: Callable[..., Path], in_print: pd.DataFrame) -> None:
    sweep = load(store(("add", "mlp"), images=3))
    assert printed.beside(sweep, in_print).empty
    table = headline.table(sweep, pd.DataFrame(columns=list(SCORE_COLUMNS)), in_print)
    assert (table.mark, len(table.header)) == ("measured", 5)


def test_the_list_of_runs(store: Callable[..., Path]) -> None:
    folder = store(images=3, status={("full", 0): "missing"})
    first, second = sorted(p for p in folder.iterdir() if p.is_dir())
    web = {"store": "https://mlflow.example.org/", "run_id": "abc"}
    (first / "mlflow.json").write_text(json.dumps(web))
    (second / "mlflow.json").write_text(json.dumps({"store": "sqlite:///m.db", "run_id": "def"}))
    run = RunDirectory(second)
    run.update(attempts=[{**run.info["attempts"][0], "slurm_job_id": "77_3"}], hardware={"x": 1})
    table = runs.table(load(folder)).set_index("variant")
    assert list(table["mlflow_run"]) == ["abc", "def", ""]
    assert list(table["mlflow_url"]) == ["https://mlflow.example.org/#/runs/abc", "", ""]
    assert table.loc["cross", ["slurm_job_id", "unit"]].to_list() == ["77_3", "CPU"]
    seconds = run.info["attempts"][0]["seconds"]
    assert table.loc["cross", "hours"] == pytest.approx(seconds / 3600)
    assert table.loc["full", "status"] == "missing"
    names = runs.protocols(load(folder))
    assert list(names.values()) == ["data scenes, splits test, backbone tiny"]
    assert set(names) == set(table["protocol"]) - {""}
