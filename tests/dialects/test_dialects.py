"""Every dialect on cases solved by hand, and on the traps that make numbers differ."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from keyseg.data.files import DataError
from keyseg.data.masks import CocoMask, encode_rle
from keyseg.dialects.dialect import Areas
from keyseg.dialects.paired import difference
from keyseg.dialects.score import dialects, score, seen

ALL = dialects()


def row(text):
    """One row of pixels: "1" set, "." not."""
    return np.array([[c == "1" for c in text]])


def counted(name, predicted, target, ignored="......"):
    return ALL[name].count(Areas.of(row(predicted), row(target), row(ignored)))


def test_the_dialects_are_the_files():
    assert set(ALL) == {"gsva", "keyseg", "lisa", "muse_det", "rela", "rref", "segzero", "unipixel"}
    assert all(d.source and d.used_by for d in ALL.values())


@pytest.mark.parametrize("name", sorted(ALL))
def test_half_of_a_target_without_anything_odd_is_the_same_everywhere(name):
    found = counted(name, "11....", "1111..")
    assert (found.iou, found.intersection, found.union) == (0.5, 2, 4)


@pytest.mark.parametrize(
    ("name", "iou", "union"),
    [("lisa", 1.0, 2), ("keyseg", 1.0, 2), ("segzero", 2 / 6, 6), ("unipixel", 1.0, 2)],
)
def test_a_perfect_mask_beside_pixels_to_ignore(name, iou, union):
    """Seg-Zero's copies of ReasonSeg make them part of the target."""
    found = counted(name, "11....", "11....", "..1111")
    assert (found.iou, found.union) == (pytest.approx(iou), union)


@pytest.mark.parametrize(
    ("name", "iou"), [("lisa", 1.0), ("keyseg", 1.0), ("segzero", 1.0), ("unipixel", 2 / 6)]
)
def test_a_mask_that_covers_the_pixels_to_ignore(name, iou):
    assert counted(name, "111111", "11....", "..1111").iou == pytest.approx(iou)


@pytest.mark.parametrize(
    ("name", "iou"),
    [("lisa", 1.0), ("keyseg", 1.0), ("segzero", 0.0), ("rela", 1.0), ("gsva", 1.0), ("rref", 1.0)],
)
def test_nothing_on_nothing(name, iou):
    found = counted(name, "......", "......")
    assert (found.iou, found.union, found.predicts) == (iou, 0, False)


@pytest.mark.parametrize(("name", "iou"), [("lisa", 1.0), ("segzero", 0.0), ("unipixel", 0.0)])
def test_only_pixels_to_ignore_are_predicted_for_an_empty_target(name, iou):
    """Under LISA's rule that is nothing on nothing, under UniPixel's something on nothing."""
    found = counted(name, "1.....", "......", "11....")
    assert found.iou == (0.5 if name == "segzero" else iou)


@pytest.mark.parametrize("name", sorted(ALL))
def test_something_on_nothing_adds_its_pixels_to_the_union(name):
    found = counted(name, "11....", "......")
    assert (found.iou, found.intersection, found.union) == (0.0, 0, 2)


def test_polygons_that_overlap_are_one_target_and_never_a_sum():
    """LISA's refCOCO masks have the value 2 where two polygons overlap, which matches nothing:
    a perfect mask of 6 pixels scores 4 / 6 there. Stored targets are unions, under any dialect."""
    left, right = [0, 0, 4, 0, 4, 1, 0, 1], [2, 0, 6, 0, 6, 1, 2, 1]
    parts = [CocoMask([part], 1, 6)() for part in (left, right)]
    union, summed = CocoMask([left, right], 1, 6)(), parts[0] + parts[1]
    assert summed.tolist() == [[1, 1, 2, 2, 1, 1]]
    perfect, nowhere = union == 1, np.zeros((1, 6), bool)
    for dialect in ALL.values():
        assert dialect.count(Areas.of(perfect, union == 1, nowhere)).iou == 1.0
    as_lisa_sums = ALL["lisa"].count(Areas.of(perfect, summed == 1, nowhere))
    assert as_lisa_sums.iou == pytest.approx(4 / 6)
    assert "summed" in ALL["lisa"].limits


