"""Every file that a data set is made of, broken in every way: one line that names it, no crash."""

import json
import math
import pickle
from pathlib import Path

import pytest
from PIL import Image

from keyseg.data import grefer, reason_seg, refer
from keyseg.data.files import DataError, Problems

TARGET = {"label": "target", "points": [[2, 2], [7, 2], [7, 5], [2, 5]]}
SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]


def read_refer(root, **options):
    examples = refer.read(root, "refcoco", "unc", "train", **options)
    return [e.mask() for e in examples]


def read_grefer(root, **options):
    return [e.mask() for e in grefer.read(root, "train", **options)]


def read_reason(root, **options):
    return [e.mask() for e in reason_seg.read(root, "train", **options)]


READERS = {"refer": read_refer, "grefer": read_grefer, "reason": read_reason}


@pytest.fixture
def roots(refer_folder, reason_folder):
    """A folder of each format, whole."""
    root = refer_folder.write()
    refer_folder.write("grefcoco")
    (root / "grefcoco/refs(unc).p").unlink()
    grefs = [ref | {"ann_id": [ref["ann_id"]]} for ref in refer_folder.refs]
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(grefs))
    for name in "ab":
        reason_folder.add(name, ["what barks"], [TARGET])
    reason_folder.keywords = [{"json": "a.json", "query": "what barks", "keyword": "dog"}]
    reason_folder.write_keywords()
    return {"refer": root, "grefer": root, "reason": reason_folder.root}


