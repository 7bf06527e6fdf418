"""Whose KEY the control gets: another image's, another category's, the same whatever is run."""

import random
from pathlib import Path

import numpy as np
import pytest

from keyseg.data.derangement import derangement
from keyseg.data.example import Example
from keyseg.data.files import DataError


def example(name, image, keyword):
    return Example(
        id=name,
        image=Path(f"{image}.jpg"),
        image_id=image,
        query="query",
        is_sentence=False,
        keyword=keyword,
        text=None,
        slices={},
        load_mask=lambda: np.zeros((2, 2), np.uint8),
    )


def split(images, per_image, categories, seed=0):
    """Expressions; neighbours of an image often share the category, as those of a target do."""
    rng = random.Random(seed)
    return [
        example(
            f"{i}-{k}", f"image{i}", f"thing{rng.randrange(categories)}" if categories else None
        )
        for i in range(images)
        for k in range(per_image)
    ]


@pytest.mark.parametrize(
    ("images", "per_image", "categories"),
    [(2, 1, 2), (2, 3, 0), (3, 4, 5), (12, 5, 8), (40, 3, 2), (300, 7, 40)],
)
def test_every_one_is_given_once_to_another_image(images, per_image, categories):
    examples = split(images, per_image, categories)
    found = derangement(examples)
    assert found.keys() == {e.id for e in examples}
    assert sorted(other.id for other in found.values()) == sorted(found)
    by_id = {e.id: e for e in examples}
    assert all(by_id[name].image_id != other.image_id for name, other in found.items())


def test_of_another_category_where_there_is_one():
    for seed in range(5):
        examples = split(60, 4, 6, seed)
        by_id = {e.id: e for e in examples}
        found = derangement(examples)
        assert all(by_id[name].keyword != other.keyword for name, other in found.items())


def test_a_category_of_more_than_half_keeps_as_few_as_must_be():
    """Ten balls and four cups, each on an image of its own: six balls have to meet a ball."""
    examples = [example(f"b{i}", f"b{i}", "ball") for i in range(10)]
    examples += [example(f"c{i}", f"c{i}", "cup") for i in range(4)]
    by_id = {e.id: e for e in examples}
    found = derangement(examples)
    assert sum(by_id[name].keyword == other.keyword for name, other in found.items()) == 6


def test_the_order_of_the_examples_does_not_matter():
    examples = split(30, 4, 5)
    other_way = random.Random(1).sample(examples, len(examples))
    assert derangement(examples) == derangement(other_way)


def test_a_split_of_one_image_has_none():
    with pytest.raises(DataError, match=r"image image0 has 4 of 4 expressions"):
        derangement(split(1, 4, 2))
