"""Data sets of questions (MUSE, MMR, LLM-Seg40K): odd entries, broken ones, where images lie."""

import json

import numpy as np
import pytest
from PIL import Image

from keyseg.data import llm_seg, muse
from keyseg.data.files import DataError, Problems
from keyseg.data.masks import encode_rle
from keyseg.data.mix import Source, fingerprint

SQUARE, OTHER = [1, 1, 4, 1, 4, 4, 1, 4], [3, 3, 8, 3, 8, 6, 3, 6]
RUNS = {"size": [8, 10], "counts": encode_rle(np.eye(8, 10))}


@pytest.fixture
def disk(tmp_path):
    """A root with one image in each of COCO's folders."""
    for folder in ("train2014", "train2017", "val2017"):
        place = tmp_path / "refer_seg/images/mscoco/images" / folder
        place.mkdir(parents=True)
        Image.new("RGB", (10, 8)).save(place / "7.jpg")
    return tmp_path


def item(**more):
    target = {"segmentation": [SQUARE], "category_name": "dog", "rephrased_name": "brown dog"}
    return {
        "height": 8,
        "width": 10,
        "questions": ["Who barks?"],
        "answers": [[target]],
        "text_answers": None,
        "file_name": "7.jpg",
    } | more


def read_muse(root, *items, problems=None, **how):
    (root / "muse_val.json").write_text(json.dumps(items))
    files = ["muse/muse_{split}.json", "muse_{split}.json"]
    return muse.read(root, "val", "muse", files, problems=problems, **how)


def test_targets_of_a_question_are_united_and_named(disk):
    cat = {"segmentation": RUNS, "category_name": "cat"}
    dog = {"segmentation": [SQUARE, OTHER], "category_name": "dog", "rephrased_name": "brown dog"}
    two, one = read_muse(disk, item(questions=["A?", "B?"], answers=[[dog, cat], [dog, dog]]))
    union = np.eye(8, 10, dtype=np.uint8)
    union[1:4, 1:4] = 1
    union[3:6, 3:8] = 1
    np.testing.assert_array_equal(two.mask(), union)
    assert (two.id, two.query, two.is_sentence) == ("muse/val/0.0-0", "A?", True)
    assert (two.keyword, two.text) == (None, "the brown dog and the cat")
    assert (one.keyword, one.text) == ("dog", "the brown dog")
    assert two.slices["targets"] == one.slices["targets"] == "several"
    assert two.slices["size"] == "large"


def test_each_target_has_a_mask_of_its_own(disk):
    cat = {"segmentation": RUNS, "category_name": "cat"}
    dog = {"segmentation": [SQUARE, OTHER], "category_name": "dog", "rephrased_name": "brown dog"}
    said = ["Here { is } a brown dog {seg}, a cat {seg}. ", "{seg}", None]
    several = item(
        questions=["A?", "B?", "C?"], answers=[[dog, cat], [dog, cat], []], text_answers=said
    )
    union = read_muse(disk, several)
    two, other, none = read_muse(disk, several, targets="each")
    assert [(t.name, t.keyword) for t in two.targets] == [("brown dog", "dog"), ("cat", "cat")]
    assert two.keywords() == ["dog", "cat"]
    first, second = two.masks()
    assert (first.sum(), second.sum()) == (23, 8)
    np.testing.assert_array_equal(np.maximum(first, second), two.mask())
    assert two.answer == "Here { is } a brown dog {seg}, a cat {seg}."
    assert other.answer is None, "the places do not fit the targets"
    assert (none.targets, none.answer, none.slices["targets"]) == ((), None, "none")
    assert [m.sum() for m in none.masks()] == [0]
    assert [e.targets for e in union] == [None] * 3
    assert len({fingerprint([Source(e, 1.0)]) for e in (union, [two, other, none])}) == 2
    with pytest.raises(DataError, match=r"data\.targets=some: must be one of each, union"):
        read_muse(disk, several, targets="some")


def test_an_item_without_questions_is_left_out(disk):
    bare = item()
    del bare["questions"], bare["answers"]
    assert [e.id for e in read_muse(disk, bare, item())] == ["muse/val/1.0-0"]


