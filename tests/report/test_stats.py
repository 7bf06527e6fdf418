"""Intervals and verdicts against direct computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from keyseg import metrics
from keyseg.metrics import (
    BY_NAME,
    COLUMNS,
    MEASURES,
    NO_TARGET,
    majority,
    ratios,
)
from keyseg.report.stats.inference import (
    Sources,
    bootstrap,
    both_p,
    differences,
    equivalence_p,
    flip_seeds,
    holm,
    image_freedom,
    image_sums,
    interval_level,
    mcnemar,
    pulls,
    sources,
    standardised,
    student,
    swap_images,
)
from keyseg.report.stats.resamples import draws, terms

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


def direct(
    table: np.ndarray, numerator: str, denominator: str, measure: int
) -> tuple[float, float]:
    """`scipy.stats.bootstrap` on the two columns themselves, at the expanded level."""
    freedom = image_freedom(pulls(table[:, None, None])[:, 0])[measure]
    found = scipy_stats.bootstrap(
        (table[:, COLUMNS.index(numerator)], table[:, COLUMNS.index(denominator)]),
        lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        confidence_level=1 - 2 * float(interval_level(len(table), freedom)),
        rng=np.random.default_rng(3),
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
    found = bootstrap(table[:, None, None], seed=3, resamples=4000)
    assert found.value[measure] == pytest.approx(
        table[:, COLUMNS.index(numerator)].sum() / table[:, COLUMNS.index(denominator)].sum()
    )
    low, high = direct(table, numerator, denominator, measure)
    width = high - low
    assert found.low[measure] == pytest.approx(low, abs=0.05 * width)
    assert found.high[measure] == pytest.approx(high, abs=0.05 * width)


def test_a_draw_has_as_many_images_as_there_are() -> None:
    counts = draws(23, 4, 700)
    assert counts.shape == (700, 23)
    assert (counts.sum(1) == 23).all()
    assert counts.mean() == pytest.approx(1)
    assert not (counts == draws(23, 5, 700)).all()


def test_images_are_drawn_whole() -> None:
    """Ten copies of an image's expressions are no ten images: the interval must not shrink."""
    table = sums(30)[:, None, None]
    once, often = (bootstrap(k * table, seed=0, resamples=300) for k in (1, 10))
    np.testing.assert_allclose(once.low, often.low, rtol=1e-5)
    np.testing.assert_allclose(once.high, often.high, rtol=1e-5)


def test_a_contrast_is_paired() -> None:
    """A variant that is 2 points better on every image is better without doubt."""
    base = sums(25, 1)
    better = base.copy()
    at = COLUMNS.index
    better[..., at("iou")] += 0.02 * base[..., at("examples")]
    found = bootstrap(np.stack([base, better], 2), seed=0, resamples=300)
    assert found.value[GIOU] == pytest.approx(0.02)
    alone = bootstrap(base[:, :, None], seed=0, resamples=300)
    assert alone.high[GIOU] - alone.low[GIOU] > 0.05
    # The difference is the same in every resample up to rounding: far narrower than either side.
    width = found.high[GIOU] - found.low[GIOU]
    assert np.isnan(width) or width < 1e-5


def test_seeds_are_averaged_before_the_interval() -> None:
    table = sums(30, 3)
    found = bootstrap(table[:, :, None], seed=0, resamples=200)
    for measure in (GIOU, CIOU):
        each = [ratios(table[:, s].sum(0))[measure] for s in range(3)]
        assert found.value[measure] == pytest.approx(np.mean(each))


def test_merged_seeds_change_no_value() -> None:
    """Runs that count the same examples share a denominator; their mean ratio is one ratio."""
    table = sums(30, 4, 2)
    at = COLUMNS.index
    table[..., at("examples")] = table[:, :1, :1, at("examples")]
    merged = terms(table)
    assert merged.flat.shape[2] < 4 * len(COLUMNS)
    found = merged.difference(merged.flat.sum(0))
    wanted = differences(table).mean(0)
    np.testing.assert_allclose(found, wanted)


def test_same_seed_same_interval() -> None:
    table = sums(30)[:, None, None]
    a, b, c = (bootstrap(table, seed=s, resamples=100).low[GIOU] for s in (1, 1, 2))
    assert a == b != c


def test_no_interval_where_a_bootstrap_cannot_give_one() -> None:
    table = sums(30)[:, None, None]
    found = bootstrap(table, seed=0, resamples=100)
    no_seg = list(BY_NAME).index("no_seg_rate")
    assert found.value[no_seg] == 0
    assert np.isnan([found.low[no_seg], found.high[no_seg]]).all()
    single = bootstrap(table[:1], seed=0)
    assert np.isfinite(single.value[GIOU])
    assert np.isnan(single.low).all()


