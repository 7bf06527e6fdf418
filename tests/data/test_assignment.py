"""Masks and targets of one query, matched: cases solved by hand."""

import itertools
import json

import numpy as np
import pytest

from keyseg.data.assignment import assign, assign_masks, of_each
from keyseg.data.masks import decode_rle


def row(text):
    """One row of pixels: "1" set, "x" void, "." not."""
    return np.array([[{"1": 1, "x": 255}.get(c, 0) for c in text]], np.uint8)


def masks(*texts):
    return [row(text) == 1 for text in texts]


def targets(*texts):
    return [row(text) for text in texts]


@pytest.mark.parametrize(
    ("predicted", "wanted", "matches", "iou", "intersection", "union"),
    [
        # 2/3 and 3/4.
        (("111...", "...111"), ("11....", "..1111"), [0, 1], 2 / 3 + 3 / 4, 5, 7),
        # In another order.
        (("....11", "11...."), ("11....", "....11"), [1, 0], 2.0, 4, 4),
        # Fewer predictions: what is left of the targets is in the union alone.
        (("11....",), ("....11", "11...."), [1], 1.0, 2, 4),
        # More predictions: the one without a partner is held against nothing.
        (("11....", ".....1", "....1."), ("11....",), [0, -1, -1], 1.0, 2, 4),
        # Nothing predicted, and no target.
        ((), ("11....",), [], 0.0, 0, 2),
        (("11....",), (), [-1], 0.0, 0, 2),
        ((), (), [], 0.0, 0, 0),
        # An empty mask takes a place; with an empty target it is right.
        (("......",), ("11....",), [0], 0.0, 0, 2),
        (("......",), ("......",), [0], 1.0, 0, 0),
        # Ties: masks and targets keep their order.
        (("11....", "11...."), ("11....", "11...."), [0, 1], 2.0, 4, 4),
        (("1.....", "..1..."), ("....1.", ".....1"), [0, 1], 0.0, 0, 4),
        (("11....", "11....", "11...."), ("11....",), [0, -1, -1], 1.0, 2, 6),
        (("11....",), ("11....", "11...."), [0], 1.0, 2, 4),
        # Void pixels of a target count nowhere.
        (("111...",), ("11x...",), [0], 1.0, 2, 2),
        (("111...", "..1..."), ("11x...",), [0, -1], 1.0, 2, 2),
    ],
)
def test_by_hand(predicted, wanted, matches, iou, intersection, union):
    found = assign_masks(masks(*predicted), targets(*wanted))
    assert found.matches == matches
    assert found.iou == pytest.approx(iou, abs=1e-12)
    assert (found.intersection, found.union) == (intersection, union)


def test_a_greedy_choice_would_be_worse():
    """Mask 0 fits target 0 best of all, but mask 1 fits nothing else."""
    both, either = [[4, 3], [3, 0]], [[5, 5], [5, 9]]
    found = assign(both, either, [4, 4], [5, 5])
    assert found.matches == [1, 0]
    assert found.iou == pytest.approx(6 / 5)


def test_the_sum_is_the_highest_of_all_pairings():
    rng = np.random.default_rng(0)
    for _ in range(30):
        p, t = rng.integers(1, 5, 2)
        either = rng.integers(5, 20, (p, t))
        both = rng.integers(0, 6, (p, t))
        found = assign(both, either, np.full(p, 20), np.full(t, 20))
        few, many = sorted((p, t))
        iou = both / either if p <= t else (both / either).T
        best = max(
            sum(iou[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(int(many)), int(few))
        )
        assert found.iou == pytest.approx(best)
        assert sum(m >= 0 for m in found.matches) == few


def test_what_is_stored():
    found = of_each(masks("11....", "....11"), targets("....11"))
    assert (found["n_masks"], found["n_targets"], found["matches"]) == (2, 1, "[-1, 0]")
    assert (found["matched_iou"], found["matched_intersection"]) == (1.0, 2)
    assert found["matched_union"] == 4
    drawn = [decode_rle(code, 1, 6) for code in json.loads(found["masks_rle"])]
    np.testing.assert_array_equal(np.stack(drawn), [row("11...."), row("....11")])
    assert of_each([], [])["masks_rle"] == "[]"
