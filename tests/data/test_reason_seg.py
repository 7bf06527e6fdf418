import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keyseg.data import masks, mix, reason_seg
from keyseg.data.files import DataError

BOX = [[2, 2], [7, 2], [7, 5], [2, 5]]
TARGET = {"label": "target", "labels": ["target"], "shape_type": "polygon", "points": BOX}


@pytest.fixture
def folder(reason_folder):
    reason_folder.add("b", ["what barks", "the animal that barks"], [TARGET])
    reason_folder.add("a", ["Where would one sit? "], [TARGET], is_sentence=True)
    reason_folder.keywords = [
        {"query": "what barks", "outputs": "The dog.", "image": "b.jpg", "json": "b.json"}
        | {"keyword": "dog"},
        {"query": "Where would one sit?", "outputs": " ", "json": "a.json", "keyword": " sofa"},
        {"query": "what barks", "outputs": "x", "json": "elsewhere.json", "keyword": "cat"},
    ]
    reason_folder.write_keywords()
    return reason_folder


def test_read(folder):
    a, b, other = reason_seg.read(folder.root, "train", slices={"style": "reasoning"})
    assert (a.id, b.id, other.id) == (
        "ReasonSeg/train/a-0",
        "ReasonSeg/train/b-0",
        "ReasonSeg/train/b-1",
    )
    assert b.image == folder.root / "ReasonSeg/train/b.jpg"
    assert b.image_id == other.image_id == "ReasonSeg/train/b"
    assert (b.query, b.is_sentence, b.keyword, b.text) == ("what barks", False, "dog", "The dog.")
    assert (a.query, a.is_sentence, a.keyword, a.text) == (
        "Where would one sit?",
        True,
        "sofa",
        None,
    )
    assert (other.keyword, other.text) == ("dog", "The dog.")  # another wording, the same image
    assert b.slices == {
        "dataset": "ReasonSeg",
        "split": "train",
        "size": "medium",
        "length": "short",
        "style": "reasoning",
    }
    expected = np.zeros((12, 20), np.uint8)
    expected[2:6, 2:8] = 1
    np.testing.assert_array_equal(b.mask(), expected)


def test_a_wording_with_an_entry_of_its_own_keeps_it(folder):
    folder.keywords.append(
        {"query": "the animal that barks", "outputs": "A hound.", "json": "b.json"}
        | {"keyword": "hound"}
    )
    folder.write_keywords()
    found = {e.query: e.keyword for e in reason_seg.read(folder.root, "train")}
    assert found["what barks"] == "dog"
    assert found["the animal that barks"] == "hound"


@pytest.mark.parametrize("name", [reason_seg._KEYWORDS, reason_seg._ANSWERS])
def test_public_files_lie_inside_reasonseg_first_and_beside_it_second(tmp_path, name):
    inside, beside = tmp_path / "ReasonSeg" / name, tmp_path / name
    assert reason_seg.public_file(tmp_path, name) == inside  # what a message names
    beside.parent.mkdir(parents=True)
    beside.touch()
    assert reason_seg.public_file(tmp_path, name) == beside
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert reason_seg.public_file(tmp_path, name) == inside


def test_first_text_only(folder):
    queries = [e.query for e in reason_seg.read(folder.root, "train", texts="first")]
    assert queries == ["Where would one sit?", "what barks"]
    with pytest.raises(ValueError, match="texts=some"):
        reason_seg.read(folder.root, "train", texts="some")


def test_cp1252_file(folder):
    texts = ["the café’s door – “open”"]
    folder.add("c", texts, [TARGET], encoding="cp1252")
    assert reason_seg.read(folder.root, "train")[-1].query == texts[0]


@pytest.mark.parametrize("shapes", [None, []])
def test_no_shapes(folder, shapes):
    folder.add("c", ["nothing"], shapes)
    example = reason_seg.read(folder.root, "train")[-1]
    assert example.slices["size"] == "empty"
    assert example.mask().shape == (12, 20)
    assert not example.mask().any()


def test_turned_photograph(folder):
    """Shapes are drawn on the image as it is seen, not as it is stored."""
    place = folder.add("c", ["x"], [TARGET])
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (20, 12)).save(place / "c.jpg", exif=exif)
    assert reason_seg.read(folder.root, "train")[-1].mask().shape == (20, 12)


def test_leftovers_of_an_archive_are_not_annotations(folder):
    (folder.root / "ReasonSeg/train/._a.json").write_bytes(b"\x00\x05")
    assert len(reason_seg.read(folder.root, "train")) == 3


def test_no_mask_is_drawn_to_read(folder, monkeypatch):
    def draw(*_):
        raise AssertionError("a mask was drawn")

    monkeypatch.setattr(masks, "draw_polygon", draw)
    assert len(reason_seg.read(folder.root, "train")) == 3


