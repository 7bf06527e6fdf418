from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keyseg.data.example import Example, first_or_all, length_slice, scored, size_slice


def example(mask):
    return Example("a", Path("a.jpg"), "a", "the dog", False, "dog", None, {}, lambda: mask)


@pytest.mark.parametrize(
    ("share", "name"),
    [(0, "empty"), (1e-6, "small"), (0.0199, "small"), (0.02, "medium"), (0.1, "large")],
)
def test_size_slice(share, name):
    assert size_slice(share) == name


@pytest.mark.parametrize(
    ("query", "name"),
    [("dog", "short"), ("a b  c", "short"), ("a b c d", "medium"), ("w " * 9, "medium")],
)
def test_length_slice(query, name):
    assert length_slice(query) == name
    assert length_slice("w " * 10) == "long"


def test_first_or_all():
    assert first_or_all("all", ["a", "b"]) == ["a", "b"]
    assert first_or_all("first", ["a", "b"]) == ["a"]
    with pytest.raises(ValueError, match="texts=last: must be one of all, first"):
        first_or_all("last", ["a"])


def test_first_of_every_target():
    examples = [replace(example(None), id=f"set/test/{i}") for i in ("7-0", "7-1", "8-0", "8-10")]
    assert [e.id for e in scored(examples, "first")] == ["set/test/7-0", "set/test/8-0"]
    assert scored(examples, "all") == examples


def test_mask_is_checked():
    good = np.zeros((2, 3), np.uint8)
    assert example(good).mask() is good
    for bad in (good.astype(bool), good[None]):
        with pytest.raises(TypeError, match="mask of a: uint8"):
            example(bad).mask()
