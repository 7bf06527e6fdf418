import json
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from keyseg.data.keywords.first_tokens import Collisions, ambiguous_tokens, collisions
from keyseg.metrics import (
    THRESHOLDS,
    intersection_union,
    iou,
    summarise,
    summarise_by,
    terms,
)

# Hand-solved: prediction, target, intersection, union.
SOLVED = {
    "equal": ([[1, 1], [0, 0]], [[1, 1], [0, 0]], 2, 2),
    "half": ([[1, 1], [0, 0]], [[1, 0], [0, 0]], 1, 2),
    "disjoint": ([[1, 0], [0, 0]], [[0, 0], [0, 1]], 0, 2),
    "nothing predicted": ([[0, 0], [0, 0]], [[1, 1], [1, 0]], 0, 3),
    "empty target, nothing predicted": ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 0, 0),
    "empty target, something predicted": ([[0, 1], [0, 0]], [[0, 0], [0, 0]], 0, 1),
    "ignored pixels are in neither": ([[1, 1], [1, 0]], [[1, 255], [0, 255]], 1, 2),
    "predicted only where ignored": ([[0, 1], [0, 0]], [[0, 255], [0, 0]], 0, 0),
    "all ignored": ([[1, 1], [0, 0]], [[255, 255], [255, 255]], 0, 0),
}
STACK = [
    np.array([case[0] for case in SOLVED.values()], bool),
    np.array([case[1] for case in SOLVED.values()], np.uint8),
]
IOUS = [1, 0.5, 0, 0, 1, 0, 0.5, 1, 1]


@st.composite
def masks(draw):
    """Predictions and targets (N, H, W) with ignored pixels; some targets are emptied."""
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=5))
    pred = draw(hnp.arrays(np.bool_, shape))
    target = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
    for mask in target[: draw(st.integers(0, shape[0]))]:
        mask[mask == 1] = 0
    return pred, target


def slow_scores(pred, target):
    """The definitions, pixel by pixel, in exact fractions."""
    ious, totals, none_found, none_total, some_found, some_total = [], [0, 0], 0, 0, 0, 0
    for p_mask, t_mask in zip(pred.tolist(), target.tolist(), strict=True):
        both = either = targets = predicted = 0
        for p_row, t_row in zip(p_mask, t_mask, strict=True):
            for p, t in zip(p_row, t_row, strict=True):
                if t == 255:
                    continue
                both += bool(p and t == 1)
                either += bool(p or t == 1)
                targets += t == 1
                predicted += p
        ious.append(Fraction(both, either) if either else Fraction(1))
        totals[0] += both
        totals[1] += either
        if targets:
            some_total += 1
            some_found += predicted > 0
        else:
            none_total += 1
            none_found += predicted == 0
    scores = {
        "giou": sum(ious) / len(ious),
        "ciou": Fraction(*totals) if totals[1] else math.nan,
        "empty_rate": Fraction(some_total - some_found + none_found, len(ious)),
        "examples": len(ious),
    }
    for x in THRESHOLDS:
        above = [i > Fraction(str(x)) for i in ious]
        scores[f"precision@{x}"] = Fraction(sum(above), len(ious))
    if none_total:
        scores["n_acc"] = Fraction(none_found, none_total)
        scores["t_acc"] = Fraction(some_found, some_total) if some_total else math.nan
    return scores


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("name", SOLVED)
def test_solved_masks(name):
    pred, target, intersection, union = SOLVED[name]
    found = intersection_union(np.array(pred, bool), np.array(target, np.uint8))
    assert found == (intersection, union)
    assert all(part.dtype == np.int64 for part in found)


def test_a_stack_is_its_masks():
    intersection, union = intersection_union(*STACK)
    assert intersection.tolist() == [case[2] for case in SOLVED.values()]
    assert union.tolist() == [case[3] for case in SOLVED.values()]
    assert iou(intersection, union).tolist() == IOUS