def test_sums_by_image() -> None:
    terms_ = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.testing.assert_array_equal(
        image_sums(np.array([1, 0, 1]), terms_, 3), [[3, 4], [6, 8], [0, 0]]
    )


def test_swapping_images_is_scipys_sign_flip() -> None:
    """With one expression an image, gIoU's p is that of the paired permutation test."""
    table = sums(12, 1, 2)
    table[..., COLUMNS.index("examples")] = 1
    table[:, 0, 1, COLUMNS.index("iou")] += 0.15
    at = COLUMNS.index("iou")
    exact = scipy_stats.permutation_test(
        (table[:, 0, 1, at] - table[:, 0, 0, at],),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    found = swap_images(table, seed=0, resamples=4000)[GIOU]
    assert found == pytest.approx(exact.pvalue, abs=0.02)


def test_five_seeds_cannot_reach_five_percent_and_six_can() -> None:
    every = np.linspace(1, 2, 6)[:, None]
    assert flip_seeds(every[:5], seed=0)[0] == pytest.approx(2 / 2**5)
    assert flip_seeds(every, seed=0)[0] == pytest.approx(2 / 2**6)
    assert np.isnan(flip_seeds(every[:1], seed=0)).all()


def test_variances_add_up() -> None:
    """Images only: no seed effect is seen. Seeds only: the images say nothing."""
    table = sums(50, 1, 2)
    alike = sources(np.repeat(table, 4, 1))
    assert alike.seeds[GIOU] == pytest.approx(0, abs=1e-12)
    assert alike.both[GIOU] == pytest.approx(alike.images[GIOU])
    assert alike.freedom[GIOU] == pytest.approx(alike.image_freedom[GIOU], rel=1e-3)
    spread = bootstrap(np.repeat(table, 4, 1), seed=0, resamples=4000)
    width = spread.high[GIOU] - spread.low[GIOU]
    reach = scipy_stats.t.ppf(0.975, alike.image_freedom[GIOU])
    assert width == pytest.approx(2 * reach * np.sqrt(alike.images[GIOU]), rel=0.1)

    flat = np.zeros((20, 3, 2, len(COLUMNS)))
    flat[..., COLUMNS.index("examples")] = 1
    flat[..., COLUMNS.index("iou")] = 0.5
    flat[:, :, 1, COLUMNS.index("iou")] += np.array([0.01, 0.03, 0.05])
    found = sources(flat)
    assert found.images[GIOU] == pytest.approx(0, abs=1e-12)
    value = differences(flat).mean(0)
    interval, p = student(value, found.both, found.freedom), both_p(value, found)
    wanted = scipy_stats.ttest_1samp([0.01, 0.03, 0.05], 0)
    assert p[GIOU] == pytest.approx(wanted.pvalue, rel=1e-3)
    assert interval.low[GIOU] == pytest.approx(wanted.confidence_interval().low, rel=1e-3)


def test_images_that_pull_hard_leave_few_degrees_of_freedom() -> None:
    """Normal pulls: n - 1. One image that carries all: close to one."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4000, 1))
    assert image_freedom(normal)[0] == pytest.approx(3999, rel=0.1)
    alone = np.zeros((100, 1))
    alone[3] = 1
    assert 1 <= image_freedom(alone)[0] < 2.5
    assert image_freedom(np.array([[1.0], [-1.0]]))[0] == 1
    assert np.isnan(image_freedom(np.zeros((5, 1)))[0])


def test_pulls_give_the_variance_of_a_ratio() -> None:
    """Against the delete-one jackknife, which knows nothing of derivatives."""
    table = sums(60, 2, 2)
    pull = pulls(table)
    np.testing.assert_allclose(pull.sum(0)[:, [GIOU, CIOU]], 0, atol=1e-12)
    left_out = np.stack([differences(np.delete(table, i, 0)).mean(0) for i in range(60)])
    jackknife = 59 / 60 * ((left_out - left_out.mean(0)) ** 2).sum(0)
    for measure in (GIOU, CIOU):
        assert sources(table).images[measure] == pytest.approx(jackknife[measure], rel=0.1)


def test_p_over_both_is_that_of_the_larger_source() -> None:
    """Each source alone gives its own Student's t; p of 0 is 1; a certain one ends somewhere."""
    one, none = np.ones(4), np.zeros(4)
    value = np.array([0.0, 1.0, 4.0, 1e9])
    few = both_p(value, Sources(none, one, none, np.full(4, 49.0), 50, 3))
    np.testing.assert_allclose(few[:3], 2 * scipy_stats.t.sf(value[:3], 2), rtol=1e-6)
    many = both_p(value, Sources(one, none, none, np.full(4, 49.0), 50, 3))
    np.testing.assert_allclose(many[:3], 2 * scipy_stats.t.sf(value[:3], 49), rtol=1e-6)
    assert many[3] == pytest.approx(1e-12)
    assert np.isnan(both_p(value, Sources(none, none, none, one, 50, 3))).all()
    # Both: never surer than a t of all the variance at the images' degrees of freedom.
    mixed = both_p(value, Sources(one, one, none, np.full(4, 49.0), 50, 3))
    assert (mixed[:3] >= 2 * scipy_stats.t.sf(value[:3] / np.sqrt(2), 49) - 1e-9).all()
    assert (mixed[:3] <= 2 * scipy_stats.t.sf(value[:3] / np.sqrt(2), 2) + 1e-9).all()


def test_one_seed_has_no_seed_variance() -> None:
    found = sources(sums(20, 1, 2))
    assert np.isfinite(found.images[GIOU])
    assert np.isnan([found.seeds[GIOU], found.both[GIOU]]).all()


def test_holm_skips_what_is_not_known() -> None:
    found = holm([0.01, float("nan"), 0.04, 0.03])
    np.testing.assert_allclose(found, [0.03, np.nan, 0.06, 0.06])
    assert np.isnan(holm([float("nan")])).all()
    # Two contrasts that are still to come count as if their p were 1.
    known, later = [0.01, 0.04], [0.01, 0.04, 1.0, 1.0]
    np.testing.assert_allclose(holm(known, pending=2), holm(later)[:2])


def test_holm_is_that_of_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(0, 0.2, 15)
    np.testing.assert_allclose(holm(list(p)), multipletests(p, method="holm")[1])


def test_mcnemar_by_hand() -> None:
    """9 against 1 discordant pairs: twice the binomial tail."""
    first = np.array([False] * 9 + [True] + [True] * 5)
    second = np.array([True] * 9 + [False] + [True] * 5)
    won, lost, p = mcnemar(first, second)
    assert (won, lost) == (9, 1)
    assert p == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(first, first)[:2] == (0, 0)


def test_equivalence_is_two_one_sided_tests() -> None:
    """Where seeds say nothing, each side is a plain t test of the images, and the nearer counts."""
    one = np.ones(3)
    by = Sources(1e-4 * one, 0 * one, 0 * one, 199 * one, 200, 5)
    value, margin = np.array([0.004, -0.004, 0.03]), 0.02 * one
    found = equivalence_p(value, by, margin)
    t = scipy_stats.t(199)
    sides = t.sf((margin - value) / 0.01), t.sf((margin + value) / 0.01)
    np.testing.assert_allclose(found[:2], np.maximum(*sides)[:2], rtol=1e-6)
    assert found[2] == 1  # outside of the margin
    assert np.isnan(equivalence_p(value, replace(by, images=0 * one), margin)).all()


def test_effect_size_by_hand() -> None:
    found = standardised(np.array([[1.0], [2.0], [3.0]]))
    assert found[0] == pytest.approx(2 * (1 - 3 / 7))


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
    values = dict(zip(BY_NAME, ratios(metrics.terms(samples()).sum().to_numpy()), strict=True))
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
    terms = metrics.terms(broken)
    assert (terms.loc[1] == 0).all()
    values = dict(zip(BY_NAME, ratios(terms.sum().to_numpy()), strict=True))
    assert values["giou"] == pytest.approx(1.55 / 3)
    assert values["keyword_accuracy"] == 0.5


def test_unstored_targets_leave_emptiness_unknown() -> None:
    values = dict(
        zip(
            BY_NAME,
            ratios(metrics.terms(samples(target_rle=[""] * 4)).sum().to_numpy()),
            strict=True,
        )
    )
    assert np.isnan(values["empty_rate"])


def test_no_target_measures_by_hand() -> None:
    """gRefCOCO: of two examples without a target one is left empty, of two others one."""
    mixed = samples(
        iou=[1.0, 0.0, 0.5, 0.0],
        intersection=[0, 0, 50, 0],
        union=[0, 30, 100, 60],
        target_rle=[rle(n) for n in (0, 0, 80, 60)],
    )
    values = dict(zip(BY_NAME, ratios(metrics.terms(mixed).sum().to_numpy()), strict=True))
    assert (values["n_acc"], values["t_acc"], values["empty_rate"]) == (0.5, 0.5, 0.5)
    found = metrics.terms(mixed.assign(intersection=[0, 0, 50, 1], union=[0, 30, 100, 60]))
    values = dict(zip(BY_NAME, ratios(found.sum().to_numpy()), strict=True))
    assert (values["n_acc"], values["t_acc"]) == (0.5, 1.0)
    everywhere = dict(zip(BY_NAME, ratios(metrics.terms(samples()).sum().to_numpy()), strict=True))
    assert np.isnan([everywhere[name] for name in NO_TARGET]).all()


def test_every_measure_has_its_columns() -> None:
    assert {t.name for m in MEASURES for t in (m.numerator, m.denominator)} == set(COLUMNS)
    assert list(metrics.terms(samples()).columns) == list(COLUMNS)