def samples(*rows):
    """(id, predicted, target, ignored) as rows of samples.parquet."""
    return pd.DataFrame(
        {
            "id": [r[0] for r in rows],
            "height": 1,
            "width": 6,
            **{
                name: [encode_rle(row(r[i])) if "1" in r[i] else "" for r in rows]
                for i, name in enumerate(("mask_rle", "target_rle", "ignore_rle"), start=1)
            },
        }
    )


MIX = samples(
    ("ReasonSeg/val/a-0", "11....", "11....", "......"),  # IoU 1
    ("ReasonSeg/val/a-1", "......", "11....", "......"),  # a second wording, missed: 0
    ("ReasonSeg/val/b-0", "111...", "111111", "......"),  # exactly one half
    ("ReasonSeg/val/c-0", "......", "......", "......"),  # no target, left empty
    ("ReasonSeg/val/d-0", "1.....", "......", "......"),  # no target, not left empty
)


def test_which_texts_count():
    found = score(MIX, list(ALL.values()))
    assert found["lisa"]["giou"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found["keyseg"]["giou"] == pytest.approx((1 + 0 + 0.5 + 1 + 0) / 5)
    assert found["segzero"]["giou"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert found["lisa"]["ciou"] == pytest.approx((2 + 3) / (2 + 6 + 1))
    assert found["keyseg"]["ciou"] == pytest.approx((2 + 3) / (2 + 2 + 6 + 1))


def test_of_refer_sets_every_sentence_counts_under_every_dialect():
    """LISA's validation takes the first query of ReasonSeg alone."""
    refer = MIX.assign(id=MIX["id"].str.replace("ReasonSeg/val", "refcoco/val"))
    found = score(refer, list(ALL.values()))
    assert found["lisa"]["giou"] == found["keyseg"]["giou"] == pytest.approx(2.5 / 5)


def test_precision_by_threshold_and_over_whom():
    found = score(MIX, list(ALL.values()))
    assert found["keyseg"]["precision@0.5"] == pytest.approx(2 / 5)  # >, over all
    assert found["rela"]["precision@0.5"] == pytest.approx(2 / 3)  # >=, over those with a target
    assert found["rela"]["precision@0.6"] == pytest.approx(1 / 3)
    assert found["gsva"]["precision@0.5"] == found["rela"]["precision@0.5"]


def test_no_target_is_found_and_targets_are():
    found = score(MIX, [ALL["rela"]])["rela"]
    assert found["n_acc"] == pytest.approx(1 / 2)
    assert found["t_acc"] == pytest.approx(2 / 3)


def test_without_anything_to_divide_by_there_is_no_number():
    found = score(MIX.iloc[:1], [ALL["rela"]])["rela"]
    assert math.isnan(found["n_acc"])
    assert found["t_acc"] == 1.0


TOLD_TWICE = samples(
    ("rrefcoco/val/1-0", "1111..", "1111..", "......"),  # I 4, U 4, IoU 1
    ("rrefcoco/val/1-1", "11....", "1111..", "......"),  # I 2, U 4, IoU 1/2
    ("rrefcoco/val/1-2", "111111", "......", "......"),  # a negative, 6 pixels
    ("rrefcoco/val/1-3", "......", "......", "......"),  # a negative, left empty
    ("rrefcoco/val/2-0", "1.....", "1111..", "......"),  # I 1, U 4, IoU 1/4
    ("rrefcoco/val/2-1", "......", "......", "......"),  # a negative, left empty
)


def test_rref_scores_a_target_with_all_that_is_said_of_it():
    found = score(TOLD_TWICE, [ALL["rref"]])["rref"]
    assert found["giou"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["ciou"] == pytest.approx((4 + 2 + 1) / (4 + 4 + 4))
    assert found["riou"] == pytest.approx((6 / (8 + 6) + 1 / 4) / 2)
    assert found["r"] == pytest.approx((1 / 2 + 1) / 2)
    # In print a running sum meets the threshold: 1, 1 + 1/2, and 1/4 of the other target.
    assert found["precision@0.9"] == pytest.approx(2 / 3)


def test_rref_weighs_targets_and_the_weights_are_those_of_its_giou():
    frame = seen(TOLD_TWICE, [ALL["rref"]])["rref"]
    weights = ALL["rref"].weights(frame)
    assert weights.tolist() == [0.5, 0.5, 0, 0, 1, 0]
    assert np.average(frame["iou"], weights=weights) == pytest.approx(0.5)


def test_two_runs_are_paired_by_example_and_a_run_with_itself_differs_by_exactly_nothing():
    images = pd.Series(["a", "a", "b", "c", "d"], MIX["id"])
    dialect = ALL["keyseg"]
    frame = seen(MIX, [dialect])["keyseg"]
    assert difference(dialect, frame, frame, images) == (0.0, 0.0, 0.0, 5)
    better = seen(MIX.assign(mask_rle=MIX["target_rle"]), [dialect])["keyseg"]
    found = difference(dialect, better.iloc[1:3], frame, images)
    assert found.value == pytest.approx((1 + 0.5) / 2)
    assert (found.examples, found.low > 0) == (2, True)


def test_samples_without_masks_and_damaged_ones_are_named():
    with pytest.raises(DataError, match="no masks to score again: no ignore_rle"):
        score(MIX.drop(columns="ignore_rle"), [ALL["lisa"]])
    for damaged in (
        "zz",
        "02",
        "m:8",
    ):  # no run lengths; too few pixels; a run that leaves the mask
        broken = MIX.assign(mask_rle=[damaged, *MIX["mask_rle"][1:]])
        with pytest.raises(DataError, match="masks of ReasonSeg/val/a-0"):
            score(broken, [ALL["lisa"]])


def query(name, predicted, wanted):
    """A row of a query that may have several targets: its masks and its targets."""
    masks, targets = [row(text) for text in predicted], [row(text) for text in wanted]

    def union(parts):
        return encode_rle(np.logical_or.reduce([row("......"), *parts]))

    return {
        "id": name,
        "height": 1,
        "width": 6,
        "mask_rle": union(masks),
        "target_rle": union(targets),
        "ignore_rle": "",
        "masks_rle": json.dumps([encode_rle(m) for m in masks]),
        "targets_rle": json.dumps([encode_rle(t) for t in targets]),
    }


QUERIES = pd.DataFrame(
    [
        query("muse/val/0.0-0", ["11....", "...1.."], ["...11.", "11...."]),  # IoU 1 and 1/2
        query("muse/val/0.1-0", ["11....", "1....."], ["11...."]),  # one too many, of 1 pixel
        query("muse/val/1.0-0", [], ["111..."]),
        query("muse/val/2.0-0", [], []),
    ]
)


def test_several_targets_by_hand():
    found = score(QUERIES, [ALL["muse_det"]])["muse_det"]
    assert found["giou"] == pytest.approx((1.5 + 1 + 0) / (2 + 2 + 1))
    assert found["ciou"] == pytest.approx((3 + 2) / (4 + 3 + 3))
    assert found["count"] == 0.5
    assert (found["n_acc"], found["t_acc"]) == (1.0, pytest.approx(2 / 3))
    ours = score(QUERIES, [ALL["keyseg"]])["keyseg"]
    assert ours["giou"] == pytest.approx((3 / 4 + 1 + 0 + 1) / 4), "the union of the masks"


def test_queries_of_one_mask_are_no_part_of_it():
    plain = QUERIES.assign(masks_rle=None, targets_rle=None)
    for samples in (plain, QUERIES.drop(columns=["masks_rle", "targets_rle"])):
        assert seen(samples, [ALL["muse_det"]])["muse_det"].empty
        assert math.isnan(score(samples, [ALL["muse_det"]])["muse_det"]["giou"])
    with pytest.raises(DataError, match="masks of muse/val/0"):
        seen(QUERIES.assign(masks_rle='["damaged"]'), [ALL["muse_det"]])


def test_a_query_weighs_by_the_masks_that_its_own_run_has():
    images = QUERIES.set_index("id", drop=False)["id"]
    more = pd.DataFrame([query("muse/val/0.1-0", ["11...."], ["11...."])])
    more = pd.concat([QUERIES.iloc[[0]], more, QUERIES.iloc[2:]])
    frames = [seen(s, [ALL["muse_det"]])["muse_det"] for s in (more, QUERIES)]
    found = difference(ALL["muse_det"], *frames, images)
    assert found.value == pytest.approx(2.5 / 4 - 2.5 / 5)
    assert difference(ALL["muse_det"], frames[0], frames[0], images)[:3] == (0, 0, 0)
