"""A few steps of the recipe that made the bundled backbones."""

import json

import pytest
import torch
from safetensors.torch import load_file

from keyseg.data.prefix import Prefix
from keyseg.data.scenes.queries import STYLES
from keyseg.model.backbones.llava import load_llava
from keyseg.model.backbones.sam import load_sam
from keyseg.model.packing import pack
from keyseg.tiny import llava, sam, stage, vision
from keyseg.tiny.__main__ import main

SIZES = ("--scenes", "8", "--held-out", "4", "--scored-batches", "1")
STAGES = ("sam", "vision", "words", "llava")
STEPS = [part for stage in STAGES for part in (f"--{stage}-steps", "2")]


@pytest.fixture(scope="module")
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        for module in (sam, vision, llava):
            patch.setattr(module, "IMAGES", 2)
        yield


@pytest.fixture(scope="module")
def made(small_batches, tmp_path_factory):
    """The folder of a recipe that ran through."""
    folder = tmp_path_factory.mktemp("recipe")
    run(folder)
    return folder


def run(folder, *more):
    main([*SIZES, *STEPS, "--work", str(folder / "work"), "--out", str(folder / "out"), *more])


def test_the_written_backbones_are_read_back(made):
    loaded = load_sam(made / "out/sam", "folder")
    trained = torch.load(made / "work/sam.pt", weights_only=True)
    assert trained["step"] == 2
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, trained["model"][f"0.{name}"].bfloat16().float())
    model, processor = load_llava(made / "out/llava")
    assert model.dtype == torch.float32
    assert model.config.tie_word_embeddings
    words = processor.tokenizer("find the red traffic light .")["input_ids"]
    assert processor.tokenizer.unk_token_id not in words
    packed, _ = pack([Prefix.of([1, 4])], [[words]], 0)
    with torch.no_grad():
        assert model(input_ids=packed.input_ids[:, 2:]).logits.isfinite().all()


def test_files_are_small_and_scores_are_stated(made):
    files = [p for p in (made / "out").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 12 * 2**20
    for name in ("sam", "llava"):
        weights = load_file(made / "out" / name / "model.safetensors")
        assert {v.dtype for v in weights.values()} == {torch.bfloat16}
    scores = json.loads((made / "out/sam/scores.json").read_text())
    assert scores.keys() == {"point", "box"}
    assert all(0 <= v <= 1 for v in scores.values())
    scores = json.loads((made / "out/llava/scores.json").read_text())
    assert scores.keys() <= {*STYLES, "chance"}
    assert 0 < scores.pop("chance") < 1
    assert scores
    assert all(0 <= v <= 1 for v in scores.values())
    lines = [json.loads(line) for line in (made / "work/log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in lines] == [(stage, 2) for stage in STAGES]


class StoppedError(Exception):
    """The process is gone at this point."""


@pytest.fixture
def stop_at(monkeypatch):
    """End a module's stages where their n-th step would begin; every step is saved."""
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)

    def arm(module, n):
        steps, whole = [], module.loss

        def loss(*arguments):
            steps.append(1)
            if len(steps) == n:
                raise StoppedError
            return whole(*arguments)

        monkeypatch.setattr(module, "loss", loss)
        return lambda: monkeypatch.setattr(module, "loss", whole)

    return arm


def test_stopped_in_every_stage_and_continued(made, small_batches, stop_at, tmp_path):
    for name, module in zip(STAGES, (sam, vision, llava, llava), strict=True):
        disarm = stop_at(module, 2 if name != "llava" else 3)  # after one that "words" has left
        with pytest.raises(StoppedError):
            run(tmp_path)
        disarm()
        assert torch.load(tmp_path / f"work/{name}.pt", weights_only=True)["step"] == 1
    run(tmp_path)
    for name in ("sam", "llava"):
        file = f"out/{name}/model.safetensors"
        assert (tmp_path / file).read_bytes() == (made / file).read_bytes()
    for name in STAGES:
        mine, other = (
            torch.load(f / f"work/{name}.pt", weights_only=True)["model"] for f in (tmp_path, made)
        )
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[k], other[k]) for k in mine)


def test_the_backbones_of_another_world(made, small_batches, tmp_path):
    """They know its words, and their SAM goes on from another one's weights."""
    steps = [part for stage in (*STAGES, "places") for part in (f"--{stage}-steps", "1")]
    start = ("--sam-start", str(made / "out/sam"))
    run(tmp_path, *steps, "--world", "bruegel", *start)
    lines = [json.loads(line) for line in (tmp_path / "work/log.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in lines] == [*STAGES, "places"]
    assert "held" in lines[-1]
    scores = json.loads((tmp_path / "out/llava/scores.json").read_text())
    assert scores.keys() == {"where", "what", "chance"}
    assert all(0 <= v <= 1 for v in scores.values())
    before, after = (load_file(f / "out/sam/model.safetensors") for f in (made, tmp_path))
    moved = [float((after[k].float() - v.float()).abs().max()) for k, v in before.items()]
    assert 0 < max(moved) < 0.05
    model, processor = load_llava(tmp_path / "out/llava")
    assert model.config.vision_config.image_size == 120
    assert model.config.image_seq_length == 100
    known, unknown = (
        processor.tokenizer.unk_token_id in processor.tokenizer(text)["input_ids"]
        for text in ("lid of the small wine bottle", "guide a sailor in a spaceship")
    )
    assert (known, unknown) == (False, True)


def test_unknown_stage(capsys):
    with pytest.raises(SystemExit):
        main(["sma"])
    assert "unknown stage sma: choose from sam, llava" in capsys.readouterr().err
