"""Fewer training images: nested, the same for every variant, of refer and reason data alike."""

from itertools import pairwise

import pytest

from keyseg.data.files import DataError
from keyseg.data.fraction import fewer
from keyseg.data.mix import ImageSampler, load


@pytest.fixture(scope="module")
def train(compose_run, scenes_folder):
    counts = "{train: 6, val: 3, test: 3}"
    cfg = compose_run(
        f"data.root={scenes_folder}",
        f"data.prepare.refer={counts}",
        f"data.prepare.reason={counts}",
    )
    return load(cfg.data, "train")


def images(sources):
    return {e.image for source in sources for e in source.examples}


def test_smaller_numbers_are_parts_of_larger_ones(train):
    drawn = [images(fewer(train, count, seed=0)) for count in (1, 3, 7, 12)]
    assert [len(some) for some in drawn] == [1, 3, 7, 12]
    assert all(small < large for small, large in pairwise(drawn))
    assert drawn[-1] == images(train)


def test_a_share_is_so_many_of_all(train):
    assert fewer(train, 0.5, seed=0) == fewer(train, 6, seed=0)
    assert len(images(fewer(train, 0.01, seed=0))) == 1


def test_all_is_as_it_was(train):
    assert fewer(train, "all", seed=0) == train


def test_the_seed_draws_and_nothing_else(train):
    assert images(fewer(train, 4, seed=0)) == images(fewer(train, 4, seed=0))
    assert len({frozenset(images(fewer(train, 4, seed=s))) for s in range(8)}) > 4


def test_all_expressions_of_an_image_come_with_it_in_the_same_order(train):
    few = fewer(train, 5, seed=1)
    for source in few:
        before = next(s for s in train if s.weight == source.weight)
        assert source.examples == [e for e in before.examples if e.image in images(few)]


def test_a_source_without_an_image_is_left_out_and_training_goes_on(train):
    one = fewer(train, 1, seed=0)
    assert len(one) == 1
    assert ImageSampler(one, 0, 2, 2).step(5)


def test_more_than_there_are_is_an_error_with_their_number(train):
    with pytest.raises(DataError, match=r"data\.train_images=13: train has 12 images; .*or all"):
        fewer(train, 13, seed=0)
