"""Runs on other data in a report: by data set, paired, beside rows in print and imported ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from keyseg.metrics import summarise
from keyseg.report import build
from keyseg.report.data import ReportData
from keyseg.report.figures import drawing
from keyseg.report.sections.evaluations import by_data_set
from keyseg.report.stats import evaluations, scores
from keyseg.report.store import load
from keyseg.report.tables import printed
from keyseg.runs import evaluations as stored
from keyseg.runs.evaluations import Evaluation, TestSet
from keyseg.runs.run_directory import RunDirectory

TEST_A = TestSet("refcoco", "testA")
ENTRIES = [{"sources": ["refcoco"], "split": "testA"}]
PRINTED = {
    "table": "2",
    "data": "refCOCO",
    "split": "testA",
    "row": "KeySeg",
    "variant": "full",
    "metric": "ciou",
    "value_percent": 71.8,
    "source": "somewhere",
    "protocol": "teacher-forced",
    "backbone": "tiny",
    "texts": "all",
    "prompt": "short",
    "ignore": "none in the data",
    "dialect": "keyseg",
}


def on(cell, of_set=TEST_A, weights=None, **about):
    """Another reading of a cell: the first masks of its own test, as if of other data."""
    run = RunDirectory(cell.directory)
    weights = weights or str(run.info.get("checkpoint_fingerprint"))
    rows = run.samples()
    rows = rows[rows["protocol"] == "teacher_forced"].iloc[:-4]
    rows = rows.assign(slice_dataset=of_set.data, slice_split=of_set.split)
    told = {
        "protocol": {"data": of_set.data, "splits": ENTRIES, "texts": "all", "prompt": "short"},
        "summary": {},
        "trained_on": {"images": 0, "of": 8, "val": 0},
        **about,
    }
    told["protocol"] |= {"backbone": "tiny"}
    of = {"checkpoint": weights, "data": "d", "weights": "w", "code": "c", "asked": "a"}
    stored.write(run, Evaluation(of_set, "teacher_forced", of, told, rows))
    return rows


@pytest.fixture
def sweep_dir(store):
    return store(("seg_only", "full"), images=16, seeds=(0, 1))


def evaluated(sweep):
    mine = evaluations.own(sweep)
    own = evaluations.OnTestSet(
        evaluations.own_title(mine), mine, scores.scores(mine, 0), scores.contrasts(mine, 0)
    )
    return evaluations.evaluations(sweep, own, 0)


def page(sweep, rows=()):
    found = evaluated(sweep)
    data = ReportData(sweep, pd.DataFrame(), pd.DataFrame(), {}, found, pd.DataFrame(list(rows)))
    return list(by_data_set(data))


def test_without_other_data_there_is_no_section(sweep_dir):
    assert page(load(sweep_dir)) == []


def test_scores_and_contrasts_are_those_of_the_other_data(sweep_dir):
    sweep = load(sweep_dir)
    read = {(c.label, c.seed): on(c) for c in sweep.finished}
    table, contrasts, *notes = page(sweep)
    assert notes == []
    groups = list(dict.fromkeys(line.group for line in table.lines))
    assert groups[-1] == "refcoco testA, teacher-forced"
    assert "the runs' own test" in groups[0]
    [line] = [x for x in table.lines if x.group == groups[-1] and x.label == "full"]
    mean = np.mean([summarise(read["full", seed])["giou"] for seed in (0, 1)])
    assert line.entries[0].value == f"{100 * mean:.1f}"
    gap = mean - np.mean([summarise(read["seg_only", seed])["giou"] for seed in (0, 1)])
    [row] = [x for x in contrasts.lines if x.group == "refcoco testA"]
    assert row.entries[0].value.replace("−", "-") == f"{100 * gap:+.1f}"
    assert row.entries[0].interval


def test_a_run_that_was_not_read_and_old_weights_are_holes(sweep_dir):
    sweep = load(sweep_dir)
    first, second, *others = sweep.finished
    on(first)
    on(second, weights="of before")
    for cell in others:
        on(cell)
    table, *_ = page(load(sweep_dir))
    lines = [x for x in table.lines if x.group.startswith("refcoco")]
    assert lines[0].hole == "1 of 2 seeds, not evaluated"
    assert lines[1].hole == ""


def test_rows_in_print_stand_with_their_split_alone(sweep_dir):
    sweep = load(sweep_dir)
    for cell in sweep.finished:
        on(cell)
    other = {**PRINTED, "split": "testB", "row": "of another split"}
    nameless = {**PRINTED, "row": "VLT", "variant": "", "texts": "first", "value_percent": 61.0}
    table, *_ = page(sweep, [PRINTED, other, nameless])
    lines = {x.label: x for x in table.lines if "in print" in x.label}
    assert list(lines) == ["KeySeg (in print)", "VLT (in print)"]
    assert [e.value for e in lines["KeySeg (in print)"].entries[:2]] == ["–", "71.8"]
    assert lines["KeySeg (in print)"].entries[-1].value == "in print: somewhere"
    assert lines["VLT (in print)"].entries[-1].value == "in print: somewhere; differs in: texts"
    assert all(x.group.startswith("refcoco testA") for x in lines.values())


def test_of_a_folder_of_ones_own_nothing_in_print_is_shown(sweep_dir):
    sweep = load(sweep_dir)
    rows = pd.DataFrame([PRINTED])
    assert printed.on_same_data(sweep, rows).empty


def test_an_imported_system_stands_with_its_own_test_set(sweep_dir):
    """And not with the runs' own test, of which it says nothing."""
    sweep = load(sweep_dir)
    for cell in sweep.finished:
        on(cell)
    cell = sweep.finished[0]
    told = {"imported": {"system": "Other"}, "protocol": {"data": "refcoco", "splits": ENTRIES}}
    foreign = replace(
        cell,
        label="Other (imported)",
        signature="f" * 12,
        seed=0,
        factors={"fusion": ""},
        info=told,
        samples=cell.samples[cell.samples["protocol"] == "teacher_forced"].iloc[:-4],
    )
    variant = replace(sweep.variants[0], label=foreign.label, cells=(foreign,), index=2)
    whole = replace(sweep, variants=(*sweep.variants, variant))
    assert [v.label for v in evaluations.own(whole).variants] == ["seg_only", "full"]
    mine, other = evaluated(whole)
    assert [v.label for v in mine.sweep.variants] == ["seg_only", "full"]
    assert [v.label for v in other.sweep.variants] == ["seg_only", "full", "Other (imported)"]
    table, contrasts, *_ = page(whole)
    [line] = [x for x in table.lines if x.label == "Other (imported)"]
    assert (line.group.partition(",")[0], line.entries[-1].value) == ("refcoco testA", "imported")
    assert any("Other" in x.label for x in contrasts.lines if x.group == "refcoco testA")


