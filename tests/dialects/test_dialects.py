"""Every dialect on cases solved by hand, and on the traps that make numbers differ."""

import math

import numpy as np
import pandas as pd
import pytest

from keyseg.data.files import DataError
from keyseg.data.masks import encode_rle
from keyseg.dialects.dialect import Masks
from keyseg.dialects.score import dialects, score

ALL = dialects()


def row(text):
    """One row of pixels: "1" set, "." not."""
    return np.array([[c == "1" for c in text]])


def counted(name, predicted, target, ignored="......"):
    return ALL[name].count(Masks(row(predicted), row(target), row(ignored)))


def test_the_dialects_are_the_files():
    assert set(ALL) == {"gsva", "keyseg", "lisa", "rela", "segzero", "unipixel"}
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
    [("lisa", 1.0), ("keyseg", 1.0), ("segzero", 0.0), ("rela", 1.0), ("gsva", 1.0)],
)
def test_nothing_on_nothing(name, iou):
    found = counted(name, "......", "......")
    assert (found.iou, found.union) == (iou, 0)


@pytest.mark.parametrize("name", sorted(ALL))
def test_something_on_nothing_adds_its_pixels_to_the_union(name):
    found = counted(name, "11....", "......")
    assert (found.iou, found.intersection, found.union) == (0.0, 0, 2)


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
    ("a-0", "11....", "11....", "......"),  # IoU 1
    ("a-1", "......", "11....", "......"),  # a second wording, missed: 0
    ("b-0", "111...", "111111", "......"),  # exactly one half
    ("c-0", "......", "......", "......"),  # no target, left empty
    ("d-0", "1.....", "......", "......"),  # no target, not left empty
)


def test_which_texts_count():
    found = score(MIX, list(ALL.values()))
    assert found["lisa"]["giou"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found["keyseg"]["giou"] == pytest.approx((1 + 0 + 0.5 + 1 + 0) / 5)
    assert found["segzero"]["giou"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert found["lisa"]["ciou"] == pytest.approx((2 + 3) / (2 + 6 + 1))
    assert found["keyseg"]["ciou"] == pytest.approx((2 + 3) / (2 + 2 + 6 + 1))


def test_precision_by_threshold_and_over_whom():
    found = score(MIX, list(ALL.values()))
    assert found["keyseg"]["precision@0.5"] == pytest.approx(2 / 5)  # >, over all
    assert found["rela"]["precision@0.5"] == pytest.approx(2 / 3)  # >=, over those with a target
    assert found["rela"]["precision@0.6"] == pytest.approx(1 / 3)


def test_no_target_is_found_and_targets_are():
    found = score(MIX, [ALL["rela"]])["rela"]
    assert found["n_acc"] == pytest.approx(1 / 2)
    assert found["t_acc"] == pytest.approx(2 / 3)


def test_without_anything_to_divide_by_there_is_no_number():
    found = score(MIX.iloc[:1], [ALL["rela"]])["rela"]
    assert math.isnan(found["n_acc"])
    assert found["t_acc"] == 1.0


def test_samples_without_masks_and_damaged_ones_are_named():
    with pytest.raises(DataError, match="no masks to score again: no ignore_rle"):
        score(MIX.drop(columns="ignore_rle"), [ALL["lisa"]])
    broken = MIX.assign(mask_rle=["zz", *MIX["mask_rle"][1:]])
    with pytest.raises(DataError, match="masks of a-0"):
        score(broken, [ALL["lisa"]])
