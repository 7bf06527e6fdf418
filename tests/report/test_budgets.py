"""Score against budget: which variants have a curve, and where two cross."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from keyseg.report.figures import budget
from keyseg.report.figures.style import figure_style
from keyseg.report.stats.budgets import Budget, Curve, crossings, curves
from keyseg.report.stats.contrasts import contrasts
from keyseg.report.store import load
from keyseg.report.tables import crossings as table
from keyseg.runs.run_directory import RunDirectory

SCORES = {"a100": 0.2, "a400": 0.8, "b100": 0.5, "b400": 0.6}


@pytest.fixture
def sweep(store):
    """Two variants at two budgets; a step of b takes half as long again."""
    folder = store(labels=tuple(SCORES))
    design = json.loads((folder / "sweep.json").read_text())
    for cell in design["cells"]:
        fusion, steps = cell["label"][0], int(cell["label"][1:])
        cell["factors"] = {"fusion": fusion, "optim.steps": steps}
        pace = 3.6 if fusion == "a" else 5.4
        RunDirectory(folder / cell["signature"]).update(steps=steps, seconds_per_step=pace)
    (folder / "sweep.json").write_text(json.dumps(design))
    return load(folder)


@pytest.fixture
def scores():
    """As `stats.scores.scores` makes them."""
    rows = [
        {
            "protocol": "teacher_forced",
            "slice": "",
            "label": label,
            "metric": "giou",
            "value": value,
            "low": value - 0.02,
            "high": value + 0.02,
        }
        for label, value in SCORES.items()
    ]
    return pd.DataFrame(rows)


def test_a_variant_is_all_factors_but_the_budget(sweep, scores):
    first, second = curves(sweep, scores, "giou")
    assert (first.label, second.label) == ("a", "b")
    assert [b.steps for b in first.budgets] == [100, 400]
    assert [b.value for b in second.budgets] == [0.5, 0.6]
    assert [b.hours for b in first.budgets] == pytest.approx([0.1, 0.4])
    assert [b.hours for b in second.budgets] == pytest.approx([0.15, 0.6])
    assert all(b.plateau for b in first.budgets)


def test_each_is_held_against_the_baseline_of_its_own_budget(sweep):
    first, *_ = sweep.variants
    against_a = replace(sweep, design=sweep.design | {"baseline": first.factors, "contrasts": []})
    pairs = [(c.of.label, c.against.label) for c in contrasts(against_a)]
    assert pairs == [("a400", "a100"), ("b100", "a100"), ("b400", "a400")]


def test_they_cross_where_the_difference_changes_its_sign(sweep, scores):
    steps, hours = crossings(curves(sweep, scores, "giou"))
    assert (steps.first, steps.second, steps.axis) == ("a", "b", "steps")
    assert steps.at == pytest.approx(100 * 4 ** (0.3 / 0.5))
    assert (steps.before, steps.after) == pytest.approx((-0.3, 0.2))
    assert hours.axis == "hours"
    assert 0.15 < hours.at < 0.4
    assert hours.before == pytest.approx(0.2 + 0.6 * math.log(1.5) / math.log(4) - 0.5)
    lines = table.table(sweep, scores).lines
    assert [line.entries[0].value for line in lines] == ["steps", "GPU-hours"]
    assert [line.entries[1].value for line in lines] == ["230", "0.212"]


def line(label: str, *points: tuple[float, float]) -> Curve:
    budgets = [Budget(x, x, y, y, y, plateau=True) for x, y in points]
    return Curve(label, 0, budgets)


def test_what_does_not_cross_is_no_crossing():
    flat = line("flat", (100, 0.5), (400, 0.5))
    assert crossings([flat, line("above", (100, 0.6), (400, 0.6))]) == []
    assert crossings([flat, line("same", (100, 0.5), (400, 0.5))]) == []
    assert crossings([flat, line("later", (800, 0.1), (1600, 0.9))]) == []  # no common budget
    touching = line("touching", (100, 0.6), (200, 0.5), (400, 0.6))
    assert crossings([flat, touching]) == []
    assert len(crossings([flat, line("twice", (100, 0.4), (200, 0.6), (400, 0.4))])) == 4


def test_the_figure_is_there_where_budgets_differ_and_only_there(sweep, scores, store):
    assert budget.varies(sweep, scores)
    with figure_style():
        drawn = budget.figure(sweep, scores)
    for ax in drawn.axes:
        rings = [one for one in ax.lines if one.get_markersize() == 11]
        assert len(rings) == 1
        assert {one.get_label() for one in ax.lines} >= {"a", "b"}


def test_without_other_budgets_there_is_neither_figure_nor_table(store, scores):
    loaded = load(store(labels=tuple(SCORES)))
    assert not budget.varies(loaded, scores)
    assert table.table(loaded, scores) is None
