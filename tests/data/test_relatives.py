"""Which other expression of an image an intervention takes a state from."""

import random
from pathlib import Path

import numpy as np
import pytest

from keyseg.data.example import VOID, Example
from keyseg.data.relatives import RELATIVES, relatives


def example(name, columns, keyword, *, image="image", query=None):
    """An expression whose target is a slice of the columns of a picture of 2 x 20 pixels."""
    mask = np.zeros((2, 20), np.uint8)
    mask[:, columns] = 1
    return Example(
        id=name,
        image=Path(f"{image}.jpg"),
        image_id=image,
        query=query or name,
        is_sentence=False,
        keyword=keyword,
        text=None,
        slices={},
        load_mask=lambda: mask,
    )


CAR, CAR_AGAIN, PART = slice(0, 10), slice(0, 9), slice(0, 7)
SPLIT = [
    example("car-0", CAR, "car"),
    example("other/car-0", CAR_AGAIN, "car"),  # the same thing, in another data set
    example("wheel-0", PART, "wheel"),  # an IoU of 0.7 with the car: neither it nor another
    example("second-0", slice(12, 16), "car"),
    example("ball-0", slice(17, 20), "ball"),
    example("alone-0", CAR, "car", image="another image"),
]


def names(examples, relation):
    return {name: other.id for name, other in relatives(examples, relation).items()}


def test_masks_tell_which_target_it_is_and_keywords_what_it_is_called():
    assert names(SPLIT, "reworded") == {"car-0": "other/car-0", "other/car-0": "car-0"}
    namesake = names(SPLIT, "namesake")
    assert namesake.keys() == {"car-0", "other/car-0", "second-0"}
    assert namesake["car-0"] == namesake["other/car-0"] == "second-0"
    neighbour = names(SPLIT, "neighbour")
    assert neighbour.keys() == {"car-0", "other/car-0", "wheel-0", "second-0", "ball-0"}
    assert neighbour["car-0"] == "ball-0"
    assert neighbour["wheel-0"] in ("second-0", "ball-0")


def test_a_namesake_elsewhere_is_of_another_image():
    namesake = names(SPLIT, "namesake_elsewhere")
    assert namesake.keys() == {"car-0", "other/car-0", "second-0", "alone-0"}
    assert {namesake[n] for n in namesake if n != "alone-0"} == {"alone-0"}
    assert namesake["alone-0"] in ("car-0", "other/car-0", "second-0")
    many = [example(f"{i}-{k}", CAR, "car", image=f"image{i}") for i in range(9) for k in range(3)]
    others = list(relatives(many, "namesake_elsewhere").values())
    assert len({o.id for o in others}) > 20  # not one for all


def test_the_same_whatever_the_order():
    shuffled = random.Random(0).sample(SPLIT, len(SPLIT))
    for relation in RELATIVES:
        assert names(SPLIT, relation) == names(shuffled, relation)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (example("a-0", CAR, "car", query="the car"), example("b-0", CAR, "car", query="the car")),
        (example("a-0", slice(0, 0), "car"), example("b-0", slice(0, 0), "car")),
        (example("a-0", slice(0, 0), "car"), example("b-0", CAR, "ball")),
        (example("a-0", CAR, None), example("b-0", slice(12, 16), None)),
        (example("a-0", CAR, None), example("b-0", slice(12, 16), "car")),
        (example("a-0", CAR, "car"), example("b-0", CAR, "ball", image="another")),
        (example("a-0", CAR, None), example("b-0", CAR, None, image="another")),
    ],
)
def test_some_have_none(one, other):
    assert all(relatives([one, other], relation) == {} for relation in RELATIVES)


def test_void_is_no_part_of_a_target():
    mask = np.full((2, 20), VOID, np.uint8)
    mask[:, CAR] = 1
    void = Example(**(vars(SPLIT[0]) | {"id": "void-0", "query": "q", "load_mask": lambda: mask}))
    assert names([SPLIT[0], void], "reworded") == {"car-0": "void-0", "void-0": "car-0"}
