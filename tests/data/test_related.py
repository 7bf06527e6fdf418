"""Data sets written like refCOCO or beside it: false premises, Ref-ZOM, RRSIS-D, RefCOCOm."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keyseg.data import grefer, refcocom, refer
from keyseg.data.files import DataError


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ({"is_false_premise": False}, {"is_false_premise": True}),
        ({"exist": True}, {"exist": False}),
    ],
)  # FP-RefCOCO, R-RefCOCO
def test_a_sentence_that_names_nothing_has_an_empty_mask(refer_folder, true, false):
    refer_folder.refs[2]["sentences"] = [
        {"sent": "left dog", **true},
        {"sent": "left cat", "gt_sent": "left dog", **false},
    ]
    root = refer_folder.write("fprefcoco", "x")
    there, absent = refer.read(root, "fprefcoco", "x", "testA")
    assert (there.keyword, there.slices["targets"], there.slices["size"]) == ("dog", "one", "large")
    assert (absent.keyword, absent.slices["targets"]) == (None, "none")
    assert (there.mask().sum(), absent.mask().sum(), absent.mask().shape) == (9, 0, (8, 10))
    assert absent.slices["size"] == "empty"
    assert (there.id, absent.id) == ("fprefcoco/testA/1009-0", "fprefcoco/testA/1009-1")
    named = refer.read(root, "fprefcoco", "x", "testA", keyword="expression")
    assert [e.text for e in named] == ["the dog", "the target"]


def test_where_nobody_says_so_every_sentence_names_its_target(refer_folder):
    for example in refer.read(refer_folder.write(), "refcoco", "unc", "train"):
        assert "targets" not in example.slices


def test_zero_of_ref_zom_is_no_target_whatever_its_annotation_is(refer_folder):
    f = refer_folder
    f.refs = [
        {"ref_id": 1, "ann_id": 109, "image_id": 7, "split": "test", "source": "zero"},
        {"ref_id": 2, "ann_id": [107], "image_id": 7, "split": "test", "source": "not_zero"},
    ]
    for ref in f.refs:
        ref["sentences"] = [{"sent": "the dog"}]
    root = f.write("ref-zom", "final")
    merged = "images/mscoco/images/trainval2014"
    shutil.copytree(f.image_folder, root / merged)
    zero, one = grefer.read(root, "test", "ref-zom", "final", images=merged, refs="refs")
    assert (zero.slices["targets"], one.slices["targets"]) == ("none", "one")
    assert (zero.mask().sum(), one.mask().sum()) == (0, 9)
    # The same picture as in refCOCO, so that training on it is seen.
    assert one.image_id == "train2014/COCO_train2014_000000000007"


def test_images_of_a_folder_of_its_own(refer_folder):
    root = refer_folder.write("rrsisd")
    shutil.copytree(refer_folder.image_folder, root / "images/rrsisd/JPEGImages")
    for old, new in (("COCO_train2014_000000000007.jpg", "00007.jpg"),):
        (root / "images/rrsisd/JPEGImages" / old).rename(root / "images/rrsisd/JPEGImages" / new)
    refer_folder.images[0]["file_name"] = "00007.jpg"
    refer_folder.write("rrsisd")
    first, *_ = refer.read(root, "rrsisd", "unc", "train", images="images/rrsisd/JPEGImages")
    assert first.image == root / "images/rrsisd/JPEGImages/00007.jpg"
    assert first.image_id == "rrsisd/JPEGImages/00007"
    assert refer.published("test", "rrsisd", "unc") == 3481


@pytest.fixture
def parts(refer_folder):
    root = refer_folder.write()
    folder = root / "RefCOCOm"
    (folder / "annotations").mkdir(parents=True)
    (folder / "masks").mkdir()
    Image.fromarray(np.eye(8, 10, dtype=np.uint8) * 255).save(folder / "masks/5.png")
    entry = {
        "img_name": "COCO_train2014_000000000007.jpg",
        "segment_id": 5,
        "sentences": [{"sent": "the ear of the dog"}, {"sent": "left ear"}],
    }

    def write(**more):
        (folder / "annotations/val.json").write_text(json.dumps([entry | more]))
        return root

    return write


def test_parts(parts):
    first, second = refcocom.read(parts(), "val")
    assert (first.id, second.id) == ("RefCOCOm/val/5-0", "RefCOCOm/val/5-1")
    assert (first.keyword, first.image_id) == ("ear", "train2014/COCO_train2014_000000000007")
    np.testing.assert_array_equal(first.mask(), np.eye(8, 10))
    assert [e.keyword for e in refcocom.read(parts(), "val", keyword="category")] == [None, None]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"segment_id": 6}, "entry 0: its mask is missing"),
        ({"segment_id": "../masks/5"}, "a name of a file expected"),
        ({"img_name": "9.jpg"}, "1 of 1 images are missing"),
        ({"img_name": None}, "entry 0: no 'img_name'"),
        ({"sentences": []}, "entry 0: an empty sentence, or none"),
    ],
)
def test_a_broken_entry_is_named(parts, more, message):
    with pytest.raises(DataError, match=message):
        refcocom.read(parts(**more), "val")


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (np.zeros((8, 11), np.uint8), r"5.png is \(8, 11\) .*, its image \(8, 10\)"),
        (np.zeros((8, 10, 3), np.uint8), "5.png: a mask has one channel, not 3"),
    ],
)
def test_a_mask_of_another_kind_is_named(parts, drawn, message):
    root = parts()
    Image.fromarray(drawn).save(root / "RefCOCOm/masks/5.png")
    with pytest.raises(DataError, match=message):
        refcocom.read(root, "val")
