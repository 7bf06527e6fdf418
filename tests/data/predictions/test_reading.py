"""Every form of predictions, and everything that is wrong with files of strangers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyseg.data.example import Example
from keyseg.data.files import DataError
from keyseg.data.masks import encode_rle
from keyseg.data.predictions.matching import match
from keyseg.data.predictions.reading import COCO, JSON_LINES, PNG, RELA, read

SIZE = 4, 6
MASK = np.zeros(SIZE, bool)
MASK[1:3, 2:5] = True


def example(name, image="1.jpg", query="the dog"):
    image = Path("/data") / image
    return Example(name, image, f"x/{image.stem}", query, False, None, None, {}, lambda: None)


EXAMPLES = [
    example("ReasonSeg/val/1-0"),
    example("ReasonSeg/val/1-1", query="The  cat"),
    example("refcoco/val/7-0", "COCO_train2014_000000000042.jpg", "left dog"),
]


def runs(mask=MASK, size=SIZE):
    return {"size": list(size), "counts": encode_rle(mask)}


def lines(tmp_path, *entries):
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(e) + "\n" for e in entries))
    return file


def listed(tmp_path, *entries):
    file = tmp_path / "p.json"
    file.write_text(json.dumps(list(entries)))
    return file


def drawn(file):
    matched = match(read(file).predictions, EXAMPLES)
    assert not matched.unknown
    return {e.id: p.draw(*SIZE).tolist() for e, p in matched.pairs}


SET, EMPTY = MASK.astype(int).tolist(), np.zeros(SIZE, int).tolist()


def test_json_lines_by_id_and_by_image_and_query(tmp_path):
    file = lines(
        tmp_path,
        {"keyseg_predictions": 1, "system": "X", "protocol": "generated"},
        {"id": "ReasonSeg/val/1-0", "mask": runs(), "score": 0.5, "answer": "It is."},
        {"image": "1.jpg", "query": "the cat ", "mask": None},
        {"id": "refcoco/val/7-0", "mask": {"size": list(SIZE), "counts": [9, 2, 13]}},
    )
    found = read(file)
    assert (found.form, found.head["system"], found.head["protocol"]) == (
        JSON_LINES,
        "X",
        "generated",
    )
    assert [p.score for p in found.predictions] == [0.5, None, None]
    assert found.predictions[0].answer == "It is."
    masks = drawn(file)
    assert masks["ReasonSeg/val/1-0"] == SET
    assert masks["ReasonSeg/val/1-1"] == EMPTY
    assert np.sum(masks["refcoco/val/7-0"]) == 2


def test_coco_results_by_number_or_name_of_the_image(tmp_path):
    file = listed(
        tmp_path,
        {"image_id": 42, "category_id": 1, "segmentation": runs(), "score": 0.9, "id": 1},
        {"image_id": "1.jpg", "query": "the dog", "segmentation": runs()},
        {"id": "ReasonSeg/val/1-1", "segmentation": runs(~MASK)},
    )
    assert read(file).form == COCO
    masks = drawn(file)
    assert masks["refcoco/val/7-0"] == masks["ReasonSeg/val/1-0"] == SET
    assert masks["ReasonSeg/val/1-1"] == (~MASK).astype(int).tolist()


def test_detailed_results_of_rela_are_sums(tmp_path):
    entry = {
        "source": "grefcoco",
        "img_id": 42,
        "sent": "Left dog!",
        "sent_info": {"sent": "left dog", "raw": "Left dog!"},
        "gt_nt": False,
        "pred_nt": False,
        "I": 5,
        "U": 8,
        "cIoU": 0.625,
    }
    file = listed(tmp_path, entry)
    found = read(file)
    assert found.form == RELA
    (pair,) = match(found.predictions, EXAMPLES).pairs
    assert pair[0].id == "refcoco/val/7-0"
    assert (pair[1].pixels.intersection, pair[1].pixels.union, pair[1].draw) == (5, 8, None)
    for key, value, said in (
        ("I", 9, "no pixel counts"),
        ("U", -1, "no pixel counts"),
        ("pred_nt", "no", "must be true or false"),
        ("img_id", None, "'img_id' is None"),
    ):
        with pytest.raises(DataError, match=f"p.json, entry 1.*{said}"):
            read(listed(tmp_path, {**entry, key: value}))
    with pytest.raises(DataError, match=r"entry 1: no sent$"):
        read(listed(tmp_path, {k: v for k, v in entry.items() if k != "sent"}))


@pytest.mark.parametrize("most", [1, 255])
def test_a_folder_of_pngs_named_by_example_or_image(tmp_path, most):
    folder = tmp_path / "masks"
    (folder / "ReasonSeg/val").mkdir(parents=True)
    picture = Image.fromarray((MASK * most).astype(np.uint8))
    picture.save(folder / "ReasonSeg/val/1-0.png")
    picture.convert("RGB").save(folder / "1-1.png")
    picture.save(folder / "COCO_train2014_000000000042.png")
    assert read(folder).form == PNG
    assert set(map(str, drawn(folder).values())) == {str(SET)}
    before = read(folder).sha256
    Image.fromarray((~MASK * 255).astype(np.uint8)).save(folder / "1-1.png")
    assert read(folder).sha256 != before


def test_what_fits_no_example_or_several_is_listed_and_never_guessed(tmp_path):
    file = lines(
        tmp_path,
        {"id": "ReasonSeg/val/1", "mask": None},
        {"image": "9.jpg", "query": "the dog", "mask": None},
        {"image": "1", "query": "a dog", "mask": None},
    )
    matched = match(read(file).predictions, EXAMPLES)
    assert [u.reason for u in matched.unknown] == [
        "no example has this id",
        "no example is on this image",
        "no example on this image has this query",
    ]
    assert [e.id for e in matched.missing] == [e.id for e in EXAMPLES]
    (tmp_path / "m").mkdir()
    Image.new("L", SIZE[::-1]).save(tmp_path / "m" / "1.png")
    (one,) = match(read(tmp_path / "m").predictions, EXAMPLES).unknown
    assert one.reason.startswith("2 examples have this name: name one by its id (ReasonSeg/val/1-0")
    (one,) = match(
        read(listed(tmp_path, {"image_id": "1", "segmentation": runs()})).predictions, EXAMPLES
    ).unknown
    assert one.reason.startswith("2 examples have this image and no query")
    twins = [example("refcoco/val/1-0"), example("refcoco/val/2-0")]
    (one,) = match(
        read(lines(tmp_path, {"image": "1", "query": "the dog", "mask": None})).predictions, twins
    ).unknown
    assert one.reason.startswith("2 examples have this image and query")


def test_two_predictions_of_one_example_are_an_error_with_both_lines(tmp_path):
    file = lines(
        tmp_path,
        {"id": "ReasonSeg/val/1-0", "mask": None},
        {"image": "1.jpg", "query": "the dog", "mask": None},
    )
    with pytest.raises(DataError, match=r"line 2: ReasonSeg/val/1-0 has .*\(.*line 1\)"):
        match(read(file).predictions, EXAMPLES)


HUGE = 10**6


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (runs(size=(6, 4)), "mask of 6 x 4 for an image of 4 x 6"),
        (runs(size=(HUGE, HUGE)), f"mask of {HUGE} x {HUGE} for"),
        ({"size": 5, "counts": "x"}, "size of the mask is 5"),
        ({"size": [4.0, 6], "counts": "x"}, "size of the mask is"),
        ({"size": [4, 6], "counts": ""}, "damaged run lengths"),
        ({"size": [4, 6], "counts": "02"}, "do not add up to 4 x 6"),
        ({"size": [4, 6], "counts": [23]}, "do not add up to 4 x 6"),
        ({"size": [4, 6], "counts": [-1, 25]}, "do not add up to 4 x 6"),
        ({"size": [4, 6], "counts": [True, 23]}, "no list of whole numbers"),
        ({"size": [4, 6], "counts": 24}, "no list of whole numbers"),
        ({"size": [4, 6], "counts": "0" * 1000}, "more run lengths than the mask has pixels"),
        ({"size": [4, 6], "counts": "\u00e9\u00e9"}, "damaged run lengths"),
        ([[0, 0, 3, 0, 3, 3]], "not run lengths"),
        ("x", "not run lengths"),
    ],
)
def test_a_mask_of_a_stranger_is_an_error_with_its_line(tmp_path, mask, said):
    file = lines(tmp_path, {"id": "a", "mask": None}, {"id": "ReasonSeg/val/1-0", "mask": mask})
    with pytest.raises(DataError, match=f"p.jsonl, line 2: .*{said}"):
        read(file).predictions[1].draw(*SIZE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "is no JSON object"),
        ('{"mask": null}', "neither 'id' nor 'image' and 'query'"),
        ('{"image": "1", "mask": null}', "neither 'id' nor"),
        ('{"id": "a"}', "no 'mask'"),
        ('{"id": "a", "masks": 3}', "'masks' is 3, not a list of masks"),
        ('{"id": 3, "mask": null}', "'id' is 3, not a text"),
        ('{"id": "a", "mask": null, "score": NaN}', "'score' is nan, not a number"),
        ('{"id": "a", "mask": null, "score": true}', "'score' is True"),
        ('{"id": "a", "mask": null, "answer": 1}', "'answer' is 1"),
        ('{"keyseg_predictions": 1}', "it stands in the first line"),
    ],
)
def test_a_line_of_a_stranger_is_an_error_with_its_number(tmp_path, line, said):
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "b", "mask": null}\n\n' + line + "\n")
    with pytest.raises(DataError, match=f"p.jsonl, line 3.*{said}"):
        read(file)


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("keyseg.data.predictions.json_lines._LONGEST", 100)
    file = lines(tmp_path, {"id": "b", "mask": None}, {"id": "x" * 200, "mask": None})
    with pytest.raises(DataError, match="line 2 is longer than 100 bytes"):
        read(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04\x95", "could run code"),
        (b"PK\x03\x04", "could run code"),
        (b"", "of no form that is read"),
        (b"[", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "holds no predictions"),
        (b"[1]", "entry 1: 1 is no JSON object"),
        (b'[{"a": 1}]', "entries with a are of no known form"),
        (b'[{"segmentation": [[1, 2]], "image_id": 1}]', "entry 1: segmentation is a list of pol"),
        (b'[{"segmentation": {}, "image_id": null}]', "entry 1: 'image_id' is None"),
        (b'[{"segmentation": {}, "image_id": 1, "score": NaN}]', "entry 1: 'score' is nan"),
    ],
)
def test_a_file_of_a_stranger(tmp_path, content, said):
    file = tmp_path / "p.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(file)


def test_sizes_are_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr("keyseg.data.predictions.reading.LONGEST_LIST", 10)
    with pytest.raises(DataError, match="more than the 10 that are read"):
        read(listed(tmp_path, {"image_id": 1, "segmentation": runs()}))
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none")


def picture(values, mode=None):
    image = Image.fromarray(np.array(values, np.uint8))
    return image.convert(mode) if mode else image


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (picture(np.zeros((6, 4))), "mask of 6 x 4 for an image of 4 x 6"),
        (picture(np.full(SIZE, 128)), "has the value 128"),
        (picture([[0, 1, 255, 0, 0, 0]] * 4), "has the value 1 beside 255"),
        (picture(np.stack([MASK * 255, MASK * 0, MASK * 0], 2)), "is coloured"),
    ],
)
def test_a_png_of_a_stranger(tmp_path, image, said):
    image.save(tmp_path / "1-0.png")
    with pytest.raises(DataError, match=f"1-0.png.*{said}"):
        read(tmp_path).predictions[0].draw(*SIZE)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.png"):
        read(tmp_path)
    (tmp_path / "1-0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="is not an image"):
        read(tmp_path).predictions[0].draw(*SIZE)
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"model\.pkl is no PNG"):
        read(tmp_path)
