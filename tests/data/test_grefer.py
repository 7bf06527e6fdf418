import json
import pickle

import numpy as np
import pytest

from keyseg.data import grefer
from keyseg.data.files import DataError, Problems

SQUARE, OTHER = [1, 1, 4, 1, 4, 4, 1, 4], [3, 3, 8, 3, 8, 6, 3, 6]


@pytest.fixture
def gref(refer_folder):
    """Image 7 has two dogs that overlap and a cat as a crowd; the refs name them in turn."""
    f = refer_folder
    one = f.annotations[0]
    f.annotations += [
        one | {"id": 207, "segmentation": [OTHER]},
        one
        | {"id": 307, "category_id": 17, "iscrowd": 1, "area": 3}
        | {"segmentation": {"counts": [9, 3, 68], "size": [8, 10]}},
    ]
    f.targets = [[107, 207], [107, 307], [107], [-1], []]
    root = f.write("grefcoco")
    content = json.loads((root / "grefcoco/instances.json").read_text())
    content["categories"].append({"id": 17, "name": "cat"})
    (root / "grefcoco/instances.json").write_text(json.dumps(content))
    refs = [
        {"ref_id": i, "ann_id": t, "category_id": [18], "image_id": 7, "split": "val"}
        | {"sentences": [{"sent": f"number {i}", "exist": bool(t)}], "no_target": t == []}
        for i, t in enumerate(f.targets)
    ]
    f.refs = refs
    write_refs(root, refs)
    return f


def write_refs(root, refs):
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(refs))


def test_several_targets_and_none(gref):
    both, mixed, one, none, empty = grefer.read(gref.root, "val")
    dogs = np.zeros((8, 10), np.uint8)
    dogs[1:4, 1:4] = 1
    single = dogs.copy()
    dogs[3:6, 3:8] = 1
    np.testing.assert_array_equal(both.mask(), dogs)
    np.testing.assert_array_equal(mixed.mask(), single, "a crowd beside a target is none")
    np.testing.assert_array_equal(one.mask(), single)
    assert not none.mask().any()
    assert not empty.mask().any()
    examples = (both, mixed, one, none, empty)
    assert [e.keyword for e in examples] == ["dog", "dog", "dog", None, None]
    found = [e.slices["targets"] for e in examples]
    assert found == ["several", "one", "one", "none", "none"]
    assert none.slices["size"] == "empty"
    assert {e.image_id for e in examples} == {"train2014/COCO_train2014_000000000007"}
    assert both.id == "grefcoco/val/0-0"


def test_targets_of_several_categories_have_no_common_name(gref):
    gref.annotations[1] |= {"image_id": 7, "category_id": 17}
    content = json.loads((gref.root / "grefcoco/instances.json").read_text())
    content["annotations"] = gref.annotations
    (gref.root / "grefcoco/instances.json").write_text(json.dumps(content))
    write_refs(gref.root, [gref.refs[0] | {"ann_id": [107, 108]}])
    (example,) = grefer.read(gref.root, "val")
    assert (example.keyword, example.text) == (None, None)
    (example,) = grefer.read(gref.root, "val", keyword="head_noun")
    assert (example.keyword, example.text) == (None, "the target"), "number 0 names nothing"


def test_a_pickle_of_refs_comes_first_and_is_read_as_data(gref):
    (gref.root / "grefcoco/grefs(unc).p").write_bytes(pickle.dumps(gref.refs[:1]))
    assert len(grefer.read(gref.root, "val")) == 1
    (gref.root / "grefcoco/grefs(unc).p").write_bytes(pickle.dumps(print))
    with pytest.raises(DataError, match=r"builtins\.print"):
        grefer.read(gref.root, "val")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ann_id": [107, 999]}, "ref 0: annotation 999 is not in"),
        ({"ann_id": [107, 108]}, "annotation 108 is on image 8, not its"),
        ({"ann_id": None}, "ann_id is None"),
        ({"image_id": 99}, "ref 0 is on image 99, which is not listed"),
        ({"sentences": []}, "an empty sentence, or none"),
    ],
)
def test_broken_refs(gref, change, match):
    write_refs(gref.root, [gref.refs[0] | change, gref.refs[2]])
    with pytest.raises(DataError, match=match):
        grefer.read(gref.root, "val")
    problems: Problems = []
    (left,) = grefer.read(gref.root, "val", problems=problems)
    assert left.query == "number 2"
    assert len(problems) == 1


def test_missing_files(gref):
    (gref.root / "grefcoco/grefs(unc).json").unlink()
    with pytest.raises(DataError, match=r"grefs\(unc\)\.json.*henghuiding"):
        grefer.read(gref.root, "val")


def test_a_damaged_file_is_asked_for_at_its_own_page(gref):
    write_refs(gref.root, [{"ann_id": 1}])
    with pytest.raises(DataError, match=r"grefs\(unc\)\.json: a list of refs.*henghuiding"):
        grefer.read(gref.root, "val")
