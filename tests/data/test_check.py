"""Every kind of gap is counted, and none stops the count."""

import json

import numpy as np
import pytest
from PIL import Image

from keyseg.data.check import PICTURE, check
from keyseg.data.files import IMAGE, UNANNOTATED, DataError
from keyseg.data.keywords.first_tokens import Collisions
from keyseg.data.masks import encode_rle

TARGET = {"label": "target", "points": [[2, 2], [7, 2], [7, 5], [2, 5]]}
IGNORE = TARGET | {"label": "ignore"}


def first_word(keyword):
    return keyword.split()[0]


@pytest.fixture
def config(refer_folder, reason_folder):
    refer = {"_target_": "keyseg.data.refer.read", "root": str(refer_folder.root)}
    reason = {"_target_": "keyseg.data.reason_seg.read", "root": str(reason_folder.root)}
    return {
        "name": "mine",
        "root": "/disk",
        "sources": {
            "refer": refer | {"dataset": "refcoco", "split_by": "unc"},
            "reason": reason,
        },
        "splits": {
            "train": [{"sources": ["refer"]}, {"sources": ["reason"], "weight": 3}],
            "test": [{"sources": ["refer"], "split": "testA"}],
        },
    }


@pytest.fixture
def written(refer_folder, reason_folder):
    def write():
        refer_folder.write()
        texts = {"a": "what barks", "b": "what purrs", "c": "what sings", "d": "what hides"}
        for name, text in texts.items():
            shapes = {"c": [IGNORE], "d": None}.get(name, [TARGET])
            reason_folder.add(name, [text], shapes)
        for name, keyword in (("a", "dog"), ("b", "dog house"), ("c", "bird")):
            reason_folder.keywords.append(
                {"json": f"{name}.json", "query": texts[name], "keyword": keyword}
            )
        reason_folder.write_keywords()

    return write


def test_counts(config, written):
    written()
    result = check(config, first_word)
    train, reason, test = result.rows
    assert (train.targets, train.images, train.expressions, train.published) == (2, 2, 4, 42404)
    assert train.keywords == Collisions(keywords=4, distinct=1, colliding=0, majority=4)
    assert (reason.targets, reason.expressions, reason.published) == (4, 4, 239)
    assert reason.empty == ["c.jpg"], "an ignore region alone is no target"
    assert reason.shapeless == ["d.jpg"]
    (fact,) = result.facts()
    assert fact == "reason train: 1 image has no shapes (d.jpg), as published: an empty target"
    assert reason.keywords == Collisions(keywords=3, distinct=3, colliding=2, majority=2)
    assert (test.split, test.source_split) == ("test", "testA")
    assert result.overlap == {"test": set()}
    problems = list(result.problems())
    assert "refer train: 2 targets, 42404 are published" in problems
    assert "reason train: 1 mask is empty (c.jpg)" in problems
    assert len(problems) == 4


def test_as_published_is_no_problem(config, written, monkeypatch, reason_folder):
    written()
    refer = {("refcoco", "unc"): {"train": 2, "testA": 1}}
    monkeypatch.setattr("keyseg.data.refer.PUBLISHED", refer)
    monkeypatch.setattr("keyseg.data.reason_seg._PUBLISHED", {"train": 4})
    reason_folder.add("c", ["what sings"], [TARGET])  # d has no shapes, which is as published
    assert list(check(config, first_word).problems()) == []


def test_gaps_are_counted_and_left_out(config, written, refer_folder, reason_folder):
    first, second, _ = refer_folder.annotations
    refer_folder.refs.append(refer_folder.refs[0] | {"ref_id": 1, "ann_id": 999})
    refer_folder.refs.append(refer_folder.refs[0] | {"ref_id": 2, "sentences": []})
    first["segmentation"] = {"size": [8, 10], "counts": "damaged!"}
    second["segmentation"] = []
    written()
    (refer_folder.image_folder / refer_folder.images[2]["file_name"]).unlink()
    (reason_folder.root / "ReasonSeg/train/a.jpg").unlink()
    (reason_folder.root / "ReasonSeg/train/b.json").write_text("{")
    train, reason, test = check(config, first_word).rows
    assert train.count(UNANNOTATED) == 1
    assert len(train.errors) == 3
    assert train.empty == ["COCO_train2014_000000000008.jpg"]
    assert train.on_disk == 4
    assert (test.count(IMAGE), test.targets, test.on_disk) == (1, 0, None)
    assert (reason.count(IMAGE), reason.targets, len(reason.errors)) == (1, 2, 2)


