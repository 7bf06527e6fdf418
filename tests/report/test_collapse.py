"""Trainings that collapsed: found, counted with an exact interval, and put together again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from keyseg.report.stats.collapse import Side, collapsed, rate, with_collapse
from keyseg.report.stats.inference import Estimate
from keyseg.report.stats.median import median


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
