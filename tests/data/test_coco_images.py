"""One photograph of COCO, whatever the folder and the name that a data set has it under."""

from pathlib import Path

import pytest

from keyseg.data.coco_images import image_id, photograph


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("train2014/COCO_train2014_000000000009.jpg", "train2014/COCO_train2014_000000000009"),
        ("trainval2014/COCO_val2014_000000000042.jpg", "val2014/COCO_val2014_000000000042"),
        ("images/test/COCO_train2014_000000000009_16.jpg", "train2014/COCO_train2014_000000000009"),
        ("mscoco/images/train2014/9.jpg", "train2014/9"),
        ("coco/train2017/000000000009.jpg", "coco/train2017/000000000009"),
        ("rrsisd/JPEGImages/00009.jpg", "rrsisd/JPEGImages/00009"),
        ("images/test/COCO_of_others.jpg", "images/test/COCO_of_others"),
    ],
)
def test_the_name_that_readers_give(image, name):
    assert image_id(Path("/data", image)) == name
    assert image_id(Path("/data", image), otherwise="other") in (name, "other")


def test_both_divisions_of_coco_have_the_same_photographs():
    new = image_id(Path("coco/train2017/000000000009.jpg"), otherwise="train2017/000000000009")
    old = image_id(Path("train2014/COCO_train2014_000000000009.jpg"))
    assert new != old
    assert photograph(new) == photograph(old) == "COCO 9"
    assert photograph("train2017/000000000019") != photograph(old)
    assert photograph("ReasonSeg/train/9") == "ReasonSeg/train/9"
