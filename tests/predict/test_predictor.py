"""A trained model on any image: what an evaluation says of it, and files that are never lost."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from keyseg import cli
from keyseg.config import ConfigError
from keyseg.data.masks import decode_rle
from keyseg.data.mix import groups, load
from keyseg.data.prompts import Conversation
from keyseg.predict.predictor import Predictor, is_sentence, load_model
from keyseg.train.evaluate import evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(make_finished):
    return make_finished("fusion=full")


@pytest.fixture(scope="module")
def examples(run):
    """Two expressions of one image of the test split, and one of another; nobody knows a target."""
    first, second = groups(e for s in load(run.config.data, "test") for e in s.examples)[:2]
    return [
        replace(e, text=None, keyword=None, is_sentence=is_sentence(e.query))
        for e in (*first.examples[:2], second.examples[0])
    ]


@pytest.fixture
def predict(run, tmp_path, monkeypatch):
    """`keyseg predict RUN ...` in this process and in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    always = ["--protocol", "teacher_forced", "--device", "cpu", "--out", "out"]

    def call(*arguments, name=run.path.name):
        line = ["--outputs", run.path.parent.parent, "predict", name, *arguments, *always]
        with pytest.raises(SystemExit) as caught:
            cli.main([str(word) for word in line])
        return caught.value.code

    return call


@pytest.mark.parametrize("protocol", ["teacher_forced", "generated"])
def test_says_what_the_evaluation_says(run, examples, protocol):
    cfg, asked = run.config, examples[:2]
    parts = load_model(cfg, run.best_file, CPU)
    records = list(evaluate(parts, groups(asked), cfg, protocol))
    found = Predictor(cfg, run.best_file, CPU)(
        asked[0].image, [e.query for e in asked], protocol
    )  # fmt: skip
    assert len(found) == 2
    for record, prediction in zip(records, found, strict=True):
        assert prediction.rle == record["mask_rle"]
        assert prediction.answer == record["answer"]
        assert json.loads(record["top_words"]) == [list(pair) for pair in prediction.words]
        if protocol == "teacher_forced":
            assert 0 < prediction.mask.mean() < 1
            assert prediction.predicted_iou == record["predicted_iou"]
            assert len(prediction.words) == 5


def test_a_phrase_and_a_sentence():
    assert not is_sentence("the red ball")
    assert all(map(is_sentence, ("what bounces ?", "Find it. ", "the one that bounces!")))


def test_pictures_and_json(predict, run, examples, tmp_path, capsys):
    image, query = examples[0].image, examples[0].query
    assert predict(image, query) == 0
    assert query in capsys.readouterr().out
    (file,) = (tmp_path / "out").glob("*.json")
    found = json.loads(file.read_text())
    assert (found["query"], found["run"]) == (query, run.path.name)
    assert found["top_words"][0]["word"] == found["keyword"]
    height, width = found["mask"]["size"]
    mask = decode_rle(found["mask"]["counts"], height, width)
    drawn = np.asarray(Image.open(file.parent / found["files"]["mask"]))
    assert np.array_equal(drawn, mask * 255)
    assert drawn.any()
    with Image.open(file.parent / found["files"]["overlay"]) as overlay:
        assert overlay.size == (width, height)
    assert found["area"] == pytest.approx(mask.mean(), abs=1e-6)

    written = file.stat().st_mtime_ns
    assert predict(image, query) == 0  # the same is not made again
    assert "1 of 1 were there already" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == written
    file.write_text(json.dumps(found | {"query": "another"}))
    assert predict(image, query) == 2
    assert "answer to another question" in capsys.readouterr().err
    file.write_text(json.dumps(found | {"checkpoint": "of before it was trained again"}))
    assert predict(image, query) == 2
    assert "its weights" in capsys.readouterr().err
    assert predict(image, query, "--overwrite") == 0
    assert json.loads(file.read_text()) == found


