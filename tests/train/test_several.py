"""Queries with several targets, from a file of MUSE's form to the report: the real path."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from keyseg import cli
from keyseg.config import signature
from keyseg.data.assignment import assign_masks
from keyseg.data.files import DataError
from keyseg.data.masks import decode_rle, encode_rle
from keyseg.data.mix import groups, load
from keyseg.data.predictions import json_lines, matching
from keyseg.data.predictions.reading import read
from keyseg.metrics import OF_SEVERAL, summarise
from keyseg.predict.export import export
from keyseg.predict.exported_script import Exported
from keyseg.predict.predictor import Predictor
from keyseg.runs.run_directory import DONE, RunDirectory, now
from keyseg.runs.samples import SAMPLE_COLUMNS, SEVERAL_COLUMNS
from keyseg.sweep.imported import Import, samples
from keyseg.train.batch import MISSING
from keyseg.train.build import build
from keyseg.train.distributed import ALONE
from keyseg.train.evaluate import evaluate, in_order
from keyseg.train.trainer import Counts, compute_losses
from keyseg.worker.run import work

HEIGHT, WIDTH = 60, 80


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def target(category, *corners, name=None):
    return {"segmentation": box(*corners), "category_name": category, "rephrased_name": name}


BALL = target("ball", 5, 5, 25, 25, name="red ball")
KITE = target("kite", 40, 30, 70, 50)
SECOND_BALL = target("ball", 30, 5, 50, 20)


@pytest.fixture(scope="module")
def muse(tmp_path_factory):
    """MUSE's files: questions with two targets, with one, with none."""
    root = tmp_path_factory.mktemp("datasets")
    images = root / "refer_seg/images/mscoco/images/train2014"
    images.mkdir(parents=True)
    (root / "muse").mkdir()
    for split, names in {"train": "ab", "val": "cd", "test_less": "ef", "test_many": "gh"}.items():
        items = []
        for name in names:
            noise = np.random.default_rng(ord(name)).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(noise).save(images / f"{name}.jpg")
            items.append(
                {
                    "file_name": f"{name}.jpg",
                    "height": HEIGHT,
                    "width": WIDTH,
                    "questions": ["find the toys .", "find the balls .", "find the car ."],
                    "answers": [[BALL, KITE], [SECOND_BALL, BALL], []],
                    "text_answers": ["the red ball {seg} and a kite {seg} .", None, None],
                }
            )
        (root / f"muse/muse_{split}.json").write_text(json.dumps(items))
    return root


@pytest.fixture(scope="module")
def make(compose_run, llava_folder, sam_folder, shake, muse, tmp_path_factory):
    """A model that nobody trained, its config, and the test images."""
    features = tmp_path_factory.mktemp("features")

    def made(*overrides):
        cfg = compose_run(
            "data=muse",
            f"data.root={muse}",
            f"model.llava={llava_folder}",
            f"model.sam={sam_folder}",
            f"paths.data={features}",
            "model.frozen=fp32",
            "model.precision=fp32",
            "optim.images_per_step=2",
            "runtime.device=cpu",
            *overrides,
        )
        torch.manual_seed(0)
        parts = build(cfg, torch.device("cpu"))
        shake(parts.model)
        return parts, cfg, groups(e for s in load(cfg.data, "test") for e in s.examples)

    return made


@pytest.fixture(scope="module")
def cell(make):
    return make()


def decoded(stored):
    return [decode_rle(code, HEIGHT, WIDTH) == 1 for code in json.loads(stored)]


@pytest.mark.parametrize("order", ["key_first", "seg_first"])
def test_every_target_is_a_mask_of_its_own(make, order):
    parts, cfg, _ = make(f"model.tokens.order={order}")
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    batch = parts.collator([group])
    assert batch.owners == batch.target_owners == [0, 0, 1, 1, 2]
    assert batch.example_rows == [0, 0, 0]
    ids, talk = batch.packed.input_ids[0], parts.conversation
    assert (ids[batch.seg_at] == talk.seg_id).all()
    assert (ids[batch.key_at] == talk.key_id).all()
    assert len(set(batch.seg_at.tolist())) == 5
    words = [talk.text(k) for k in batch.keyword_ids]
    assert words == ["ball", "kite", "ball", "ball", ""]
    assert [int((m == 1).sum()) for m in batch.masks] == [400, 600, 300, 400, 0]
    assert Counts.of(batch)[1:] == (5, 4, 5)
    segments = batch.packed.segments[0, batch.seg_at].tolist()
    assert segments == [1, 1, 2, 2, 3], "an expression has one row of tokens"