def test_what_was_trained_on_and_what_is_lacking_is_said(sweep_dir):
    sweep = load(sweep_dir)
    seen = {"images": 2, "of": 8, "val": 3}
    for cell in sweep.finished:
        on(cell, trained_on=seen if cell.seed else None)
    design = {**sweep.design, "tests": ["refcoco:testA", "refcoco:testB"]}
    *_, lacking, unknown, trained, chosen = page(replace(sweep, design=design))
    assert "not read yet: refcoco:testB (seg_only, seed 0; " in lacking
    assert "keyseg evaluate fusion" in lacking
    assert "is not known" in unknown
    assert "2 of its 8 images (25.0 %)" in trained
    assert "3 of its examples" in chosen
    everything = replace(sweep, design={**sweep.design, "tests": ["refcoco:testA"]})
    assert not any("not read yet" in str(block) for block in page(everything))


def test_the_report_and_its_tables_have_them(sweep_dir, tmp_path, monkeypatch):
    sweep = load(sweep_dir)
    for cell in sweep.finished:
        on(cell)
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    files = build(sweep_dir, tmp_path / "report", formats=("md", "csv"))
    text = files.markdown.read_text()
    assert "Contrasts by data set" in text
    by_name = {f.name: f for f in files.tables}
    found = pd.read_csv(by_name["evaluations.csv"])
    assert set(found["test_set"]) == {"refcoco testA", evaluations.own_title(sweep)}
    assert "evaluation_contrasts.csv" in by_name
    assert set(pd.read_csv(by_name["results.csv"])["variant"]) == {
        "seg_only",
        "full",
    }  # the own test, as before