def samples_of(pred, target) -> pd.DataFrame:
    """Masks (N, H, W) as rows of samples.parquet, without a keyword."""
    intersection, union = intersection_union(pred, target)
    return pd.DataFrame(
        {
            "intersection": intersection,
            "union": union,
            "target_rle": [rle(mask == 1) for mask in target],
            "height": target.shape[1],
            "width": target.shape[2],
            "keyword": None,
            "keyword_rank": -1,
            "has_seg": True,
            "has_key": True,
        }
    )


def of_masks(pred, target) -> dict[str, float]:
    """The summary's scores of masks."""
    found = summarise(samples_of(pred, target))
    return {k: v for k, v in found.items() if not k.startswith(("keyword", "discrepancy"))}


def of_areas(intersection, union, target) -> dict[str, float]:
    """The same from counts of pixels: a mask is a row of them, the target its first."""
    place = np.arange(max(union))
    rows = zip(intersection, union, target, strict=True)
    pred = [(place < i) | ((place >= t) & (place < u)) for i, u, t in rows]
    masks = [(place < t) for t in target]
    return of_masks(np.array(pred)[:, None], np.array(masks, np.uint8)[:, None])


def rle(mask) -> str:
    """Run lengths of a mask."""
    return coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def test_solved_scores():
    scores = of_masks(*STACK)
    assert scores["giou"] == 5 / 9
    assert scores["ciou"] == (2 + 1 + 1) / (2 + 2 + 2 + 3 + 1 + 2)
    # An IoU of 0.5 is not above 0.5.
    assert [scores[f"precision@{x}"] for x in THRESHOLDS] == [4 / 9] * 5
    assert scores["n_acc"] == 3 / 4
    assert scores["t_acc"] == 4 / 5
    assert scores["empty_rate"] == 4 / 9


def test_thresholds_are_exact():
    """3/5, 7/10, 4/5 and 9/10 are not above 0.6, 0.7, 0.8 and 0.9; one pixel more is."""
    scores = of_areas([1, 3, 7, 4, 9], [2, 5, 10, 5, 10], [2, 5, 10, 5, 10])
    assert [scores[f"precision@{x}"] for x in THRESHOLDS] == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert of_areas([901], [1000], [1000])["precision@0.9"] == 1


@given(masks())
def test_random_masks_against_the_definitions(pair):
    expected = {name: float(value) for name, value in slow_scores(*pair).items()}
    assert of_masks(*pair) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(masks(), st.randoms())
def test_any_order_gives_the_same_bits(pair, random):
    order = list(range(len(pair[0])))
    random.shuffle(order)
    shuffled = of_masks(pair[0][order], pair[1][order])
    assert json.dumps(shuffled) == json.dumps(of_masks(*pair))


@given(masks(), st.integers(0, 5))
def test_sums_of_parts_are_sums_of_the_whole(pair, cut):
    """What a bootstrap, a slice and several processes rest on."""
    rows = samples_of(*pair)
    whole = terms(rows).drop(columns=["has_target", "something_found"])  # of data, not of rows
    parts = [terms(part)[whole.columns].sum() for part in (rows[:cut], rows[cut:])]
    np.testing.assert_allclose(sum(parts), whole.sum(), rtol=1e-12)


def test_large_images_are_exact():
    """100,000 masks of 30 megapixels: beyond what float32 can count."""
    n, area = 100_000, 30_000_001
    runs = rle(np.ones((1, area), bool))
    row = {"intersection": area - 1, "union": area, "target_rle": runs, "height": 1, "width": area}
    row |= {"keyword": None, "keyword_rank": -1, "has_seg": True, "has_key": True}
    scores = summarise(pd.DataFrame([row]).loc[[0] * n])
    assert scores["ciou"] == scores["giou"] == (area - 1) / area


