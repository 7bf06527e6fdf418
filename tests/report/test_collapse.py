"""Trainings that collapsed: found, counted with an exact interval, and put together again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from keyseg.report.stats import scores
from keyseg.report.stats.collapse import Side, collapsed, rate, with_collapse
from keyseg.report.stats.inference import Estimate
from keyseg.report.stats.median import median
from keyseg.report.store import load
from keyseg.report.tables.contrasts import answers, rule
from keyseg.runs.run_directory import RunDirectory


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([0.61, 0.58, 0.15, 0.63], [0, 0, 1, 0]),
        ([0.14, 0.12, 0.76], [1, 1, 0]),  # most of them: the best one shows it
        ([0.50, 0.40, 0.30], [0, 0, 0]),  # far apart, and no collapse
        ([0.12, 0.05, 0.03], [0, 0, 0]),  # nothing to fall from
        ([0.7], [0]),
        ([0.7, np.nan, 0.2], [0, 0, 1]),
        ([np.nan, np.nan], [0, 0]),
    ],
)
def test_a_collapsed_training_is_far_below_the_best(scores: list[float], wanted: list[int]) -> None:
    assert collapsed(np.array(scores)).tolist() == [bool(x) for x in wanted]


@pytest.mark.parametrize(("failed", "trained"), [(0, 5), (1, 5), (3, 10), (5, 5)])
def test_rate_is_clopper_and_pearsons(failed: int, trained: int) -> None:
    low, high = rate(failed, trained)
    lowest = beta.ppf(0.025, failed, trained - failed + 1) if failed else 0.0
    highest = beta.ppf(0.975, failed + 1, trained - failed) if failed < trained else 1.0
    assert (low, high) == pytest.approx((lowest, highest))


def test_no_training_tells_nothing_of_the_rate() -> None:
    assert rate(0, 0) == (0.0, 1.0)


def side(scores: list[float], weight: float) -> Side:
    array = np.array(scores)[:, None]
    return Side(array, collapsed(np.array(scores)), weight)


def test_both_parts_are_put_together() -> None:
    """One of five of the first side collapsed by 0.48; the other side's rate is as unknown."""
    of, against = side([0.62, 0.60, 0.61, 0.61, 0.13], 1.0), side([0.6] * 5, -1.0)
    succeeded = Estimate(np.array([0.01]), np.array([-0.01]), np.array([0.03]))
    found = with_collapse(np.array([-0.086]), succeeded, [of, against])
    (l1, u1), (_, u0) = rate(1, 5), rate(0, 5)
    below = np.hypot(0.02, 0.48 * (u1 - 0.2))  # the other side cannot have a rate below 0
    above = np.sqrt(0.02**2 + (0.48 * (0.2 - l1)) ** 2 + (0.48 * u0) ** 2)
    assert found.low[0] == pytest.approx(-0.086 - below)
    assert found.high[0] == pytest.approx(-0.086 + above)


def test_nothing_is_put_together_where_a_part_is_not_known() -> None:
    fine, lost = side([0.6, 0.6], 1.0), Side(np.array([[0.1], [0.1]]), np.array([True, True]), -1.0)
    succeeded = Estimate(*(np.array([x]) for x in (0.0, -0.1, 0.1)))
    for sides in ([fine, fine], [fine, lost]):
        found = with_collapse(np.array([0.0]), succeeded, sides)
        assert np.isnan([found.low[0], found.high[0]]).all()


@pytest.mark.parametrize("seeds", [3, 5, 6, 10])
def test_the_median_is_held_whatever_the_distribution(seeds: int) -> None:
    """A fifth of the seeds lose 45 points; Student's t covers 20 to 70 % of such means."""
    rng = np.random.default_rng(seeds)
    sweeps = 20_000
    lost = 0.45 * (rng.random((seeds, sweeps)) < 0.2)
    found = median(rng.normal(0, 0.02, (seeds, sweeps)) - lost)
    whole = rng.normal(0, 0.02, 2_000_000) - 0.45 * (rng.random(2_000_000) < 0.2)
    truth = np.median(whole)
    share = np.mean((found.low <= truth) & (truth <= found.high))
    assert share == pytest.approx(found.confidence, abs=4 * (0.05 * 0.95 / sweeps) ** 0.5)
    assert found.confidence == pytest.approx({3: 0.75, 5: 0.9375, 6: 0.96875, 10: 0.978516}[seeds])


def test_one_seed_has_no_interval_of_the_median() -> None:
    found = median(np.array([[0.3, 0.1]]))
    assert found.value.tolist() == [0.3, 0.1]
    assert np.isnan(found.low).all()
    assert found.confidence == 0


def worsened(folder: Path, label: str, seed: int) -> None:
    """Give a run masks that hit a tenth of what they did."""
    design = json.loads((folder / "sweep.json").read_text())
    cell = next(c for c in design["cells"] if (c["label"], c["seed"]) == (label, seed))
    run = RunDirectory(folder / cell["signature"])
    samples = run.samples()
    samples["intersection"] //= 10
    samples["iou"] = samples["intersection"] / samples["union"]
    run.write_samples(samples)


def test_a_report_tells_collapsed_trainings_apart(store: Callable[..., Path]) -> None:
    """The verdict is that of the seeds in which both succeeded; all trainings stand beside it."""
    seeds = (0, 1, 2, 3, 4)
    folder = store(("seg_only", "full"), seeds=seeds, images=30, steps=8)
    before = giou(folder)
    assert (before["collapsed"], before["second"], before["seeds"]) == ("", "", 5)
    assert np.isnan([before["low_all"], before["high_all"]]).all()
    assert before["difference_all"] == pytest.approx(before["difference"])
    worsened(folder, "full", 3)
    after = giou(folder)
    (l1, u1), (l0, u0) = rate(1, 5), rate(0, 5)
    assert after["seeds"] == 4
    assert after["collapsed"] == (
        f"collapsed: full 1 of 5 ({100 * l1:.0f} to {100 * u1:.0f} %), "
        f"seg_only 0 of 5 ({100 * l0:.0f} to {100 * u0:.0f} %)"
    )
    assert abs(after["difference"] - before["difference"]) < 0.05
    assert after["difference_all"] < before["difference"] - 0.05
    assert after["low_all"] < after["difference_all"] - 0.1
    assert after["verdict_all"] == "inconclusive"
    assert after["median"] > after["difference_all"]
    assert after["confidence_median"] == 0.9375
    assert after["hole"] == ""
    sweep = load(folder)
    held = scores.contrasts(sweep, 0)
    (first, *_) = answers(sweep, held)
    assert first.second.startswith("collapsed: full 1 of 5")
    assert "all trainings: inconclusive, " in first.second
    assert "below 50 % of its variant's best seed counts as collapsed" in rule(sweep, [first])
    assert "Where none of 5 trainings did, a rate of up to 52 %" in rule(sweep, [first])


def test_no_seed_in_which_both_succeeded_is_no_result(store: Callable[..., Path]) -> None:
    folder = store(("seg_only", "full"), seeds=(0, 1), images=12, steps=8)
    worsened(folder, "full", 0)
    worsened(folder, "seg_only", 1)
    row = giou(folder)
    assert row["verdict"] == "no result"
    assert row["hole"] == (
        "no seed in which all trainings succeeded, collapsed: full in seed 0, seg_only in seed 1"
    )


def giou(folder: Path) -> pd.Series[Any]:
    sweep = load(folder)
    held = scores.contrasts(sweep, 0)
    rows = held[(held["metric"] == "giou") & (held["protocol"] == sweep.headline)]
    return rows.iloc[0]
