"""A merged model, read back by plain transformers and segment_anything."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from transformers import AutoProcessor, LlavaForConditionalGeneration

from keyseg import cli
from keyseg.config import ConfigError
from keyseg.data.masks import decode_rle
from keyseg.data.mix import groups, load
from keyseg.model.backbones.sam import build_sam, load_sam
from keyseg.predict.export import export
from keyseg.predict.exported_script import Exported
from keyseg.predict.predictor import load_model
from keyseg.runs.run_directory import RunDirectory
from keyseg.tiny.arch import SAM_SIZES
from tests import forked

CPU = torch.device("cpu")
RELEASED = (
    "model.tokens.order=seg_first",
    "model.tokens.rows=all",
    "model.shared_projection=true",
    "model.clip_view=pad",
    "loss.keyword.table=projected",
    "prompt=released",
)


@pytest.fixture(scope="module")
def run(make_finished):
    return make_finished("fusion=full", "model.tokens.n_keys=2")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    return export(run, tmp_path_factory.mktemp("exports") / "model")


@pytest.fixture(scope="module")
def parts(run):
    return load_model(run.config, run.best_file, CPU)


@pytest.fixture(scope="module")
def group(run):
    return groups(e for s in load(run.config.data, "test") for e in s.examples)[0]


@torch.no_grad()
def test_transformers_reads_the_language_model(folder, parts, group):
    """One expression, no packing: the logits at its answer, from pixels on."""
    batch = parts.collator([type(group)(group.image, group.image_id, group.examples[:1])])
    wanted = parts.model(batch).text_logits
    llava, info = LlavaForConditionalGeneration.from_pretrained(
        folder / "llava", output_loading_info=True
    )
    assert not any(info.values())
    processor = AutoProcessor.from_pretrained(folder / "llava")
    with Image.open(group.image) as picture:
        pixels = processor(text=["<image>"], images=[picture.convert("RGB")], return_tensors="pt")
    found = llava(
        input_ids=batch.packed.input_ids, pixel_values=pixels["pixel_values"]
    ).logits.flatten(0, 1)[batch.supervised]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
    talk = parts.conversation
    assert processor.tokenizer.convert_tokens_to_ids("[SEG]") == talk.seg_id
    assert processor.tokenizer("[KEY] [SEG]", add_special_tokens=False)["input_ids"] == [
        talk.key_id,
        talk.seg_id,
    ]


@torch.no_grad()
@pytest.mark.parametrize("variant", ["full", "seg_only", "self", "no_key", "released", "mlp"])
def test_the_same_mask_and_words(variant, request, make_finished, tmp_path):
    """With the answer given to both sides: a random model writes none with a token in it."""
    from keyseg.train.evaluate import evaluate

    if variant == "full":
        run, folder = request.getfixturevalue("run"), request.getfixturevalue("folder")
    else:
        as_released = RELEASED if variant == "released" else ("prompt=lisa",)
        run = make_finished(f"fusion={variant}", "model.tokens.state=previous", *as_released)
        folder = export(run, tmp_path / "model")
    group = request.getfixturevalue("group")
    parts = load_model(run.config, run.best_file, CPU)
    record = next(evaluate(parts, [group], run.config, "teacher_forced"))
    exported = Exported(folder)
    turn = parts.conversation.turn(group.examples[0])
    with Image.open(group.image) as picture:
        answer = exported(picture, record["query"], turn.ids[turn.answer :])
        written = exported(picture, record["query"])
    mask = decode_rle(record["mask_rle"], record["height"], record["width"])
    assert 0.01 < mask.mean() < 0.99
    assert (answer.mask == mask).mean() > 0.999
    assert answer.iou == pytest.approx(record["predicted_iou"], abs=1e-3)
    words = json.loads(record["top_words"])
    assert [w for w, _ in answer.words] == [w for w, _ in words]
    assert [p for _, p in answer.words] == pytest.approx([p for _, p in words], abs=1e-3)
    generated = next(evaluate(parts, [group], run.config, "generated"))
    assert written.text.replace("</s>", "").strip() == generated["answer"]


def test_segment_anything_reads_sam(folder, parts, run):
    sam = load_sam(folder / "sam", "folder")
    state, decoder = sam.state_dict(), parts.model.mask_head.decoder.state_dict()
    assert all(torch.equal(state[f"mask_decoder.{k}"], v) for k, v in decoder.items())
    base = load_file(f"{run.config.model.sam}/model.safetensors")
    encoder = [k for k in base if k.startswith("image_encoder.")]
    assert all(torch.equal(state[k], base[k]) for k in encoder)
    trained = "mask_decoder.mask_tokens.weight"
    assert not torch.equal(state[trained], base[trained])


def test_a_public_type_stays_a_public_file(make_finished, tmp_path, monkeypatch):
    """Only the network is small: the registry reads what is written, with every key."""
    small = lambda checkpoint=None: _filled(build_sam(SAM_SIZES), checkpoint)  # noqa: E731
    monkeypatch.setitem(sam_model_registry, "vit_b", small)
    torch.save(small().state_dict(), tmp_path / "sam.pth")
    run = make_finished(
        "fusion=seg_only", f"model.sam={tmp_path / 'sam.pth'}", "model.sam_type=vit_b"
    )
    folder = export(run, tmp_path / "model")
    found = sam_model_registry["vit_b"](folder / "sam.pth").state_dict()
    decoder = load_model(run.config, run.best_file, CPU).model.mask_head.decoder.state_dict()
    assert all(torch.equal(found[f"mask_decoder.{k}"], v) for k, v in decoder.items())
    assert 'sam_model_registry["vit_b"]("sam.pth")' in (folder / "README.md").read_text()


def _filled(sam, checkpoint):
    if checkpoint is not None:
        sam.load_state_dict(torch.load(checkpoint, weights_only=True))
    return sam.eval()


def test_the_card_is_true(folder, run, group, tmp_path):
    """Its block of Python runs where it says, and so does predict.py."""
    text = (folder / "README.md").read_text()
    assert run.path.name in text
    assert "| teacher_forced | 50.0 | 25.0 | 100.0 |" in text
    block = text.partition("```python\n")[2].partition("```")[0]
    block += "print(len(head), language.num_parameters(), type(sam).__name__)"
    for command in (["-c", block], ["predict.py", group.image, "a ball", tmp_path / "mask.png"]):
        done = forked.run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "mask.png") as mask, Image.open(group.image) as picture:
        assert mask.size == picture.size
        assert set(np.unique(mask)) <= {0, 255}


def test_half_precision_halves_the_file(run, tmp_path, capsys):
    line = ["--outputs", str(run.path.parent.parent), "export", run.path.name, str(tmp_path / "m")]
    with pytest.raises(SystemExit) as caught:
        cli.main([*line, "--dtype", "bf16"])
    assert caught.value.code == 0
    assert "README.md says how to load it" in capsys.readouterr().out
    half = LlavaForConditionalGeneration.from_pretrained(tmp_path / "m" / "llava")
    assert half.dtype == torch.bfloat16


def test_nothing_is_overwritten_or_left_half(run, folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="holds something already"):
        export(run, folder)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ConfigError, match=r"0\.0 GB free, the export needs about"):
        export(run, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_random_base(small_run, tmp_path):
    run = RunDirectory.create(tmp_path / "run", small_run("model.init=random"))
    with pytest.raises(ConfigError, match=r"model\.init=random: it has no base"):
        export(run, tmp_path / "model")


def test_a_base_that_knows_the_tokens_keeps_their_rows(run, folder, compose_run):
    """An export taken for `model.llava`: KEY and SEG are what they were trained to be."""
    from keyseg.train.build import build

    cfg = compose_run(
        f"model.llava={folder / 'llava'}",
        f"model.sam={folder / 'sam'}",
        "fusion=no_key",
        "model.precision=fp32",
        "model.frozen=fp32",
    )
    before = load_file(folder / "llava" / "model.safetensors")
    [table] = [v for name, v in before.items() if name.endswith("embed_tokens.weight")]
    parts = build(cfg, CPU)
    seg = parts.conversation.seg_id
    torch.testing.assert_close(parts.model.vlm.table()[seg], table[seg])
    assert len(parts.model.vlm.table()) == len(table)