def test_a_target_of_one_pixel_is_a_target():
    target = np.zeros((2, 2, 2), np.uint8)
    target[0, 0, 0] = 1
    scores = of_masks(target.astype(bool), target)
    assert (scores["t_acc"], scores["n_acc"]) == (1, 1)


def test_nothing_to_find_and_nothing_found():
    scores = of_areas([0, 0], [0, 9], [0, 9])
    assert (scores["giou"], scores["n_acc"], scores["t_acc"]) == (0.5, 1, 0)
    alone = of_masks(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), np.uint8))
    assert (alone["giou"], alone["n_acc"]) == (1, 1)
    assert math.isnan(alone["ciou"])  # not one pixel to count
    assert math.isnan(alone["t_acc"])


def test_wrong_arrays():
    pred, target = np.zeros((2, 2), bool), np.zeros((2, 2), np.uint8)
    with pytest.raises(TypeError, match="pred is float64, not bool"):
        intersection_union(pred.astype(float), target)
    with pytest.raises(ValueError, match=r"pred \(2, 2\) and target \(1, 2, 2\)"):
        intersection_union(pred, target[None])
    with pytest.raises(ValueError, match="values other than 0, 1, 255"):
        intersection_union(pred, target + np.uint8(2))
    with pytest.raises(ValueError, match="do not fit together"):
        summarise(samples_of(*STACK).assign(intersection=3))


# ---------------------------------------------------------------- keywords


def keyword_scores(ranks, keywords, ious=None, tokens=None) -> dict[str, float]:
    """The summary's scores of keywords."""
    intersection = [round(100 * x) for x in (ious or [1.0] * len(ranks))]
    own = {"keyword": keywords, "keyword_rank": ranks, "intersection": intersection}
    own |= {"keyword_token": tokens} if tokens else {}
    shown = {"union": 100, "target_rle": rle(np.ones((10, 10))), "height": 10, "width": 10}
    frame = pd.DataFrame(own).assign(**shown, has_seg=True, has_key=True)
    return {k: v for k, v in summarise(frame).items() if k.startswith(("keyword", "discr"))}


def test_keyword_scores():
    """Six examples, one without keyword: right 2 (one with a bad mask), within five 3."""
    ranks = [0, 0, 4, 5, -1, -1]
    keywords = ["dog", "cat", "dog", "dog", "cup", None]
    ious = [0.9, 0.49, 0.5, 0.2, 0.8, 1.0]
    scores = keyword_scores(ranks, keywords, ious, keywords)
    assert scores == {
        "keyword_accuracy": 2 / 5,
        "keyword_accuracy_top5": 3 / 5,
        "keyword_majority": 3 / 5,
        "keyword_collisions": 0.0,
        "discrepancy_keyword_right_mask_wrong": 1 / 5,
        "discrepancy_keyword_wrong_mask_right": 2 / 5,
    }
    old = keyword_scores(ranks, keywords, ious)  # before first tokens were stored
    assert math.isnan(old.pop("keyword_collisions"))
    assert old == {k: v for k, v in scores.items() if k in old}


def test_the_majority_is_by_the_first_token():
    """Accuracy is; "traffic" for two signs is right for both, whatever the commonest sign."""
    keywords = ["traffic light", "traffic cone", "dog", "dog", "the dog", None]
    tokens = ["traffic", "traffic", "dog", "dog", "the", None]
    scores = keyword_scores([0] * 6, keywords, tokens=tokens)
    assert (scores["keyword_majority"], scores["keyword_collisions"]) == (2 / 5, 2 / 5)
    assert collisions(["a b", "a b", "a c", "d"], "aaad") == Collisions(
        keywords=4, distinct=3, colliding=3, majority=3
    )
    words, firsts = ["a b", "c", "a c", "a c", "e f", "e g", "e g", "e g"], "acaaeeee"
    assert ambiguous_tokens(words, firsts) == {"e": ["e g", "e f"], "a": ["a c", "a b"]}
    assert collisions([], []) == Collisions(keywords=0, distinct=0, colliding=0, majority=0)


