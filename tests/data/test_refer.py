import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from keyseg.data import masks, refer
from keyseg.data.files import DataError


def test_read(refer_folder):
    root = refer_folder.write()
    examples = refer.read(root, "refcoco", "unc", "train", slices={"style": "short"})
    assert [e.id for e in examples] == [
        "refcoco/train/1007-0",
        "refcoco/train/1007-1",
        "refcoco/train/1008-0",
        "refcoco/train/1008-1",
    ]
    first, second = examples[:2]
    assert first.image == refer_folder.image_folder / "COCO_train2014_000000000007.jpg"
    assert first.image_id == second.image_id == "train2014/COCO_train2014_000000000007"
    assert (first.query, second.query) == ("left dog", "the brown dog on a sofa")
    assert (first.keyword, first.text, first.is_sentence) == ("dog", None, False)
    assert first.slices == {
        "dataset": "refcoco",
        "split": "train",
        "size": "large",
        "length": "short",
        "distractors": "0",
        "style": "short",
    }
    assert second.slices["length"] == "medium"
    expected = np.zeros((8, 10), np.uint8)
    expected[1:4, 1:4] = 1
    np.testing.assert_array_equal(first.mask(), expected)


@pytest.mark.parametrize(("others", "name"), [(1, "1"), (2, "2"), (3, "3+"), (7, "3+")])
def test_distractors_are_of_the_same_image_and_category(refer_folder, others, name):
    own = refer_folder.annotations[0]
    alike = [{**own, "id": 200 + i} for i in range(others)]
    strangers = [{**own, "id": 300, "image_id": 9}, {**own, "id": 301, "category_id": 3}]
    refer_folder.annotations += [*alike, *strangers]
    examples = refer.read(refer_folder.write(), "refcoco", "unc", "train")
    assert [e.slices["distractors"] for e in examples] == [name, name, "0", "0"]


def test_first_sentence_only(refer_folder):
    examples = refer.read(refer_folder.write(), "refcoco", "unc", "train", texts="first")
    assert [e.query for e in examples] == ["left dog", "left dog"]


def test_images_are_shared_between_data_sets(refer_folder):
    refer_folder.write("refcoco")
    root = refer_folder.write("refcocog", "umd")
    one = refer.read(root, "refcoco", "unc", "testA")
    two = refer.read(root, "refcocog", "umd", "testA")
    assert {e.image_id for e in one} == {e.image_id for e in two}
    assert not {e.id for e in one} & {e.id for e in two}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_protocols(refer_folder, protocol):
    root = refer_folder.write(protocol=protocol)
    assert len(refer.read(root, "refcoco", "unc", "testA")) == 2


def test_parts_and_crowds(refer_folder):
    runs = {"counts": [9, 3, 68], "size": [8, 10]}
    refer_folder.annotations[0]["segmentation"] = [
        [1, 1, 4, 1, 4, 4, 1, 4],
        [3, 3, 8, 3, 8, 6, 3, 6],
    ]
    refer_folder.annotations[1] |= {"iscrowd": 1, "segmentation": runs, "area": 3}
    parts, _, crowd, _ = refer.read(refer_folder.write(), "refcoco", "unc", "train")
    expected = np.zeros((8, 10), np.uint8)
    expected[1:4, 1:4] = 1
    expected[3:6, 3:8] = 1
    np.testing.assert_array_equal(parts.mask(), expected)
    expected[:] = 0
    expected[1:4, 1] = 1
    np.testing.assert_array_equal(crowd.mask(), expected)
    assert crowd.slices["size"] == "medium"


def test_no_mask_is_drawn_to_read(refer_folder, monkeypatch):
    def draw(*_):
        raise AssertionError("a mask was drawn")

    monkeypatch.setattr(masks.CocoMask, "__call__", draw)
    assert len(refer.read(refer_folder.write(), "refcoco", "unc", "train")) == 4


def test_without_area_the_mask_tells_the_size(refer_folder):
    for annotation in refer_folder.annotations:
        del annotation["area"]
    examples = refer.read(refer_folder.write(), "refcoco", "unc", "train")
    assert examples[0].slices["size"] == "large"


def test_an_example_travels_to_a_worker(refer_folder):
    examples = refer.read(refer_folder.write(), "refcoco", "unc", "train")
    there = pickle.loads(pickle.dumps(examples))
    assert there == examples
    np.testing.assert_array_equal(there[0].mask(), examples[0].mask())


def test_real_annotations(refer_folder, samples):
    content = json.loads((samples / "refer_seg/instances_sample.json").read_text())
    refer_folder.images, refer_folder.annotations = content["images"], content["annotations"]
    for annotation in content["annotations"]:
        annotation["category_id"] = 18
    refer_folder.refs = [
        {**refer_folder.refs[0], "ref_id": i, "ann_id": a["id"], "image_id": a["image_id"]}
        for i, a in enumerate(content["annotations"])
    ]
    examples = refer.read(refer_folder.write(), "refcoco", "unc", "train", texts="first")
    assert len(examples) == 6
    for example, annotation in zip(examples, content["annotations"], strict=True):
        mask = example.mask()
        with Image.open(example.image) as image:
            assert mask.shape == (image.height, image.width)
        assert mask.sum() == pytest.approx(annotation["area"], rel=0.05)
    assert {e.slices["size"] for e in examples} <= {"small", "medium", "large"}


