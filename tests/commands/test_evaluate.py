"""`keyseg evaluate`: finished runs on other data, once, apart from their own test."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from keyseg import cli
from keyseg.commands.completion import _known
from keyseg.commands.evaluate import as_trained
from keyseg.data.mix import groups, load, load_splits
from keyseg.predict.predictor import load_model
from keyseg.runs import code, evaluations
from keyseg.runs.evaluations import TestSet
from keyseg.runs.run_directory import RunDirectory
from keyseg.train.evaluate import evaluate, in_order
from keyseg.worker import evaluation as work
from keyseg.worker.kept_records import KeptRecords

VAL = TestSet("scenes", "val")


@pytest.fixture(scope="module")
def outputs(make_finished, tmp_path_factory):
    """A sweep of one finished run, fusion/full/0, with results on its own test."""
    folder = tmp_path_factory.mktemp("outputs")
    run = make_finished("fusion=full", "evaluation.protocols=[teacher_forced]", outputs=folder)
    run.write_samples(records(run, "test"))
    told = torch_free_hash(run)
    run.update(checkpoint_fingerprint=told, seed=0)
    cell = {"signature": run.path.name, "label": "full", "factors": {"fusion": "full"}, "seed": 0}
    design = {"name": "fusion", "question": "why?", "command": "run", "cells": [cell]}
    (folder / "fusion" / "sweep.json").write_text(json.dumps(design))
    return folder


def torch_free_hash(run):
    from keyseg.runs import disk

    return disk.sha256(run.best_file)[:16]


def records(run, split):
    parts = load_model(run.config, run.best_file, torch.device("cpu"))
    images = groups(e for s in load(run.config.data, split) for e in s.examples)
    made = evaluate(parts, images, run.config, "teacher_forced")
    return pd.DataFrame(in_order(made, images))


@pytest.fixture
def run(outputs):
    """The run, without any evaluation."""
    import shutil

    [folder] = (p.parent for p in (outputs / "fusion").glob("*/run.json"))
    found = RunDirectory(folder)
    shutil.rmtree(found.evaluations, ignore_errors=True)
    return found


@pytest.fixture
def asked(outputs, small_overrides, monkeypatch):
    """The command on this sweep, with the data where the tests have it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")  # tests/tracking/test_sync.py looks there
    data = [o for o in small_overrides if o.startswith("data.")]

    def ask(*words, places=data):
        command = ["--outputs", str(outputs), "evaluate", *words, *places, "--device", "cpu"]
        with pytest.raises(SystemExit) as ended:
            cli.main(command)
        return ended.value.code

    return ask


def table(run, of_set=VAL):
    [found] = [e for e in evaluations.read(run) if e.of_set == of_set]
    return found


def test_it_is_read_once_and_apart_from_the_runs_own_test(run, asked, capsys):
    own = run.samples_file.read_bytes(), (run.path / "run.json").read_bytes()
    assert asked("fusion", "data=scenes", "split=val") == 0
    said = capsys.readouterr().out
    assert "full, seed 0, on scenes val, teacher forced: gIoU" in said
    assert "those that chose the weights" in said  # it is the split that val is
    found = table(run)
    wanted = records(run, "val")
    assert found.samples["id"].tolist() == wanted["id"].tolist()
    assert found.samples["mask_rle"].tolist() == wanted["mask_rle"].tolist()
    assert found.about["protocol"]["splits"][0]["split"] == "val"
    assert found.about["trained_on"] == {
        "images": 0,
        "of": wanted["image_id"].nunique(),
        "val": len(wanted),
    }
    assert own == (run.samples_file.read_bytes(), (run.path / "run.json").read_bytes())
    assert asked("fusion/full", "data=scenes", "split=val") == 0
    assert "on scenes val, teacher forced: done already" in capsys.readouterr().out


def test_mlflow_is_made_level_or_says_so(run, asked, capsys, monkeypatch):
    told = []
    monkeypatch.setattr("keyseg.tracking.sync.sync", told.append)
    assert asked("fusion", "data=scenes", "split=val") == 0
    assert [each.path for each in told] == [run.path]

    def down(run):
        raise ConnectionError("no answer\nat all")

    monkeypatch.setattr("keyseg.tracking.sync.sync", down)
    assert asked("fusion", "data=scenes", "split=val", "prompt=lisa") == 0
    said = "MLflow is not level (no answer): `keyseg sync fusion` sends it later"
    assert said in capsys.readouterr().out


