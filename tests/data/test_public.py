"""Every YAML of a public data set reads what is written in its format, and says what it misses."""

import io
import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from PIL import Image

from keyseg.config import PROJECT
from keyseg.data.files import DataError
from keyseg.data.masks import encode_rle
from keyseg.data.mix import ImageSampler, groups, load, prepare

DRAWN = ("scenes", "bruegel", "bruegel_no_target")
PUBLIC = sorted(
    file.stem
    for file in (PROJECT / "experiments" / "data").glob("*.yaml")
    if file.stem not in DRAWN
)
TARGET = {"label": "target", "points": [[2, 2], [7, 2], [7, 5], [2, 5]]}


@pytest.fixture
def disk(tmp_path, refer_folder, reason_folder):
    """A data.root with every public data set on it, tiny."""
    root = tmp_path / "disk"
    refer_folder.root, reason_folder.root = root / "refer_seg", root / "reason_seg"
    for split_by, splits in (
        ("unc", ("train", "val", "testA", "testB")),
        ("umd", ("train", "val", "test")),
        ("google", ("train", "val", "test")),
    ):
        base = refer_folder.refs[0]
        refer_folder.refs = [
            base | {"ref_id": i, "split": split, "ann_id": 107 + i % 3, "image_id": 7 + i % 3}
            for i, split in enumerate(splits)
        ]
        for dataset in ("refcoco", "refcoco+", "refcocog"):
            refer_folder.write(dataset, split_by)
    for dataset, split_by in (
        ("fprefcoco", "berkeley_exclude_unified"),
        ("rrefcoco", "unc"),
        ("rrsisd", "unc"),
    ):
        refer_folder.refs = [
            {"ref_id": i, "ann_id": 107, "split": split, "sentences": [{"sent": "dogs"}]}
            for i, split in enumerate(("train", "val", "testA", "testB", "test"))
        ]
        refer_folder.write(dataset, split_by)
    refer_folder.refs = [
        {"ref_id": i, "ann_id": [107], "image_id": 7, "split": s, "sentences": [{"sent": "dogs"}]}
        for i, s in enumerate(("train", "test"))
    ]
    refer_folder.write("ref-zom", "final")
    for folder in ("rrsisd/JPEGImages", "mscoco/images/trainval2014"):
        shutil.copytree(refer_folder.image_folder, root / "refer_seg/images" / folder)
    refer_folder.refs = [
        {"ref_id": i, "ann_id": [107], "image_id": 7, "split": s, "sentences": [{"sent": "dogs"}]}
        for i, s in enumerate(("train", "val", "testA", "testB"))
    ]
    refer_folder.write("grefcoco")
    (root / "refer_seg/grefcoco/grefs(unc).json").write_text(json.dumps(refer_folder.refs))
    for split in ("train", "val", "test"):
        for name in "abc":
            reason_folder.add(name, ["what barks"], [TARGET], split=split)
    reason_folder.keywords = [{"json": "a.json", "query": "what barks", "keyword": "dog"}]
    reason_folder.write_keywords()
    _write_questions(root, refer_folder)
    _write_parquet(root)
    return root