# ---------------------------------------------------------------- bad input


def fails(folder, match, *, split="train", dataset="refcoco", split_by="unc"):
    root = folder.write()
    with pytest.raises(DataError, match=match) as caught:
        refer.read(root, dataset, split_by, split)
    return str(caught.value)


def test_missing_folders_and_files(refer_folder, tmp_path):
    message = fails(refer_folder, r"data set 'refcoco\+' is missing", dataset="refcoco+")
    assert "holds images, refcoco" in message
    assert refer._PAGE in message
    message = fails(refer_folder, r"refs\(google\)\.p", split_by="google")
    assert "holds instances.json, refs(unc).p" in message
    (refer_folder.root / "refcoco" / "instances.json").unlink()
    with pytest.raises(DataError, match=r"annotations of 'refcoco' is missing"):
        refer.read(refer_folder.root, "refcoco", "unc", "train")
    with pytest.raises(DataError, match=r"is missing: .*nowhere"):
        refer.read(tmp_path / "nowhere", "refcoco", "unc", "train")


def test_missing_image_folder(refer_folder):
    root = refer_folder.write()
    (root / "images").rename(root / "pictures")
    with pytest.raises(DataError, match=r"folder of images is missing.*cocodataset"):
        refer.read(root, "refcoco", "unc", "train")


def test_missing_images(refer_folder):
    root = refer_folder.write()
    (refer_folder.image_folder / "COCO_train2014_000000000008.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images .*train2014: COCO_train2014_0+8\.jpg\."):
        refer.read(root, "refcoco", "unc", "train")
    assert refer.read(root, "refcoco", "unc", "testA"), "an image of another split is not missed"


def test_unknown_and_empty_splits(refer_folder):
    fails(
        refer_folder, r"no split 'testB'; it has: train \(2 refs\), testA \(1 refs\)", split="testB"
    )
    refer_folder.refs = []
    fails(refer_folder, "no split 'train'; it has: none")


def test_ref_without_annotation(refer_folder):
    del refer_folder.annotations[1]
    message = fails(refer_folder, r"ref 1008: annotation 108 is not in .*instances\.json")
    assert "refs(unc).p" in message


@pytest.mark.parametrize("number", [[107, 108], "107", None])
def test_ref_that_names_no_single_annotation(refer_folder, number):
    refer_folder.refs[0]["ann_id"] = number
    fails(refer_folder, "ref 1007: ann_id is .*not the number of one annotation")


def test_a_refs_category_serves_where_its_annotation_has_none(refer_folder):
    del refer_folder.annotations[0]["category_id"]
    first, *_ = refer.read(refer_folder.write(), "refcoco", "unc", "train")
    assert first.keyword == "dog"


def test_annotation_on_an_unknown_image_or_category(refer_folder):
    refer_folder.annotations[0]["category_id"] = 99
    fails(refer_folder, "annotation 107 has unknown category 99")
    del refer_folder.images[0]
    fails(refer_folder, "annotation 107 is on image 7, which is not listed")


def test_image_without_size(refer_folder):
    root = refer_folder.write()
    file = root / "refcoco" / "instances.json"
    content = json.loads(file.read_text())
    del content["images"][0]["height"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="not listed with file_name, height and width"):
        refer.read(root, "refcoco", "unc", "train")


def test_broken_segmentation(refer_folder):
    refer_folder.annotations[0]["segmentation"] = [[1, 2, 3]]
    fails(refer_folder, r"instances\.json: annotation 107: .*no x, y list")


@pytest.mark.parametrize("sentences", [[], None, [{"raw": "dog"}], [{"sent": " "}]])
def test_ref_without_sentences(refer_folder, sentences):
    refer_folder.refs[0]["sentences"] = sentences
    fails(refer_folder, r"ref 1007: .*sentence")


@pytest.mark.parametrize("content", ["[]", "{}", '{"annotations": [{}]}', '{"annotations": 3}'])
def test_not_a_coco_file(refer_folder, content):
    root = refer_folder.write()
    (root / "refcoco" / "instances.json").write_text(content)
    with pytest.raises(DataError, match=r"instances\.json is not a COCO file"):
        refer.read(root, "refcoco", "unc", "train")


@pytest.mark.parametrize("refs", [{}, "refs", [1], [{"split": "train"}]])
def test_not_a_refs_file(refer_folder, refs):
    refer_folder.refs = refs
    fails(refer_folder, r"refs\(unc\)\.p: a list of refs")


def test_malicious_refs(refer_folder, tmp_path):
    class Bait:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "created"),)

    refer_folder.refs.append({"ref_id": Bait(), "split": "train"})
    fails(refer_folder, r"asks for \w+\.mkdir")
    assert not (tmp_path / "created").exists()