def test_real_samples(reason_folder, samples):
    """The keyword file's first image, and a val annotation of 3336 x 2228 pixels."""
    items = json.loads((samples / "reason_seg_key/keyword_outputs.json").read_text())
    for name in {item["json"] for item in items}:
        texts = [item["query"] for item in items if item["json"] == name]
        reason_folder.add(name.removesuffix(".json"), texts, [TARGET], is_sentence=True)
    reason_folder.keywords = items
    reason_folder.write_keywords()
    examples = reason_seg.read(reason_folder.root, "train")
    assert len(examples) == len(items) == 24
    by_query = {(f"{e.image.stem}.json", e.query): (e.keyword, e.text) for e in examples}
    for item in items:
        found = by_query[item["json"], item["query"].strip()]
        assert found == (item["keyword"].strip(), item["outputs"].strip())

    file = samples / "reason_seg/914980029_4a7c8f579e_o.json"
    place = reason_folder.add(file.stem, [""], [], split="val", size=(3336, 2228))
    shutil.copyfile(file, place / file.name)
    (example,) = reason_seg.read(reason_folder.root, "val")
    assert example.query == "something that can control the fan speed"
    assert example.keyword is None
    assert example.slices["size"] == "small"
    assert np.count_nonzero(example.mask() == 1) == 32124


# ---------------------------------------------------------------- bad input


def fails(folder, match, split="train", **arguments):
    with pytest.raises(DataError, match=match) as caught:
        reason_seg.read(folder.root, split, **arguments)
    return str(caught.value)


def test_missing_root(reason_folder):
    assert reason_seg._PAGE in fails(reason_folder, "ReasonSeg folder is missing")


def test_unknown_split(folder):
    folder.add("a", ["x"], [], split="val")
    fails(folder, "no split 'test'; it has: train, val", split="test")


def test_empty_split(folder):
    (folder.root / "ReasonSeg" / "test").mkdir()
    fails(folder, "split 'test' is empty", split="test")


def test_missing_images(folder):
    (folder.root / "ReasonSeg/train/a.jpg").unlink()
    fails(folder, r"1 of 2 images are missing .*a\.jpg")


def test_missing_keyword_file(folder):
    reason_seg.public_file(folder.root, reason_seg._KEYWORDS).unlink()
    message = fails(folder, "keyword file is missing")
    assert "keywords: null" in message
    assert {e.keyword for e in reason_seg.read(folder.root, "train", keywords=None)} == {None}


@pytest.mark.parametrize("content", ['{"a": 1}', "[3]", '[{"json": "a", "query": "b"}]'])
def test_broken_keyword_file(folder, content):
    reason_seg.public_file(folder.root, reason_seg._KEYWORDS).write_text(content)
    fails(folder, r"keyword_outputs\.json: item 0 needs json, query and keyword")


@pytest.mark.parametrize("text", [None, "dog", [], [3]])
def test_no_list_of_queries(folder, text):
    folder.add("c", text, [TARGET])
    fails(folder, r"c\.json: 'text' must be a list of queries")


def test_empty_query(folder):
    folder.add("c", ["x", " "], [TARGET])
    fails(folder, r"c\.json: 'text' holds an empty query")


@pytest.mark.parametrize("shapes", [[{"label": "target"}], [3], {"label": "target"}, 7])
def test_broken_shapes(folder, shapes):
    folder.add("c", ["x"], shapes)
    fails(folder, r"c\.json: ")


def test_broken_json_and_broken_image(folder):
    place = folder.add("c", ["x"], [TARGET])
    (place / "c.jpg").write_text("<html>")
    fails(folder, r"c\.jpg is not an image")
    (place / "c.json").write_text("{")
    fails(folder, r"c\.json is not valid JSON")
    (place / "c.json").write_text("[]")
    fails(folder, r"c\.json: 'text' must be")


@pytest.mark.parametrize("name", ["reason_seg", "reason_seg_key", "refer_reason"])
def test_val_and_test_count_the_first_text_of_an_image(compose_run, name):
    splits = compose_run(f"data={name}").data["splits"]
    assert {entry["texts"] for split in ("val", "test") for entry in splits[split]} == {"first"}
    assert all("texts" not in entry for entry in splits["train"])
    every = compose_run(f"data={name}", "data.texts=all").data["splits"]
    assert {entry["texts"] for split in ("val", "test") for entry in every[split]} == {"all"}


def test_only_val_and_test_leave_other_wordings_out(folder, compose_run):
    for split in ("val", "test"):
        folder.add("c", ["one", "two", "three"], [TARGET], split=split)
    cfg = compose_run("data=reason_seg").data
    cfg["sources"]["reason"]["root"] = str(folder.root)
    count = {split: len(mix.load(cfg, split)[0].examples) for split in mix.SPLITS}
    assert count == {"train": 3, "val": 1, "test": 1}


def test_texts_of_a_split_are_checked(folder, compose_run):
    cfg = compose_run("data=reason_seg", "data.texts=frist").data
    cfg["sources"]["reason"]["root"] = str(folder.root)
    with pytest.raises(
        DataError, match=r"splits\.val\[0\]\.texts=frist: must be one of all, first"
    ):
        mix.load(cfg, "val")
