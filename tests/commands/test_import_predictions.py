"""`keyseg import predictions` and `keyseg export predictions`: cells of other systems."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keyseg import cli
from keyseg.data.masks import decode_rle, encode_rle
from keyseg.report.store import load
from tests.data.conftest import ReasonFolder

SIZE = 12, 20
SQUARE = {"label": "target", "points": [[2, 2], [9, 2], [9, 9], [2, 9]]}
IGNORED = {"label": "ignore", "points": [[12, 0], [19, 0], [19, 11], [12, 11]]}


@pytest.fixture(autouse=True)
def no_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")


@pytest.fixture
def data(tmp_path):
    folder = ReasonFolder(tmp_path / "datasets" / "reason_seg")
    folder.add("1", ["the kettle", "the pot"], [SQUARE, IGNORED], split="val")
    folder.add("2", ["the lid"], [SQUARE], split="val")
    folder.add("3", ["nothing"], [], split="val")
    return folder.root.parent


@pytest.fixture
def keyseg(tmp_path, data, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(["--outputs", str(tmp_path / "outputs"), *map(str, arguments)])
        code = caught.value.code
        return code, capsys.readouterr()

    def imports(*paths, system="LISA-7B-v1", more=(), root=True):
        where = [f"data.root={data}"] if root else []
        options = ["--system", system, "--data", "reason_seg", "--split", "val"]
        return run("import", "predictions", *paths, *options, *more, *where)

    run.imports = imports
    run.outputs = tmp_path / "outputs"
    return run


def mask(left=2, right=9):
    drawn = np.zeros(SIZE, bool)
    drawn[2:10, left : right + 1] = True
    return {"size": list(SIZE), "counts": encode_rle(drawn)}


def lines(file, masks):
    names = ("1", "2", "3")
    entries = [
        {"id": f"ReasonSeg/val/{n}-0", "mask": m, "answer": f"It is {n}."}
        for n, m in zip(names, masks, strict=False)
    ]
    file.write_text("".join(json.dumps(e) + "\n" for e in entries))
    return file


def test_an_import_is_a_cell_with_its_origin(keyseg, tmp_path):
    file = lines(tmp_path / "lisa.jsonl", [mask(), mask(right=5), None])
    code, said = keyseg.imports(file, more=["--by", "the authors"])
    assert code == 0, said.err
    assert "3 of 3 examples have a prediction" in said.out
    assert "taken as generated, since --protocol is not given" in said.out
    (cell,) = load(keyseg.outputs / "LISA-7B-v1-reason_seg-val").cells
    assert (cell.label, cell.seed, cell.status) == ("LISA-7B-v1 (imported)", 0, "done")
    assert cell.imported["said_by"] == "the authors"
    assert len(cell.imported["sha256"]) == 64
    rows = cell.samples.set_index("id")
    assert rows["iou"].tolist() == [1.0, 0.5, 1.0]  # pixels to ignore count nowhere
    assert rows["answer"].iloc[0] == "It is 1."
    assert cell.info["protocol"]["texts"] == "first"
    assert cell.summary("generated", "giou") == pytest.approx(2.5 / 3)
    code, _ = keyseg.imports(file, more=["--by", "the authors"])
    assert code == 0
    assert len(load(keyseg.outputs / "LISA-7B-v1-reason_seg-val").cells) == 1


def test_several_files_are_seeds_and_another_file_of_a_seed_is_refused(keyseg, tmp_path):
    first = lines(tmp_path / "a.jsonl", [mask(), mask(), None])
    second = lines(tmp_path / "b.jsonl", [mask(), mask(right=5), None])
    assert keyseg.imports(first, second)[0] == 0
    folder = keyseg.outputs / "LISA-7B-v1-reason_seg-val"
    assert [c.seed for c in load(folder).variants[0].finished] == [0, 1]
    code, said = keyseg.imports(second)
    assert (code, "seed 0 of LISA-7B-v1 from another file or data" in said.err) == (2, True)
    assert keyseg.imports(second, more=["--seed", "2"])[0] == 0
    assert [c.seed for c in load(folder).variants[0].finished] == [0, 1, 2]


def test_what_does_not_fit_is_listed_both_ways_and_stops_the_import(keyseg, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"id": "ReasonSeg/val/9-0", "mask": None}) + "\n")
    with file.open("a") as more:
        more.write(json.dumps({"id": "ReasonSeg/val/1-0", "mask": mask()}) + "\n")
    code, said = keyseg.imports(file)
    assert code == 1
    assert "1 predictions are of no example (left out):\n" in said.out
    assert "p.jsonl, line 1: ReasonSeg/val/9-0; no example has this id" in said.out
    assert "2 examples have no prediction (error):\n  ReasonSeg/val/2-0: 2.jpg; the lid" in said.out
    assert not keyseg.outputs.exists()
    for how, ious in (("empty", [1.0, 0.0, 1.0]), ("left_out", [1.0])):
        assert keyseg.imports(file, more=["--missing", how, "--name", how])[0] == 0
        (cell,) = load(keyseg.outputs / how).cells
        assert cell.samples["iou"].tolist() == ious
        assert cell.imported["without"] == 2


def test_what_is_too_long_to_list_is_a_file_among_the_reports(keyseg, tmp_path):
    file = tmp_path / "p.jsonl"
    names = [f"ReasonSeg/val/{n}-0" for n in range(100, 121)]
    file.write_text("".join(json.dumps({"id": n, "mask": None}) + "\n" for n in names))
    code, said = keyseg.imports(file, more=[f"paths.reports={tmp_path / 'reports'}"])
    assert code == 1
    assert "  and 1 more\n" in said.out
    [written] = (tmp_path / "reports" / "imports").iterdir()
    assert f"all of them: {written}" in said.out
    rows = pd.read_csv(written)
    assert rows["name"].tolist()[: len(names)] == names
    assert rows["what"].tolist()[len(names) :] == ["example"] * 3


def test_a_wrong_mask_writes_nothing(keyseg, tmp_path):
    wrong = {"size": [10**6, 10**6], "counts": "0"}
    code, said = keyseg.imports(lines(tmp_path / "p.jsonl", [mask(), wrong, None]))
    assert code == 1
    assert f"{tmp_path / 'p.jsonl'}, line 2: mask of 1000000 x 1000000" in said.err
    assert not list(keyseg.outputs.glob("*/*/samples.parquet"))


def test_an_unknown_split_a_foreign_folder_and_an_own_protocol(keyseg, tmp_path):
    file = lines(tmp_path / "p.jsonl", [mask(), mask(), None])
    code, said = keyseg(
        "import", "predictions", file, "--system", "X", "--data", "refcoco", "--split", "testC"
    )
    assert (code, "split testC: data=refcoco has train, val, test, testA, testB" in said.err) == (
        2,
        True,
    )
    (keyseg.outputs / "ours" / "abc").mkdir(parents=True)
    (keyseg.outputs / "ours" / "abc" / "run.json").write_text("{}")
    code, said = keyseg.imports(file, more=["--name", "ours"])
    assert (code, "holds a sweep of our own" in said.err) == (2, True)
    head = json.dumps({"keyseg_predictions": 1, "protocol": "teacher_forced"})
    file.write_text(head + "\n" + file.read_text())
    code, said = keyseg.imports(file, more=["--protocol", "generated"])
    assert (code, "says that it is teacher_forced" in said.err) == (2, True)


def test_every_form_gives_the_same_cell(keyseg, tmp_path):
    masks = {"1": mask(right=7), "2": mask(right=5)}
    folder = tmp_path / "png"
    folder.mkdir()
    for name, code in masks.items():
        Image.fromarray(decode_rle(code["counts"], *SIZE) * 255).save(folder / f"{name}.png")
    Image.new("L", SIZE[::-1]).save(folder / "3-0.png")
    empty = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}
    coco = tmp_path / "coco.json"
    every = [*masks.items(), ("3", empty)]
    coco.write_text(json.dumps([{"image_id": n, "segmentation": m} for n, m in every]))
    plain = lines(tmp_path / "p.jsonl", [*masks.values(), None])
    frames = []
    for name, path in (("a", folder), ("b", coco), ("c", plain)):
        code, said = keyseg.imports(path, more=["--name", name])
        assert code == 0, said.err
        (cell,) = load(keyseg.outputs / name).cells
        frames.append(cell.samples.drop(columns="answer"))
    run = frames[-1]
    assert run["iou"].round(6).tolist() == [0.75, 0.5, 1.0]
    for frame in frames[:-1]:
        pd.testing.assert_frame_equal(frame, run)
    code, said = keyseg("export", "c/LISA-7B-v1 (imported)", tmp_path / "model")
    assert (code, "holds masks of another system (LISA-7B-v1) and no model" in said.err) == (
        2,
        True,
    )
    out = tmp_path / "again.jsonl"
    assert keyseg("export", "predictions", "c/LISA-7B-v1 (imported)", "--out", out)[0] == 0
    assert keyseg.imports(out, system="again", more=["--name", "d"])[0] == 0
    (cell,) = load(keyseg.outputs / "d").cells
    pd.testing.assert_frame_equal(cell.samples.drop(columns="answer"), run)


def test_sums_without_masks_stand_in_tables_and_are_not_scored_again(keyseg, tmp_path):
    entries = [
        {"img_id": n, "sent": q, "gt_nt": t == 0, "pred_nt": nt, "I": i, "U": u}
        for n, q, t, nt, i, u in (
            ("1", "the kettle", 64, False, 32, 64),
            ("2", "the lid", 64, True, 0, 90),  # it denies the target
            ("3", "nothing", 0, True, 0, 0),
        )
    ]
    file = tmp_path / "detailed_results.json"
    file.write_text(json.dumps(entries))
    assert keyseg.imports(file, more=["--name", "rela"])[0] == 0
    (cell,) = load(keyseg.outputs / "rela").cells
    assert cell.samples["iou"].tolist() == [0.5, 0.0, 1.0]
    assert cell.samples["union"].tolist() == [64, 64, 0]
    code, said = keyseg("score", "rela/LISA-7B-v1 (imported)")
    assert (code, "hold no masks to score again" in said.err) == (1, True)
    code, said = keyseg("export", "predictions", "rela/LISA-7B-v1 (imported)")
    assert (code, "sums of pixels and no masks" in said.err) == (2, True)
    for key, value, what in (
        ("U", 10, "do not go with a target"),
        ("gt_nt", True, "that there is none target"),
    ):
        file.write_text(json.dumps([{**entries[0], "I": 5, key: value}, *entries[1:]]))
        code, said = keyseg.imports(file, more=["--name", "wrong"])
        assert (code, "entry 1: " in said.err, what in said.err) == (1, True, True)
