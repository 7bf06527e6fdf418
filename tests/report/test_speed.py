"""How fast a variant learns, over seeds, and only where it has learnt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keyseg.report.stats.speed import faster, speed, spread, steps_to
from keyseg.report.store import load
from keyseg.report.tables.speed import tables
from tests.report.test_training import RISES, recurve


def curve(middle: float) -> list[tuple[int, float]]:
    """0.1, then 0.9 from `middle` on, over 80 steps in steps of 5: 0.81 is on the way there."""
    return [(step, 0.1 if step < middle else 0.9) for step in range(0, 81, 5)]


def test_the_first_crossing_on_a_line_between_two_evaluations():
    assert steps_to([(0, 0.1), (10, 0.5), (20, 0.9)], 0.7) == 15
    assert steps_to([(0, 0.1), (10, 0.9), (20, 0.2), (30, 0.9)], 0.5) == 5
    assert math.isnan(steps_to([(0, 0.1), (10, 0.5)], 0.7))
    assert math.isnan(steps_to([(0, 0.8), (10, 0.9)], 0.7))  # the untrained model was there
    assert math.isnan(steps_to([], 0.7))


def test_a_spread_is_that_of_logarithms():
    found = spread([10, 20, 40])
    assert found.value == pytest.approx(20)
    assert found.low * found.high == pytest.approx(400)
    assert found.low < 10 < 40 < found.high  # three seeds
    assert spread([7]).value == pytest.approx(7)
    assert math.isnan(spread([7]).low)
    assert math.isnan(spread([5, 5]).low)
    assert math.isnan(spread([math.nan]).value)


def test_intervals_of_a_ratio_hold_it():
    rng = np.random.default_rng(0)
    found = [spread(4 * rng.lognormal(0, 0.5, 5)) for _ in range(400)]
    held = np.mean([f.low <= 4 <= f.high for f in found])
    assert 0.92 <= held <= 0.98


def test_a_variant_that_learns_four_times_as_fast(store):
    sweep = store(seeds=(0, 1, 2))
    for seed, early, late in ((0, 10, 40), (1, 5, 20), (2, 10, 40)):
        recurve(sweep, "full", curve(early), seed)
        recurve(sweep, "seg_only", curve(late), seed)
        recurve(sweep, "cross", RISES, seed)
    loaded = load(sweep)
    found = {v.label: speed(v) for v in loaded.variants}
    assert found["full"].plateau == pytest.approx(0.9)
    share = (0.81 - 0.1) / 0.8  # of the way from one evaluation to the next
    assert found["full"].steps[0] == pytest.approx(5 + 5 * share)
    pace = loaded.variants[2].cells[0].number("seconds_per_step") / 3600
    assert found["full"].hours[0] == pytest.approx(found["full"].steps[0] * pace)
    assert found["cross"].seeds == []
    held = {f.contrast.of.label: f for f in faster(loaded)}
    assert held["full"].word == "faster"
    assert held["full"].steps.value == pytest.approx(4.1, abs=0.3)
    assert held["full"].steps.low > 1
    assert held["cross"].word == "no result"
    own, contrasts = tables(loaded)
    lines = {line.label: line for line in own.lines}
    assert lines["cross"].hole == "still rising"
    assert lines["full"].entries[3].value == "3 of 3"
    words = [line.entries[3].word for line in contrasts.lines]
    assert words == ["no result", "learns faster"]
    assert contrasts.lines[0].hole == "cross: still rising; seg_only: plateau"


def test_one_seed_has_no_interval_and_no_verdict(store):
    sweep = store()
    recurve(sweep, "full", curve(10))
    held = {f.contrast.of.label: f for f in faster(load(sweep))}
    assert held["full"].word == "one seed"
    assert math.isnan(held["full"].steps.low)


def test_without_a_plateau_there_is_no_table(store):
    sweep = store(labels=("seg_only", "full"))
    for label in ("seg_only", "full"):
        recurve(sweep, label, RISES)
    assert tables(load(sweep)) == []