def test_dry_reads_nothing(run, asked, capsys):
    assert asked("fusion", "data=scenes", "split=val,test", "--dry") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", on ")[2] for line in lines] == [
        "scenes val, teacher forced: to be read",
        "scenes test, teacher forced: to be read",
    ]
    assert not run.evaluations.exists()


def test_what_was_broken_off_goes_on_where_it_stopped(run, asked, monkeypatch, capsys):
    one = "evaluation.images_per_batch=1"
    add, added = KeptRecords.add, []

    def until_two(self, *batch):
        add(self, *batch)
        added.append(batch)
        if len(added) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(KeptRecords, "add", until_two)
    assert asked("fusion", "data=scenes", "split=val", one) == 130
    assert asked("fusion", "data=scenes", "split=val", one, "--dry") == 0
    assert "to be read, 2 batches are kept" in capsys.readouterr().out
    assert asked("fusion", "data=scenes", "split=val", one) == 0
    images = len(load(run.config.data, "val")[0].examples)
    whole = records(run, "val")
    assert len(added) == whole["image_id"].nunique() < images + 1
    assert table(run).samples["mask_rle"].tolist() == whole["mask_rle"].tolist()
    assert not list((run.evaluations / VAL.folder).glob("test.*"))


def test_stale_results_are_decided_on(run, asked, monkeypatch, capsys):
    assert asked("fusion", "data=scenes", "split=val") == 0
    about = run.evaluations / VAL.folder / "teacher_forced.json"
    told = json.loads(about.read_text())
    listed = about.parent / "code.json"
    parts = json.loads(listed.read_text())
    known = next(part for part in parts if part.endswith(": evaluate_batches"))
    listed.write_text(json.dumps(parts | {known: "another"}))
    told["of"] |= {"code": "another", "data": "another"}
    about.write_text(json.dumps(told))
    capsys.readouterr()
    assert asked("fusion", "data=scenes", "split=val") == 2
    error = capsys.readouterr().err
    assert "1 of 1 evaluations are stale: stale=rerun" in error
    assert f"other code: {known}; other data: another then" in error
    assert asked("fusion", "data=scenes", "split=val", "stale=keep") == 0
    assert "done already (kept though stale: other code" in capsys.readouterr().out
    assert asked("fusion", "data=scenes", "split=val", "stale=rerun") == 0
    assert "gIoU" in capsys.readouterr().out
    assert json.loads(about.read_text())["of"]["data"] != "another"
    run.update(checkpoint_fingerprint=torch_free_hash(run))


def test_another_question_is_another_result(run, asked, capsys):
    assert asked("fusion", "data=scenes", "split=val") == 0
    assert asked("fusion", "data=scenes", "split=val", "prompt=lisa") == 0
    other = TestSet("scenes", "val", ("prompt=lisa",))
    assert table(run, other).samples["mask_rle"].tolist() != table(run).samples["mask_rle"].tolist()
    assert table(run, other).about["protocol"]["prompt"] == "lisa"
    assert {e.of_set for e in evaluations.read(run)} == {VAL, other}


def test_the_sweep_may_declare_the_test_sets(run, asked, outputs, capsys):
    file = outputs / "fusion" / "sweep.json"
    before = file.read_text()
    try:
        assert asked("fusion", "--dry") == 2
        assert "sweep fusion declares none (ablation.tests)" in capsys.readouterr().err
        file.write_text(json.dumps({**json.loads(before), "tests": ["scenes:val", "scenes:train"]}))
        assert asked("fusion", "--dry") == 0
        said = capsys.readouterr().out
        assert [f"on scenes {split}" in said for split in ("val", "train")] == [True, True]
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fusion", "data=scones"), "scenes"),
        (("fusion", "data=scenes", "split=vall"), "split vall: data=scenes has train, val, test"),
        (("fusion", "data=scenes:vall"), "split vall: data=scenes has train, val, test"),
        (("fusion", "spilt=val"), "Did you mean split?"),
        (("data=scenes",), "which run?"),
        (("nothing", "data=scenes"), "no run 'nothing'"),
        (("fusion", "data=scenes", "stale=maybe"), "stale=maybe: must be one of ask, rerun, keep"),
    ],
)
def test_what_cannot_be_asked_says_why(run, asked, capsys, words, message):
    assert asked(*words) == 2
    assert message in capsys.readouterr().err