def test_the_loss_of_each_mask_is_its_own(cell):
    """As if every mask were drawn of a batch with the others' targets left out."""
    parts, cfg, _ = cell
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    batch = parts.collator([group])
    with torch.no_grad():
        output = parts.model(batch)
        whole = float(compute_losses(output, batch, cfg, parts.model.frame).terms["bce"])
        each = []
        for n in range(5):
            for k, mask in enumerate(batch.masks):
                batch.masks[k] = mask if k == n else torch.full_like(mask, 255)
            each.append(float(compute_losses(output, batch, cfg, parts.model.frame).terms["bce"]))
            batch = parts.collator([group])
    assert sum(each) == pytest.approx(whole, rel=1e-5)
    assert len(set(each)) == 5


def test_records_of_given_answers(cell):
    parts, cfg, images = cell
    rows = in_order(evaluate(parts, images, cfg, "teacher_forced"), images)
    two, same, none = rows[:3]
    assert set(SAMPLE_COLUMNS) | set(SEVERAL_COLUMNS) <= two.keys()
    assert [(r["n_masks"], r["n_targets"]) for r in rows[:3]] == [(2, 2), (2, 2), (1, 0)]
    for row, wanted in ((two, 2), (same, 2), (none, 0)):
        masks, targets = decoded(row["masks_rle"]), decoded(row["targets_rle"])
        assert len(targets) == wanted
        found = assign_masks(masks, [t.astype(np.uint8) for t in targets])
        assert row["matches"] == json.dumps(found.matches)
        assert row["matched_iou"] == found.iou
        union = np.logical_or.reduce(masks)
        assert row["mask_rle"] == encode_rle(union)
        assert (
            row["intersection"] == (union & np.logical_or.reduce([*targets, union & False])).sum()
        )
    assert any(m.any() for r in rows for m in decoded(r["masks_rle"]))
    # Two categories: no keyword of the whole query, but one of each target.
    assert (two["keyword"], two["keyword_rank"], two["keywords_known"]) == (None, -1, 2)
    assert (same["keyword"], same["keywords_known"], none["keywords_known"]) == ("ball", 2, 0)
    assert same["keyword_rank"] >= 0
    assert {r["target_noun"] for r in rows} == {None}
    summary = summarise(pd.DataFrame(rows))
    assert set(OF_SEVERAL) - set(summary) == {"muse_det_count"}, "given answers tell the count"


def answering(parts, monkeypatch, *answers):
    """The model writes these, one after the other, again and again."""
    tokenizer = parts.conversation.tokenizer
    written = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]

    def generate(prefix, questions, *_):
        return [written[n % len(written)] for n in range(len(questions))]

    monkeypatch.setattr(parts.model.vlm, "generate", generate)


def test_any_number_of_masks_may_be_generated(cell, monkeypatch):
    parts, cfg, images = cell
    three = "a [KEY] [SEG] a [KEY] [SEG] and [KEY] [SEG] ."
    answering(parts, monkeypatch, three, "nothing .", "a ball [KEY] [SEG] and [SEG]")
    (group, *_) = images
    rows = list(evaluate(parts, [group], cfg, "generated"))
    assert [(r["n_masks"], r["n_targets"]) for r in rows] == [(3, 2), (0, 2), (2, 0)]
    assert [r["has_seg"] for r in rows] == [True, False, True]
    assert [r["has_key"] for r in rows] == [True, False, False]
    assert rows[1]["mask_rle"] == encode_rle(np.zeros((HEIGHT, WIDTH)))
    assert (rows[1]["masks_rle"], rows[1]["matched_iou"]) == ("[]", 0.0)
    assert rows[1]["matched_union"] == 700
    assert sorted(json.loads(rows[0]["matches"])) == [-1, 0, 1]
    _, second = decoded(rows[2]["masks_rle"])
    assert not second.any(), "a SEG without its KEY draws nothing"
    assert summarise(pd.DataFrame(rows))["muse_det_count"] == 0
    # The same three answers as a batch of masks.
    batch = parts.collator([group])
    other = parts.collator.with_answers(batch, parts.model.vlm.generate(None, [None] * 3))
    assert other.owners == [0, 0, 0, 1, 2, 2]
    assert other.target_owners == batch.target_owners
    assert (other.seg_at == MISSING).tolist() == [False] * 3 + [True] + [False] * 2


def test_a_union_is_one_mask(make):
    parts, cfg, _ = make("data.targets=union")
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    (row, *_) = evaluate(parts, [group], cfg, "teacher_forced")
    assert not set(SEVERAL_COLUMNS) & row.keys()
    assert parts.collator([group]).owners == [0, 1, 2]