@pytest.mark.parametrize(
    ("where", "folder"),
    [
        ({"file_name": "7.jpg"}, "train2014"),
        ({"file_name": "train2017/7.jpg", "coco_url": "http://x/val2017/7.jpg"}, "train2017"),
        ({"file_name": None, "coco_url": "http://images/train2017/7.jpg"}, "train2017"),
        ({"file_name": None, "coco_url": "http://images/val2017/7.jpg"}, "val2017"),
    ],
)
def test_where_an_image_lies(disk, where, folder):
    (example,) = read_muse(disk, item(**where))
    assert example.image.parent.name == folder
    assert example.image_id == f"{folder}/7"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"questions": ["A?", "B?"]}, "item 0: 2 questions, but 1 answers"),
        ({"questions": [None]}, "item 0: question 0 is None"),
        ({"answers": [{"segmentation": []}]}, "answer to question 0 is no list of targets"),
        ({"answers": [[{"category_name": "dog"}]]}, "question 0: segmentation part is no x, y"),
        ({"answers": [[{"segmentation": [[1, 1, 4, 1, 4, float("nan")]]}]]}, "question 0: .*nan"),
        ({"height": 10**8}, "question 0: .* megapixels"),
        ({"height": None}, "question 0: None x 10 is no height"),
        ({"file_name": None}, "neither file_name nor coco_url"),
        ({"file_name": "../../7.jpg"}, "is no image of COCO's folders"),
        ({"file_name": "/etc/7.jpg"}, "is no image of COCO's folders"),
    ],
)
def test_a_bad_item_is_named_and_the_others_are_read(disk, more, message):
    with pytest.raises(DataError, match=message):
        read_muse(disk, item(**more))
    problems: Problems = []
    assert [e.id for e in read_muse(disk, item(**more), item(), problems=problems)] == [
        "muse/val/1.0-0"
    ]
    assert len(problems) == 1


def test_where_annotations_were_looked_for(disk):
    with pytest.raises(DataError, match=r"none of muse/muse_val.json, muse_val.json is in .*Pixel"):
        muse.read(disk, "val", "muse", ["muse/muse_{split}.json", "muse_{split}.json"])


def llm(root, content, problems=None):
    folder = root / "LLMSeg40K"
    folder.mkdir(exist_ok=True)
    (folder / "train.json").write_text(json.dumps(content))
    images = {"coco": "refer_seg/images/mscoco/images/train2017"}
    return llm_seg.read(root, "train", images=images, problems=problems)


PAIR = {"question": " Who barks? ", "answer": "The dog.", "rle_seg": RUNS}


def test_questions_of_an_image(disk):
    first, second = llm(disk, {"7.jpg": {"from_dataset": "coco", "qa_pairs": [PAIR, PAIR]}})
    assert (first.id, second.id) == ("LLMSeg40K/train/7.0-0", "LLMSeg40K/train/7.1-0")
    assert (first.query, first.keyword, first.is_sentence) == ("Who barks?", None, True)
    assert first.slices["source"] == "coco"
    np.testing.assert_array_equal(first.mask(), np.eye(8, 10))


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("7.jpg", {"from_dataset": "ade", "qa_pairs": [PAIR]}, "from_dataset is ade, not one of"),
        ("../7.jpg", {"from_dataset": "coco", "qa_pairs": [PAIR]}, "the name of a file expected"),
        ("7.jpg", {"from_dataset": "coco"}, "no list of qa_pairs"),
        ("7.jpg", {"from_dataset": "coco", "qa_pairs": [{}]}, "question 0: no question"),
        (
            "7.jpg",
            {"from_dataset": "coco", "qa_pairs": [PAIR | {"rle_seg": "abc"}]},
            "question 0: rle_seg is no run lengths",
        ),
        (
            "7.jpg",
            {"from_dataset": "coco", "qa_pairs": [PAIR | {"rle_seg": RUNS | {"size": [8, 11]}}]},
            "question 0: run lengths do not add up",
        ),
        ("9.jpg", {"from_dataset": "coco", "qa_pairs": [PAIR]}, "1 of 1 images are missing"),
    ],
)
def test_a_bad_entry_is_named(disk, name, entry, message):
    with pytest.raises(DataError, match=message):
        llm(disk, {name: entry})
    problems: Problems = []
    assert llm(disk, {name: entry}, problems) == []
    assert len(problems) == 1