def test_a_table_goes_on_past_an_image_that_is_cut_short(predict, examples, tmp_path, capsys):
    names = ["a.png", "cut.png", "b.png"]
    for name, example in zip(names, examples, strict=True):
        (tmp_path / name).write_bytes(example.image.read_bytes())
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with (tmp_path / "asked.csv").open("w", newline="") as file:
        rows = [
            (names[0], "the ball"),
            (names[0], "a, b"),
            (names[1], "it"),
            (names[2], "the ball"),
        ]
        csv.writer(file).writerows([("query", "image"), *((q, i) for i, q in rows)])
    assert predict("--csv", "asked.csv") == 1
    assert "asked.csv, line 4: " in (said := capsys.readouterr().err)
    assert "cut.png is not an image that can be read" in said
    with (tmp_path / "out" / "asked-predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["query"] for row in table] == ["the ball", "a, b", "the ball"]
    assert all((tmp_path / "out" / row["json"]).exists() for row in table)
    (tmp_path / "cut.png").write_bytes(whole)
    assert predict("--csv", "asked.csv") == 0  # the rest only
    assert "3 of 4 were there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,query\nx.png,y\n", "no column image in its first line, which reads: picture,qu"),
        ("image,query\n", "no rows below its first line"),
        ("image,query\nnone.png,y\n", "line 2: there is no image /"),
        ("image,query\nasked.csv,y\n", "line 2: .*asked.csv is not an image that can be read"),
        ("image,query\nx.png,\n,y\n", "line 3: the image is empty"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_table_is_an_error_before_a_model_is_loaded(
    text, message, predict, tmp_path, capsys, monkeypatch
):
    import re

    monkeypatch.setattr("keyseg.predict.predictor.load_model", None)
    if text is not None:
        (tmp_path / "asked.csv").write_text(text)
    assert predict("--csv", "asked.csv") == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_bad_row_is_one_bad_row(predict, examples, tmp_path, capsys, monkeypatch):
    """Also where it is the model that fails, and where a query names a token."""
    (tmp_path / "a.png").write_bytes(examples[0].image.read_bytes())
    (tmp_path / "b.png").write_bytes(examples[1].image.read_bytes())
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    said = ["a.png,<image> [SEG] </s>", "a.png,it", "b.png,too long", "b.png,it", "bomb.png,it"]
    rows = [*said, ",it", "a.png, ", "none.png,it"]
    (tmp_path / "asked.csv").write_text("\n".join(["image,query", *rows]) + "\n")
    question = Conversation.question

    def fail(self, example, rng=None):
        if example.query == "too long":
            raise IndexError("index out of range in self")
        return question(self, example, rng)

    monkeypatch.setattr(Conversation, "question", fail)
    assert predict("--csv", "asked.csv") == 1
    errors = capsys.readouterr().err
    told = {line.split(",")[1].split(":")[0].strip() for line in errors.splitlines()}
    assert told == {"line 4", "line 6", "line 7", "line 8", "line 9"}
    assert "IndexError: index out of range" in errors
    assert "400000000 pixels" in errors
    with (tmp_path / "out" / "asked-predictions.csv").open(newline="") as file:
        assert [row["query"] for row in csv.DictReader(file)] == [
            "<image> [SEG] </s>", "it", "it",
        ]  # fmt: skip


def test_every_bad_row_is_named(predict, tmp_path, capsys):
    (tmp_path / "asked.csv").write_text("image,query\nx.png,y\n\nz.png,y\n")
    assert predict("--csv", "asked.csv") == 2
    said = capsys.readouterr().err
    assert "line 2: " in said
    assert "line 4: " in said


def test_runs_by_all_their_names(run, predict, make_finished, tmp_path, capsys, examples):
    """No model is loaded: what is asked for is missing, or there already."""
    from keyseg.runs.finding import find_finished

    outputs = run.path.parent.parent
    for name in (run.path.name, str(run.path), "fusion/full", "fusion/full/0"):
        assert find_finished(outputs, name).path.name == run.path.name
    again = make_finished("fusion=full", "seed=1", outputs=outputs)
    assert find_finished(outputs, "fusion/full/1").path == again.path
    image = examples[0].image
    for name, message in (
        ("fusion/full", "2 runs are called 'fusion/full'; choose one: "),
        ("fusion/ful", "there is no run 'fusion/ful' in "),
        ("no", "there are: fusion/full/"),
    ):
        assert predict(image, "x", name=name) == 2
        assert message in capsys.readouterr().err
    again.update(status="running")
    assert predict(image, "x", name="fusion/full/1") == 2
    assert "is not finished (status: running)" in capsys.readouterr().err
    again.update(status="done")
    config = again.config_file.read_text()
    again.config_file.write_text(config.replace("seed: 1", "sead: 1"))
    assert predict(image, "x", name="fusion/full/1") == 2
    assert "does not fit this version of keyseg (config key 'sead'" in capsys.readouterr().err
    again.config_file.write_text(config)
    again.best_file.unlink()
    assert predict(image, "x", name="fusion/full/1") == 2
    assert "holds no weights" in capsys.readouterr().err


def test_two_runs_of_one_name_are_told_apart(predict, make_finished, examples, tmp_path, capsys):
    """Single runs of other options: the same label, the same seed."""
    from keyseg.runs.finding import find_finished

    outputs = tmp_path / "outputs"
    one = make_finished("fusion=full", outputs=outputs)
    two = make_finished("fusion=full", "optim.steps=7", outputs=outputs)
    with pytest.raises(ConfigError) as error:
        find_finished(outputs, "fusion/full")
    for run in (one, two):
        assert f"fusion/{run.path.name} (done)" in str(error.value)
        assert find_finished(outputs, f"fusion/{run.path.name}").path == run.path
    two.update(status="failed")  # the finished one is meant
    assert find_finished(outputs, "fusion/full").path == one.path
    assert find_finished(outputs, "fusion/full/0").path == one.path
    one.update(status="failed")
    with pytest.raises(ConfigError, match="2 runs are called"):
        find_finished(outputs, "fusion/full")


@pytest.mark.parametrize("command", ["predict", "export"])
def test_what_is_not_the_trained_model_is_refused(
    command, make_finished, sam_folder, examples, tmp_path, capsys
):
    """Backbones that were replaced, and weights of the run that were: pyfunc's test has its own."""
    sam = tmp_path / "sam"
    shutil.copytree(sam_folder, sam)
    run = make_finished("fusion=full", f"model.sam={sam}", outputs=tmp_path / "outputs")
    asked = [examples[0].image, "it"] if command == "predict" else [tmp_path / "exported"]

    def call():
        with pytest.raises(SystemExit) as caught:
            cli.main([command, str(run.path), *map(str, asked)])
        return caught.value.code, capsys.readouterr().err

    best = run.best_file.read_bytes()
    run.update(checkpoint_fingerprint=hashlib.sha256(best).hexdigest()[:16])
    run.best_file.write_bytes(best[:-1] + b"x")
    code, said = call()
    assert code == 2
    assert "best.safetensors is not what the run left" in said
    assert "rerun=true" in said
    run.best_file.write_bytes(best)
    content = (sam / "model.safetensors").read_bytes()
    (sam / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, said = call()
    assert code == 2
    assert "are not the weights that run" in said
    assert not (tmp_path / "exported").exists()


def test_what_a_command_line_lacks(predict, examples, tmp_path, capsys):
    image = examples[0].image
    for arguments, message in (
        ((), "give IMAGE and QUERY"),
        ((image,), "give IMAGE and QUERY"),
        ((image, "x", "--csv", "y"), "not both"),
        ((tmp_path / "no.png", "x"), "there is no image"),
        ((image, " "), "the query is empty"),
    ):
        assert predict(*arguments) == 2
        assert message in capsys.readouterr().err