def _write_questions(root, refer_folder):
    """MUSE, MMR, LLM-Seg40K and RefCOCOm on the images of the refer data."""
    name, coco = refer_folder.images[0]["file_name"], root / "refer_seg/images/mscoco/images"
    runs = {"size": [8, 10], "counts": encode_rle(np.eye(8, 10))}
    shutil.copytree(coco / "train2014", coco / "train2017")
    shutil.copytree(coco / "train2014", root / "coco/train2017")
    item = {"height": 8, "width": 10, "questions": ["what barks"]}
    square = {"segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]], "category_name": "dog"}
    (root / "muse").mkdir()
    for split in ("train", "val", "test_less", "test_many"):
        muse = [item | {"file_name": name, "answers": [[square, square]]}, {"file_name": name}]
        (root / f"muse/muse_{split}.json").write_text(json.dumps(muse))
    (root / "MMR").mkdir()
    for split in ("train", "val", "test_mixed", "test_obj_only", "test_part_only"):
        part = {"segmentation": runs, "category_name": "dog's ear"}
        mmr = [item | {"file_name": f"train2017/{name}", "answers": [[part]]}]
        (root / f"MMR/MMR_{split}.json").write_text(json.dumps(mmr))
    (root / "LLMSeg40K").mkdir()
    pair = {"question": "What barks?", "answer": "The dog.", "rle_seg": runs}
    for split in ("train", "validation"):
        content = {name: {"from_dataset": "coco", "qa_pairs": [pair]}}
        (root / f"LLMSeg40K/{split}.json").write_text(json.dumps(content))
    folder = root / "refer_seg/RefCOCOm"
    (folder / "annotations").mkdir(parents=True)
    (folder / "masks").mkdir()
    Image.fromarray(np.eye(8, 10, dtype=np.uint8) * 255).save(folder / "masks/5.png")
    for split in ("testA", "testB"):
        entry = {"img_name": name, "segment_id": 5, "sentences": [{"sent": "the dog's ear"}]}
        (folder / f"annotations/{split}.json").write_text(json.dumps([entry]))


def _write_parquet(root):
    """The two data sets that are published as parquet."""
    file = io.BytesIO()
    Image.new("RGB", (10, 8)).save(file, "PNG")
    picture = {"bytes": file.getvalue(), "path": None}
    mask = np.eye(8, 10)
    reason = {"image": picture, "text": "what barks", "mask": (mask > 0).tolist()}
    rows = [reason | {"image_id": "a", "ann_id": "a", "img_height": 8, "img_width": 10}]
    sample = {"id": 1, "category": "dog", "sentences": ["left dog", "dog"], "bbox": [0, 0, 8, 8]}
    runs = {"counts": encode_rle(mask), "size": [8, 10]}
    refer = {"image": picture, "image_id": 7, "file_name": "COCO_train2014_000000000007.jpg"}
    for name, content in (
        ("ReasonSeg_val/data/test-00000-of-00001.parquet", rows),
        ("ReasonSeg_test/data/test-00000-of-00001.parquet", rows),
        (
            "refcoco-m/data/validation-00000-of-00001.parquet",
            [refer | {"samples": [sample | {"mask": runs}]}],
        ),
    ):
        (root / name).parent.mkdir(parents=True)
        pq.write_table(pyarrow.Table.from_pylist(content), root / name)


@pytest.mark.parametrize("name", PUBLIC)
def test_reads_all_its_splits(name, disk, compose_run):
    cfg = compose_run(f"data={name}", f"data.root={disk}", f"paths.data={disk}/made")
    assert cfg.data["name"] == name
    prepare(cfg.data)
    for split in ("train", "val", "test"):
        for source in load(cfg.data, split):
            assert source.examples
            assert all(e.mask().any() for e in source.examples)


@pytest.mark.parametrize("name", PUBLIC)
def test_absent_files_name_the_page_and_the_key(name, tmp_path, compose_run):
    cfg = compose_run(f"data={name}", f"data.root={tmp_path}")
    with pytest.raises(DataError) as caught:
        load(cfg.data, "train")
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "Public page: https://" in message
    assert f"Set data.root (now {tmp_path}) in experiments/data/{name}.yaml" in message
    assert "\n" not in message


def test_the_released_mix_is_nine_to_three(disk, compose_run):
    """In the long run; and an image of three refer sets brings the expressions of all."""
    cfg = compose_run("data=refer_reason", f"data.root={disk}")
    refer, reason = load(cfg.data, "train")
    assert (refer.weight, reason.weight) == (9, 3)
    assert [len(g.examples) for g in groups(refer.examples)] == [6]
    sampler = ImageSampler([refer, reason], 0, 8, 2)
    drawn = [g.image_id for n in range(500) for g in sampler.step(n)]
    share = sum(i.startswith("train2014") for i in drawn) / len(drawn)
    assert share == pytest.approx(0.75, abs=0.03)


def test_where_the_data_lies_does_not_change_the_signature(compose_run):
    from keyseg.config import signature

    one, two = (compose_run("data=refer_reason", f"data.root=/{d}") for d in "ab")
    assert signature(one) == signature(two)