def test_no_keywords():
    assert all(math.isnan(v) for v in keyword_scores([-1, -1], [None, None]).values())


# ---------------------------------------------------------------- samples


def samples(**columns):
    """One row for each solved mask, as in samples.parquet."""
    words = ["dog"] * 4 + ["cat"] * 4 + [None]
    frame = samples_of(*STACK).assign(
        keyword=words,
        keyword_token=words,
        keyword_rank=[0, 0, 0, 1, 0, 7, -1, 0, -1],
        protocol="teacher_forced",
        has_seg=[True] * 6 + [False] * 3,
        has_key=[True] * 8 + [False],
        slice_style=["short"] * 5 + ["long"] * 4,
    )
    return frame.assign(**columns)


def test_summary_of_samples():
    summary = summarise(samples())
    masks = of_masks(*STACK)
    assert {k: v for k, v in summary.items() if k in masks} == masks
    assert summary["keyword_accuracy"] == 5 / 8
    assert summary["keyword_majority"] == 4 / 8
    assert summary["discrepancy_keyword_right_mask_wrong"] == 1 / 8
    assert summary["discrepancy_keyword_wrong_mask_right"] == 1 / 8
    assert "no_seg_rate" not in summary
    assert json.loads(json.dumps(summary)) == summary


def test_summary_of_generated_samples():
    summary = summarise(samples(protocol="generated"))
    assert summary["no_seg_rate"] == pytest.approx(3 / 9)
    assert summary["no_key_rate"] == pytest.approx(1 / 9)


def test_the_answers_noun_against_the_mask():
    """Five asked: right with a bad mask, right, none, wrong with a good mask, a bad one."""
    own = {
        "keyword": None,
        "keyword_rank": -1,
        "answer_noun": ["dog", "dog", "", "cat", "cat", None, "dog"],
        "target_noun": ["dog", "dog", "dog", "dog", "dog", "dog", None],
        "intersection": [49, 50, 20, 90, 30, 0, 0],
    }
    shown = {"union": 100, "target_rle": rle(np.ones((10, 10))), "height": 10, "width": 10}
    frame = pd.DataFrame(own).assign(**shown, has_seg=True, has_key=False, key_asked=False)
    scores = summarise(frame.assign(protocol="generated"))
    assert {k: v for k, v in scores.items() if k.startswith("noun")} == {
        "noun_accuracy": 2 / 5,
        "noun_right_mask_wrong": 1 / 5,
        "noun_wrong_mask_right": 1 / 5,
    }
    unasked = frame.assign(protocol="generated", answer_noun=None)
    for other in (unasked, frame.assign(protocol="teacher_forced")):
        assert not [name for name in summarise(other) if name.startswith("noun")]


def test_summary_survives_parquet(tmp_path):
    samples().to_parquet(tmp_path / "samples.parquet")
    assert summarise(pd.read_parquet(tmp_path / "samples.parquet")) == summarise(samples())


def test_summary_by_slice():
    frame = samples()
    by_style = summarise_by(frame, "style")
    assert list(by_style) == ["long", "short"]
    assert by_style["short"] == summarise(frame[:5])
    assert by_style["long"] == summarise(frame[5:])
    assert sum(part["examples"] for part in by_style.values()) == 9


def test_samples_that_cannot_be_summed_up():
    frame = samples()
    with pytest.raises(ValueError, match="no slice 'size'; they have: style"):
        summarise_by(frame, "size")
    with pytest.raises(ValueError, match="no column target_rle, union"):
        summarise(frame.drop(columns=["union", "target_rle"]))
    with pytest.raises(ValueError, match="no samples"):
        summarise(frame[:0])
    both = pd.concat([frame, samples(protocol="generated")])
    with pytest.raises(ValueError, match=r"several protocols \(teacher_forced, generated\)"):
        summarise(both)