def test_keywords_come_about_as_in_training():
    """Else keyword accuracy would compare with words that the run never learned to say."""
    own = as_trained("refcoco", [], "head_noun").data
    assert own["sources"]["refcoco"]["keyword"] == own["keyword"] == "head_noun"
    given = as_trained("refcoco", ["data.keyword=expression"], "head_noun").data
    assert given["keyword"] == "expression"
    assert as_trained("refcoco", [], None).data["keyword"] == "category"
    assert "keyword" not in as_trained("reason_seg", [], "head_noun").data


def test_a_shell_completes_runs_and_data(outputs):
    from argparse import Namespace

    action = Namespace(metavar="RUN", dest="words")
    found = _known(action, Namespace(outputs=str(outputs)))
    assert {"fusion", "fusion/full/0", "data=scenes", "data=refcocog"} <= set(found)
    assert not any(
        "data=" in f
        for f in _known(Namespace(metavar="RUN", dest="runs"), Namespace(outputs=str(outputs)))
    )


def test_the_code_that_it_depends_on_is_that_of_reading(run):
    parts = code.of(code.targets(run.config), code.EVALUATION).parts
    names = {part.rpartition(": ")[2] for part in parts}
    assert {"samples_of", "build", "load_trainable", "evaluate_batches", "KeySeg"} <= names
    assert "Trainer" not in names
    for root in code.EVALUATION:
        module, _, name = root.rpartition(".")
        assert f"{module.replace('.', '/')}.py: {name}" in parts


def test_another_process_at_it_is_left_to_it(run, asked, capsys):
    import filelock

    folder = run.evaluations / VAL.folder
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / "lock"):
        child = os.fork()
        if child == 0:
            code_ = asked("fusion", "data=scenes", "split=val")
            os._exit(0 if code_ == 0 and "left out" in capsys.readouterr().out else 1)
        _, status = os.waitpid(child, 0)
    assert status == 0
    assert not list(evaluations.read(run))


def test_the_model_is_loaded_once_for_several_test_sets(run, asked, monkeypatch):
    loaded = []
    real = work.load_model

    def count(*arguments, **options):
        loaded.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(work, "load_model", count)
    assert asked("fusion", "data=scenes", "split=val,test") == 0
    assert len(loaded) == 1


def test_a_process_of_its_own_reads_what_is_not_there(run, asked, capsys):
    there = ("hydra/launcher=local", "hydra.launcher.n_jobs=1")
    assert asked("fusion", "data=scenes", "split=val", *there) == 0
    assert "full, seed 0, on scenes val, teacher forced: gIoU" in capsys.readouterr().out
    assert table(run).samples["mask_rle"].tolist() == records(run, "val")["mask_rle"].tolist()
    assert "on scenes val, teacher forced: gIoU" in run.log_file.read_text()  # what it printed
    assert asked("fusion", "data=scenes", "split=val", *there) == 0
    assert "done already" in capsys.readouterr().out


def test_a_process_that_fails_is_named_with_its_log(run, asked, capsys, monkeypatch):
    from keyseg.sweep.local import launcher

    monkeypatch.setattr(launcher, "KEYSEG", ("false",))
    assert asked("fusion", "data=scenes", "split=val", "hydra/launcher=local") == 1
    error = capsys.readouterr().err
    assert f"not read, its process ended with 1; log: {run.log_file}" in error


def test_only_what_was_read_in_training_is_called_trained_on(run):
    own = run.config
    train, val = (load_splits(own.data, [s])[0] for s in ("train", "val"))
    shown = [e for source in (*train, *val) for e in source.examples]
    part = replace(
        own,
        data={**own.data, "train_images": 2},
        evaluation=replace(own.evaluation, val_images=1),
    )
    model = work.FinishedModel(SimpleNamespace(info=run.info, config=part), "cpu")
    seen = model._seen_before(shown)
    first = groups(e for source in val for e in source.examples)[0]
    assert seen["images"] == 2
    assert seen["val"] == len(first.examples)
