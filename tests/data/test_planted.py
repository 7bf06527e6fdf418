"""Faults that are planted: how many, which ones, and of what size."""

from pathlib import Path

import numpy as np
import pytest

from keyseg.data.example import VOID, Example
from keyseg.data.mix import Source
from keyseg.data.planted import eroded, is_eroded, with_eroded_targets, with_wrong_masks


def example(image, target, number, column):
    mask = np.zeros((6, 8), np.uint8)
    mask[:, column] = 1
    path = Path(f"{image}.png")
    name = f"scenes/train/{target}-{number}"
    return Example(name, path, image, "q", False, None, None, {}, mask.copy)


@pytest.fixture
def sources():
    """40 images with two targets of two expressions; 20 images with one target."""
    two = [example(f"a{i}", f"{i}{t}", n, 2 * t) for i in range(40) for t in (0, 1) for n in (0, 1)]
    return [Source(two, 2.0), Source([example(f"b{i}", f"b{i}", 0, 0) for i in range(20)], 1.0)]


def wrong(before, after):
    """Ids of examples whose mask is another one."""
    pairs = [
        (e, o)
        for s, t in zip(before, after, strict=True)
        for e, o in zip(s.examples, t.examples, strict=True)
    ]
    return {e.id for e, o in pairs if not np.array_equal(e.mask(), o.mask())}


def test_so_many_masks_are_wrong_and_nothing_else_changes(sources):
    made = with_wrong_masks(sources, 0.1, seed=0)
    assert len(wrong(sources, made)) == 18  # of 180
    assert [s.weight for s in made] == [2.0, 1.0]
    for before, after in zip(sources, made, strict=True):
        assert [e.id for e in before.examples] == [e.id for e in after.examples]
    assert with_wrong_masks(sources, 0.1, seed=0)[0].examples != sources[0].examples
    fewer = wrong(sources, with_wrong_masks(sources, 0.05, seed=0))
    assert fewer < wrong(sources, made)
    assert wrong(sources, with_wrong_masks(sources, 0.1, seed=1)) != wrong(sources, made)


def test_a_wrong_mask_is_that_of_another_target_else_its_own_mirrored(sources):
    every = with_wrong_masks(sources, 1.0, seed=0)
    for e in every[0].examples:
        column = 0 if e.id[:-2].endswith("1") else 2
        assert e.mask()[:, column].all()
        assert e.mask().sum() == 6
    assert all(e.mask()[:, 7].all() and e.mask().sum() == 6 for e in every[1].examples)


def test_a_thing_that_two_data_sets_name_is_no_other_target():
    """Data sets that share their images have an id each for the same thing."""
    both = [Source([example("a", f"{s}/0", 0, 0), example("a", f"{s}/1", 0, 4)], 1.0) for s in "xy"]
    for source in with_wrong_masks(both, 1.0, seed=0):
        assert [e.mask()[0].argmax() for e in source.examples] == [4, 0]


def test_erosion_takes_so_many_pixels_from_every_edge():
    mask = np.zeros((9, 12), np.uint8)
    mask[1:8, 1:11] = 1
    mask[0] = VOID
    left = eroded(mask, 2)
    assert (left == 1).sum() == 3 * 6
    assert (left[3:6, 3:9] == 1).all()
    assert (left[0] == VOID).all()
    assert not (eroded(mask, 4) == 1).any()


def test_the_same_targets_are_eroded_in_every_cell_and_about_so_many(sources):
    examples = sources[0].examples
    made = with_eroded_targets(examples, 0.25, 1)
    touched = {
        e.id for e, o in zip(examples, made, strict=True) if e.mask().sum() != o.mask().sum()
    }
    assert touched == {e.id for e in examples if is_eroded(e.id, 0.25)}
    assert 0.15 < len(touched) / len(examples) < 0.35
    share = np.mean([is_eroded(f"an/id/{n}-0", 0.02) for n in range(20000)])
    assert share == pytest.approx(0.02, abs=0.004)
    assert not any(is_eroded(e.id, 0.0) for e in examples)
    assert all(is_eroded(e.id, 1.0) for e in examples)
