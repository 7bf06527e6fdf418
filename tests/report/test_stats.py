"""Intervals and verdicts against direct computations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco
from scipy import stats as scipy_stats

from keyseg.report.measures import BY_NAME, COLUMNS, MEASURES, majority, ratios, records
from keyseg.report.stats import cluster_bootstrap, difference, mean_over_seeds, verdict

GIOU, CIOU = list(BY_NAME).index("giou"), list(BY_NAME).index("ciou")


def sums(images: int, *dims: int, seed: int = 0) -> np.ndarray:
    """Plausible per-image sums; numerators never above their denominators."""
    rng = np.random.default_rng(seed)
    table = np.zeros((images, *dims, len(COLUMNS)))
    at = COLUMNS.index
    table[..., at("examples")] = rng.integers(1, 4, (images, *dims))
    table[..., at("iou")] = table[..., at("examples")] * rng.beta(2, 2, (images, *dims))
    table[..., at("union")] = rng.integers(50, 900, (images, *dims))
    table[..., at("intersection")] = table[..., at("union")] * rng.beta(2, 2, (images, *dims))
    return table


def direct(table: np.ndarray, numerator: str, denominator: str, seed: int) -> tuple[float, float]:
    """`scipy.stats.bootstrap` on the two columns themselves."""
    found = scipy_stats.bootstrap(
        (table[:, COLUMNS.index(numerator)], table[:, COLUMNS.index(denominator)]),
        lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return float(low), float(high)


@pytest.mark.parametrize(
    ("measure", "numerator", "denominator"),
    [(GIOU, "iou", "examples"), (CIOU, "intersection", "union")],
)
def test_interval_is_scipys_of_the_ratio_of_sums(
    measure: int, numerator: str, denominator: str
) -> None:
    table = sums(40)
    found = cluster_bootstrap(table, ratios, seed=3, resamples=500)
    assert found.value[measure] == pytest.approx(
        table[:, COLUMNS.index(numerator)].sum() / table[:, COLUMNS.index(denominator)].sum()
    )
    low, high = direct(table, numerator, denominator, 3)
    assert found.low[measure] == pytest.approx(low)
    assert found.high[measure] == pytest.approx(high)


def test_images_are_drawn_whole() -> None:
    """Ten copies of an image's expressions are no ten images: the interval must not shrink."""
    table = sums(30)
    once = cluster_bootstrap(table, ratios, seed=0, resamples=300)
    often = cluster_bootstrap(10 * table, ratios, seed=0, resamples=300)
    np.testing.assert_allclose(once.low, often.low)
    np.testing.assert_allclose(once.high, often.high)


def test_a_contrast_is_paired() -> None:
    """A variant that is 2 points better on every image is better without doubt."""
    base = sums(25, 1)
    better = base.copy()
    at = COLUMNS.index
    better[..., at("iou")] += 0.02 * base[..., at("examples")]
    found = cluster_bootstrap(np.stack([base, better], 2), difference, seed=0, resamples=300)
    assert found.value[GIOU] == pytest.approx(0.02)
    alone = cluster_bootstrap(base, mean_over_seeds, seed=0, resamples=300)
    assert alone.high[GIOU] - alone.low[GIOU] > 0.05
    # The difference is the same in every resample up to rounding: far narrower than either side.
    width = found.high[GIOU] - found.low[GIOU]
    assert np.isnan(width) or width < 1e-6


def test_seeds_are_averaged_before_the_interval() -> None:
    table = sums(30, 3)
    found = cluster_bootstrap(table, mean_over_seeds, seed=0, resamples=200)
    each = [ratios(table[:, s].sum(0))[GIOU] for s in range(3)]
    assert found.value[GIOU] == pytest.approx(np.mean(each))


def test_same_seed_same_interval() -> None:
    table = sums(30)
    a, b, c = (cluster_bootstrap(table, ratios, seed=s, resamples=100).low[GIOU] for s in (1, 1, 2))
    assert a == b != c