def change(path, edit):
    """Edit a JSON file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_refs(path, edit):
    refs = pickle.loads(path.read_bytes())
    edit(refs)
    path.write_bytes(pickle.dumps(refs))


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def remove(path):
    path.unlink()


def page(path):
    """What a download leaves behind that needed a login."""
    path.write_text("<html>Sign in</html>")


def segment(value):
    return lambda path: change(path, lambda c: c["annotations"][0].update(segmentation=value))


def large(content):
    for image in content["images"]:
        image.update(height=10**6, width=10**6)


def bomb(path):
    """A few kilobytes that say they are a picture of 20,000 x 20,000."""
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


NAN = math.nan
REFS, COCO = "refcoco/refs(unc).p", "refcoco/instances.json"
GREFS, GCOCO = "grefcoco/grefs(unc).json", "grefcoco/instances.json"
PICTURE = "images/mscoco/images/train2014/COCO_train2014_000000000007.jpg"
NOTE, PHOTO = "ReasonSeg/train/a.json", "ReasonSeg/train/a.jpg"
WORDS = "ReasonSeg/explanatory_key/keyword_outputs.json"


class Evil:
    def __reduce__(self):
        return (Path, ("/nowhere",))


# Format, file, what is done to it, and what the error says beside the file's name.
KINDS = {
    "refs gone": ("refer", REFS, remove, "is missing"),
    "refs cut": ("refer", REFS, cut, "not a valid pickle"),
    "refs are a page": ("refer", REFS, page, "not a valid pickle"),
    "refs run code": ("refer", REFS, lambda p: p.write_bytes(pickle.dumps(Evil())), "asks for"),
    "refs are no list": ("refer", REFS, lambda p: p.write_bytes(pickle.dumps(3)), "a list of refs"),
    "refs of another split": ("refer", REFS, lambda p: edit_refs(p, lambda r: r.clear()), "has no"),
    "ref without sentence": (
        "refer",
        REFS,
        lambda p: edit_refs(p, lambda r: r[0].update(sentences=[])),
        "an empty sentence",
    ),
    "ref without annotation": (
        "refer",
        REFS,
        lambda p: edit_refs(p, lambda r: r[0].update(ann_id=9)),
        "annotation 9 is not in",
    ),
    "instances gone": ("refer", COCO, remove, "is missing"),
    "instances cut": ("refer", COCO, cut, "not valid JSON"),
    "instances are a page": ("refer", COCO, page, "not valid JSON"),
    "instances are no COCO": ("refer", COCO, lambda p: p.write_text("[]"), "is not a COCO file"),
    "image not listed": (
        "refer",
        COCO,
        lambda p: change(p, lambda c: c["images"].clear()),
        "image",
    ),
    "no category": (
        "refer",
        COCO,
        lambda p: change(p, lambda c: c["categories"].clear()),
        "category",
    ),
    "half a corner": ("refer", COCO, segment([[*SQUARE, 5]]), "no x, y list"),
    "a word for a number": ("refer", COCO, segment([["a"] * 8]), "no x, y list"),
    "no segmentation": ("refer", COCO, segment(None), "segmentation is NoneType"),
    "runs of another size": ("refer", COCO, segment({"size": [1, 1], "counts": [1]}), "RLE size"),
    "runs that do not add up": (
        "refer",
        COCO,
        segment({"size": [8, 10], "counts": [3]}),
        "do not add up",
    ),
    "runs that fill no mask": (
        "refer",
        COCO,
        segment({"size": [8, 10], "counts": "5"}),
        "annotation 107: run lengths do not add up",
    ),
    "a corner that is no number": (
        "refer",
        COCO,
        segment([[*SQUARE[:7], math.nan]]),
        "annotation 107: segmentation part with nan",
    ),
    "a corner far away": (
        "refer",
        COCO,
        segment([[*SQUARE[:7], 1e15]]),
        "annotation 107: segmentation part with 1000000000000000.0",
    ),
    "an image as large as a country": (
        "refer",
        COCO,
        lambda p: change(p, large),
        "annotation 107: 1000000 x 1000000 is 1,000,000 megapixels",
    ),
    "an area that is none": (
        "refer",
        COCO,
        lambda p: change(p, lambda c: c["annotations"][0].update(area="x")),
        "annotation 107: area is 'x'",
    ),
    "a picture without a name": (
        "refer",
        COCO,
        lambda p: change(p, lambda c: c["images"][0].update(file_name=3)),
        "file_name",
    ),
    "grefs with a corner that is no number": (
        "grefer",
        GCOCO,
        segment([[*SQUARE[:7], math.nan]]),
        "annotation 107: segmentation part with nan",
    ),
    "picture gone": ("refer", PICTURE, remove, "images are missing"),
    "grefs gone": ("grefer", GREFS, remove, "is missing"),
    "grefs cut": ("grefer", GREFS, cut, "not valid JSON"),
    "grefs are no list": ("grefer", GREFS, lambda p: p.write_text("3"), "a list of refs"),
    "grefs on no image": (
        "grefer",
        GREFS,
        lambda p: change(p, lambda r: r[0].update(image_id=4)),
        "is on image 4",
    ),
    "grefs without annotation": (
        "grefer",
        GREFS,
        lambda p: change(p, lambda r: r[0].update(ann_id=[107, 9])),
        "annotation 9 is not in",
    ),
    "instances of grefs cut": ("grefer", GCOCO, cut, "not valid JSON"),
    "note cut": ("reason", NOTE, cut, "not valid JSON"),
    "note is a page": ("reason", NOTE, page, "not valid JSON"),
    "note without query": ("reason", NOTE, lambda p: change(p, lambda c: c.pop("text")), "'text'"),
    "note with an empty query": (
        "reason",
        NOTE,
        lambda p: change(p, lambda c: c.update(text=[" "])),
        "empty query",
    ),
    "shape without label": (
        "reason",
        NOTE,
        lambda p: change(p, lambda c: c["shapes"][0].pop("label")),
        "without label",
    ),
    "shape without points": (
        "reason",
        NOTE,
        lambda p: change(p, lambda c: c["shapes"][0].update(points=[[1]])),
        "without points",
    ),
    "shape with a point that is no number": (
        "reason",
        NOTE,
        lambda p: change(p, lambda c: c["shapes"][0]["points"].append([1, NAN])),
        "shape 'target' with nan",
    ),
    "shape that is no polygon": (
        "reason",
        NOTE,
        lambda p: change(p, lambda c: c["shapes"][0].update(shape_type="line")),
        "shape 'target' is a line",
    ),
    "photo of 400 megapixels": ("reason", PHOTO, bomb, "400000000 pixels"),
    "shapes that are none": (
        "reason",
        NOTE,
        lambda p: change(p, lambda c: c.update(shapes=3)),
        "",
    ),
    "photo gone": ("reason", PHOTO, remove, "images are missing"),
    "photo is a page": ("reason", PHOTO, page, "is not an image"),
    "keywords gone": ("reason", WORDS, remove, "keyword file is missing"),
    "keywords cut": ("reason", WORDS, cut, "not valid JSON"),
    "keywords are others": (
        "reason",
        WORDS,
        lambda p: p.write_text("[1]"),
        "needs json, query and",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_that_names_the_file(kind, roots):
    form, name, damage, says = KINDS[kind]
    root = roots[form]
    READERS[form](root)
    damage(root / name)
    with pytest.raises(DataError) as caught:
        READERS[form](root)
    message = str(caught.value)
    assert Path(name).name in message
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["note cut", "photo is a page", "ref without sentence"])
def test_what_is_wrong_with_one_example_leaves_the_others(kind, roots):
    form, name, damage, _ = KINDS[kind]
    whole = len(READERS[form](roots[form]))
    damage(roots[form] / name)
    problems: Problems = []
    assert 0 < len(READERS[form](roots[form], problems=problems)) < whole
    assert len(problems) == 1


def test_a_photo_of_5000_pixels(reason_folder):
    reason_folder.add("large", ["what barks"], [TARGET], size=(5000, 3333))
    (mask,) = read_reason(reason_folder.root, keywords=None)
    assert mask.shape == (3333, 5000)
    with Image.open(reason_folder.root / "ReasonSeg/train/large.jpg") as photo:
        assert photo.size == (5000, 3333)
