"""Every YAML of a public data set reads what is written in its format, and says what it misses."""

import pytest

from keyseg.config import PROJECT
from keyseg.data.files import DataError
from keyseg.data.mix import ImageSampler, groups, load, prepare

PUBLIC = sorted(
    file.stem
    for file in (PROJECT / "experiments" / "data").glob("*.yaml")
    if "prepare:" not in file.read_text()
)
TARGET = {"label": "target", "points": [[2, 2], [7, 2], [7, 5], [2, 5]]}


@pytest.fixture
def disk(tmp_path, refer_folder, reason_folder):
    """A data.root with every public data set on it, tiny."""
    import json

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
    return root


@pytest.mark.parametrize("name", PUBLIC)
def test_reads_all_its_splits(name, disk, compose_run):
    cfg = compose_run(f"data={name}", f"data.root={disk}")
    assert cfg.data["name"] == name
    prepare(cfg.data)
    for split in ("train", "val", "test"):
        for source in load(cfg.data, split):
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