def test_images_that_cannot_be_decoded(config, written, refer_folder, reason_folder):
    written()
    cut = reason_folder.root / "ReasonSeg/train/a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[:-1000])
    other = refer_folder.image_folder / refer_folder.images[0]["file_name"]
    Image.new("RGB", (4, 4)).save(other)
    train, reason, test = check(config, first_word, decode=True).rows
    assert (train.count(PICTURE), reason.count(PICTURE), test.count(PICTURE)) == (1, 1, 0)
    assert "is (4, 4) (height, width), its mask (8, 10)" in str(train.errors[0])
    assert f"{cut} is not an image that can be read" in str(reason.errors[0])
    assert (train.on_disk, reason.on_disk) == (2, 4), "they are on disk"
    assert not check(config, first_word).rows[1].errors, "only if it is asked for"


def test_a_picture_without_a_range_is_a_problem(config, written, reason_folder):
    """What training would refuse is refused here; 16 bits of grey have a range."""
    written()
    folder = reason_folder.root / "ReasonSeg/train"
    with Image.open(folder / "a.jpg") as picture:
        grey = np.asarray(picture.convert("L"))
    Image.fromarray(grey.astype(np.float32)).save(folder / "a.jpg", "TIFF")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "b.jpg", "PNG")
    _, reason, _ = check(config, first_word, decode=True).rows
    assert [str(folder / "a.jpg") in str(e) and "mode F" in str(e) for e in reason.errors] == [True]


def test_keyword_policies_are_compared(config, written):
    written()
    config["sources"]["refer"]["keyword"] = "category"
    found = check(config, first_word).policies
    assert found["category"] == Collisions(keywords=4, distinct=1, colliding=0, majority=4)
    assert found["head_noun"] == found["category"]
    assert found["expression"] == Collisions(keywords=4, distinct=2, colliding=0, majority=2)


def test_overlap_by_image(config, written, refer_folder):
    refer_folder.refs[2] |= {"ann_id": 107, "image_id": 7}
    written()
    result = check(config, first_word)
    assert result.overlap == {"test": {"train2014/COCO_train2014_000000000007"}}
    assert any("1 images of test are in train as well" in line for line in result.problems())


def test_what_everything_needs_stops_with_the_key_to_set(config, written, refer_folder):
    written()
    (refer_folder.root / "refcoco" / "instances.json").unlink()
    with pytest.raises(DataError, match=r"instances\.json.*Set data\.root \(now /disk\).*mine"):
        check(config, first_word)


def test_a_photograph_is_seen_to_be_shared_whatever_a_data_set_calls_it(
    refer_folder, tmp_path, monkeypatch
):
    """refCOCO's train and RefCOCO-M's parquet, and questions on COCO's division of 2017."""
    run = {"size": [8, 10], "counts": encode_rle(np.eye(8, 10))}
    target = {"id": 1, "image": "COCO_train2014_000000000007_107.jpg", "sentences": ["dog"]}
    target |= {"is_sentence": False, "category": "dog", "mask": run}
    unpacked = tmp_path / "unpacked"
    questions = tmp_path / "LLMSeg40K/train.json"
    pair = {"question": "Who?", "answer": "It.", "rle_seg": run}
    questions.parent.mkdir()
    questions.write_text(
        json.dumps({"000000000008.jpg": {"from_dataset": "coco", "qa_pairs": [pair]}})
    )
    for image in (
        unpacked / "images/validation" / target["image"],
        tmp_path / "coco/train2017/000000000008.jpg",
    ):
        image.parent.mkdir(parents=True)
        Image.new("RGB", (10, 8)).save(image)
    (unpacked / "validation.json").write_text(json.dumps([target]))
    readers = {
        "refer": {"root": str(refer_folder.write()), "dataset": "refcoco", "split_by": "unc"},
        "parquet": {"root": str(unpacked), "dataset": "RefCOCO-M"},
        "llm_seg": {"root": str(tmp_path)},
    }
    sources = {n: {"_target_": f"keyseg.data.{n}.read", **how} for n, how in readers.items()}
    splits = {
        "train": [{"sources": ["refer"], "split": "train"}],
        "val": [{"sources": ["llm_seg"], "split": "train"}],
        "test": [{"sources": ["parquet"], "split": "validation"}],
    }
    found = check({"name": "mixed", "sources": sources, "splits": splits}, first_word)
    shared = {"val": "train2017/000000000008", "test": "train2014/COCO_train2014_000000000007"}
    assert found.overlap == {split: {image} for split, image in shared.items()}
    told = [f"1 images of {s} are in train as well: {i}" for s, i in shared.items()]
    assert [p for p in found.problems() if "as well" in p] == told
