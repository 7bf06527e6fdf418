"""Data sets that are published as parquet: what is unpacked, once, and from which files."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from PIL import Image

from keyseg.data import parquet
from keyseg.data.files import DataError
from keyseg.data.masks import encode_rle


def picture(form="PNG", size=(10, 8)):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, form)
    return {"bytes": file.getvalue(), "path": None}


def reason(**more):
    mask = np.eye(8, 10) > 0
    row = {"image": picture(), "text": " What barks? ", "mask": mask.tolist(), "image_id": "a"}
    return row | {"ann_id": "a_0"} | more


def refer(**more):
    sample = {"id": 4, "category": "dog", "sentences": ["left dog", "dog"]}
    sample |= {"mask": {"counts": encode_rle(np.eye(8, 10)), "size": [8, 10]}} | more
    return {"image": picture("JPEG"), "file_name": "COCO_train2014_7.jpg", "samples": [sample]}


@pytest.fixture
def unpacked(tmp_path):
    def unpack(*rows, name="data/test-0.parquet"):
        file = tmp_path / "public" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pyarrow.Table.from_pylist(list(rows)), file)
        parquet.prepare(tmp_path / "made", tmp_path / "public", {"test": "**/test-*.parquet"})
        return tmp_path / "made"

    return unpack


def test_reason_seg(unpacked):
    root = unpacked(reason(), reason(text="Who?", ann_id="a_1", mask=np.ones((8, 10)).tolist()))
    first, second = parquet.read(root, "test", "ReasonSeg-parquet", texts="first")
    assert (first.id, second.id) == ("ReasonSeg-parquet/test/a_0-0", "ReasonSeg-parquet/test/a_1-0")
    assert first.image == second.image == root / "images/test/a.png"
    assert (first.query, first.keyword, first.is_sentence) == ("What barks?", None, True)
    np.testing.assert_array_equal(first.mask(), np.eye(8, 10))
    assert second.mask().all()
    assert first.image.read_bytes() == picture()["bytes"]


def test_refcoco_m(unpacked):
    root = unpacked(refer())
    first, second = parquet.read(root, "test", "RefCOCO-M")
    assert (first.id, second.id) == ("RefCOCO-M/test/4-0", "RefCOCO-M/test/4-1")
    assert (first.keyword, first.query, first.is_sentence) == ("dog", "left dog", False)
    assert first.image == root / "images/test/COCO_train2014_7.jpg"
    np.testing.assert_array_equal(first.mask(), np.eye(8, 10))


def test_a_picture_of_coco_is_the_one_that_refer_data_has(unpacked):
    """So that training on it is seen, though RefCOCO-M brings its pictures along."""
    row = refer() | {"file_name": "COCO_train2014_000000000007_107.jpg"}
    first, _ = parquet.read(unpacked(row), "test", "RefCOCO-M")
    assert first.image_id == "train2014/COCO_train2014_000000000007"


def test_it_is_unpacked_once_and_other_files_are_not_taken_for_these(unpacked, tmp_path):
    root = unpacked(reason())
    made = (root / "test.json").stat().st_mtime_ns
    unpacked(reason())
    assert (root / "test.json").stat().st_mtime_ns == made
    (tmp_path / "public/data/test-0.parquet").unlink()  # 10 GB are given back
    assert parquet.prepare(root, tmp_path / "public", {"test": "**/test-*.parquet"}) is None
    with pytest.raises(DataError, match="was unpacked from other files"):
        unpacked(reason(), reason(ann_id="b"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"picture": 1}, "has the columns picture; known are"),
        (reason(image={"bytes": b"no picture", "path": None}), "row 0: .*not an image"),
        (reason(image=picture("BMP")), "row 0: .*a picture in BMP"),
        (reason(mask=[True, False]), "row 0: .*rows and columns expected"),
        (refer(mask=None), "row 0: TypeError"),
    ],
)
def test_what_cannot_be_unpacked_is_named_and_leaves_nothing(unpacked, tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        unpacked(row)
    assert not (tmp_path / "made").exists()


def test_a_damaged_file_is_named(unpacked, tmp_path):
    file = tmp_path / "public/test-1.parquet"
    file.parent.mkdir()
    file.write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=r"test-1\.parquet is no parquet file"):
        unpacked(reason())


def test_a_split_without_files_is_named(tmp_path):
    with pytest.raises(DataError, match=r"split 'test': no test-\*.parquet in"):
        parquet.prepare(tmp_path / "made", tmp_path, {"test": "test-*.parquet"})


def test_run_lengths_of_another_size_are_named(unpacked):
    root = unpacked(refer(mask={"counts": encode_rle(np.eye(8, 10)), "size": [8, 11]}))
    with pytest.raises(DataError, match="target 4: run lengths do not add up"):
        parquet.read(root, "test", "RefCOCO-M")


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside"])
def test_names_in_a_file_lead_nowhere_else(unpacked, tmp_path, name):
    root = unpacked(reason(image_id=name))
    (example,) = parquet.read(root, "test", "ReasonSeg-parquet")
    assert example.image == root / "images/test/outside.png"