def test_no_interval_where_a_bootstrap_cannot_give_one() -> None:
    table = sums(30)
    found = cluster_bootstrap(table, ratios, seed=0, resamples=100)
    no_seg = list(BY_NAME).index("no_seg_rate")
    assert found.value[no_seg] == 0
    assert np.isnan([found.low[no_seg], found.high[no_seg]]).all()
    single = cluster_bootstrap(table[:1], ratios, seed=0)
    assert np.isfinite(single.value[GIOU])
    assert np.isnan(single.low).all()


@pytest.mark.parametrize(
    ("name", "low", "high", "by_seed", "word"),
    [
        ("giou", 0.01, 0.05, [0.03], "better"),
        ("giou", -0.05, -0.01, [-0.03], "worse"),
        ("giou", -0.01, 0.05, [0.02], "inconclusive"),
        ("giou", 0.01, 0.05, [0.05, -0.01], "seeds disagree"),
        ("giou", 0.01, 0.05, [0.05, 0.02], "better"),
        ("empty_rate", 0.01, 0.05, [0.03], "worse"),
        ("giou", float("nan"), float("nan"), [0.0], "no interval"),
    ],
)
def test_verdict(name: str, low: float, high: float, by_seed: list[float], word: str) -> None:
    assert verdict(list(BY_NAME).index(name), low, high, np.array(by_seed)) == word


def rle(area: int) -> str:
    mask = np.zeros(200, np.uint8)
    mask[:area] = 1
    counts: bytes = coco.encode(np.asfortranarray(mask.reshape(20, 10)))["counts"]
    return counts.decode()


def samples(**changes: object) -> pd.DataFrame:
    """Four examples solved by hand: right, half right, wrong word, no keyword."""
    frame = pd.DataFrame(
        {
            "iou": [0.95, 0.4, 0.6, 0.0],
            "intersection": [95, 40, 60, 0],
            "union": [100, 100, 100, 50],
            "keyword": ["ring", "ring", "disc", None],
            "keyword_rank": [0, 0, 2, -1],
            "has_seg": [True, True, True, False],
            "has_key": [True] * 4,
            "height": [20] * 4,
            "width": [10] * 4,
            "target_rle": [rle(n) for n in (95, 60, 80, 50)],
        }
    )
    return frame.assign(**changes)


def test_measures_by_hand() -> None:
    values = dict(zip(BY_NAME, ratios(records(samples()).sum().to_numpy()), strict=True))
    assert values["giou"] == pytest.approx(1.95 / 4)
    assert values["ciou"] == pytest.approx(195 / 350)
    assert values["precision@0.5"] == 0.5
    assert values["precision@0.9"] == 0.25
    assert values["keyword_accuracy"] == pytest.approx(2 / 3)
    assert values["discrepancy_keyword_right_mask_wrong"] == pytest.approx(1 / 3)
    assert values["discrepancy_keyword_wrong_mask_right"] == pytest.approx(1 / 3)
    assert values["no_seg_rate"] == 0.25
    assert values["empty_rate"] == 0.25
    assert majority(samples()) == pytest.approx(2 / 3)


def test_an_example_without_iou_counts_nowhere() -> None:
    broken = samples(iou=[0.95, float("nan"), 0.6, 0.0])
    terms = records(broken)
    assert (terms.loc[1] == 0).all()
    values = dict(zip(BY_NAME, ratios(terms.sum().to_numpy()), strict=True))
    assert values["giou"] == pytest.approx(1.55 / 3)
    assert values["keyword_accuracy"] == 0.5


def test_unstored_targets_leave_emptiness_unknown() -> None:
    values = dict(
        zip(BY_NAME, ratios(records(samples(target_rle=[""] * 4)).sum().to_numpy()), strict=True)
    )
    assert np.isnan(values["empty_rate"])


def test_every_measure_has_its_columns() -> None:
    assert {m.numerator for m in MEASURES} | {m.denominator for m in MEASURES} == set(COLUMNS)
    assert list(records(samples()).columns) == list(COLUMNS)