@pytest.fixture(scope="module")
def trained(cell, tmp_path_factory):
    """Two steps through the worker's own path."""
    _, cfg, _ = cell
    cfg.optim.steps = cfg.optim.eval_every = cfg.optim.checkpoint_every = 2
    cfg.optim.warmup, cfg.runtime.log_every, cfg.evaluation.max_new_tokens = 0, 1, 8
    outputs = tmp_path_factory.mktemp("outputs")
    name = signature(cfg)
    run = RunDirectory.create(outputs / "muse" / name, cfg, label="full")
    done = work(run, cfg, ALONE)
    run.update(status=DONE, seed=cfg.seed, factors={}, **done)
    entry = {"signature": name, "label": "full", "factors": {}, "seed": 0, "overrides": []}
    design = {"name": "muse", "factors": {}, "replicate": "seed", "cells": [entry]}
    design |= {"question": None, "baseline": {}, "metrics": ["giou"], "contrasts": []}
    design |= {"published": None, "command": "keyseg", "started": now(), "mlflow_parent": None}
    (run.path.parent / "sweep.json").write_text(json.dumps(design))
    return run


def test_a_run_from_its_data_to_its_report(trained, muse, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    stored = trained.samples()
    assert set(SEVERAL_COLUMNS) <= set(stored)
    assert set(stored["protocol"]) == {"teacher_forced", "generated"}
    for scores in trained.info["summary"].values():
        assert 0 <= scores["muse_det_giou"] <= 1
    # A picture of one's own: as many masks as the model says.
    predictor = Predictor(trained.config, trained.best_file, torch.device("cpu"))
    answering(predictor.parts, monkeypatch, "a [KEY] [SEG] and b [KEY] [SEG] .", "nothing .")
    picture = muse / "refer_seg/images/mscoco/images/train2014/a.jpg"
    two, none = predictor(picture, ["find the toys .", "find the car ."])
    assert [len(p.masks) for p in (two, none)] == [2, 0]
    assert np.array_equal(np.logical_or(*two.masks), two.mask)
    assert [m["size"] for m in two.to_dict()["masks"]] == [[HEIGHT, WIDTH]] * 2
    assert (none.to_dict()["masks"], none.predicted_iou) == ([], None)
    # The same of its export, with nothing but transformers and segment_anything.
    exported = Exported(export(trained, tmp_path / "model"))
    said = exported.processor.tokenizer(two.answer, add_special_tokens=False)["input_ids"]
    there = exported(Image.open(picture), two.query, said)
    assert len(there.masks) == 2
    assert all((a != b).mean() < 0.01 for a, b in zip(there.masks, two.masks, strict=True))
    assert exported(Image.open(picture), none.query, []).masks == []

    def keyseg(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(["--outputs", str(trained.path.parents[1]), *map(str, arguments)])
        assert caught.value.code == 0, capsys.readouterr()
        return capsys.readouterr().out

    assert "muse_det" in keyseg("score", "muse/full")
    out = tmp_path / "report"
    keyseg("report", "muse", "--out", out)
    page = (out / "muse/index.html").read_text()
    assert "Several targets" in page
    assert "numbers in print are another protocol" in page
    assert "of several targets each has a colour of its own" in page
    assert "masks: 2, targets: 2" not in page, "as it should be is no remark"
    assert "masks: 0, targets: 2" not in page
    # What others get of it, read again, is the same to the last digit.
    file = tmp_path / "masks.jsonl"
    keyseg("export", "predictions", "muse/full", "--protocol", "teacher_forced", "--out", file)
    _, found = json_lines.read(file)
    examples = [e for s in load(trained.config.data, "test") for e in s.examples]
    again = samples(_import(file, matching.match(found, examples), trained.config.data))
    before = stored[stored["protocol"] == "teacher_forced"].reset_index(drop=True)
    for column in ("matches", "matched_iou", "matched_union", "masks_rle", "mask_rle", "iou"):
        assert again[column].tolist() == before[column].tolist()


def _import(file, matched, data):
    return Import("us", read(file), matched, data, "all", "teacher_forced", "us", 0)


def test_predictions_of_one_mask_each_are_joined(muse, cell, tmp_path):
    _, cfg, images = cell
    example = images[0].examples[0]
    code = {"size": [HEIGHT, WIDTH], "counts": encode_rle(example.masks()[0])}
    entry = {"id": example.id, "segmentation": code}
    file = tmp_path / "results.json"
    file.write_text(json.dumps([entry, entry | {"score": 0.5}]))
    matched = matching.match(read(file).predictions, [example])
    (row,) = samples(_import(file, matched, cfg.data)).to_dict("records")
    assert (row["n_masks"], row["n_targets"], row["matched_iou"]) == (2, 2, 1.0)
    assert row["intersection"] == 400
    line = json.dumps({"id": example.id, "masks": [code]})
    (file := tmp_path / "masks.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError, match=r"line 2: .* has a prediction already"):
        matching.match(read(file).predictions, [example])
