"""Backbones of every size through one path: random ones here, full sizes without memory."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from keyseg.config import PROJECT, ConfigError, signature
from keyseg.data.mix import groups, load
from keyseg.model.backbones.language import Language
from keyseg.model.backbones.llava import image_positions
from keyseg.model.backbones.weights import WeightsError, check_weights, weights_path
from keyseg.model.manifest import manifest
from keyseg.runs.targets import find_class
from keyseg.train.build import build, load_backbones
from keyseg.train.device import pick_device
from keyseg.train.trainer import autocast

META, CPU = torch.device("meta"), torch.device("cpu")
SAMS = sorted(f.stem for f in (PROJECT / "experiments/model/sam").glob("*.yaml"))
MODELS = sorted(f.stem for f in (PROJECT / "experiments/model").glob("*.yaml"))


def billions(rows, **wanted):
    return sum(
        r["parameters"] for r in rows if all(r[k] == v for k, v in wanted.items())
    ) / 1e9  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size", "trained"), [("llava_1_5_7b", 7.76, 0.065), ("llava_1_5_13b", 14.06, 0.095)]
)
def test_the_full_sizes(name, size, trained, compose_run):
    """Published: LLaVA 7.06 and 13.35 billion, SAM ViT-H 0.64; nothing is allocated for it."""
    cfg = compose_run(f"model={name}", "model.init=random", "prompt=lisa")
    parts = build(cfg, META)
    rows = manifest(parts.model, parts.features.encoders)
    assert billions(rows) == pytest.approx(size, rel=0.02)
    assert billions(rows, trainable=True) == pytest.approx(trained, rel=0.2)
    kept = {p.dtype for n, p in parts.model.named_parameters() if not p.requires_grad}
    assert torch.bfloat16 in kept
    trains = {p.dtype for p in parts.model.parameters() if p.requires_grad}
    assert trains == {torch.float32}
    assert len(parts.conversation.prefix((1, 1)).ids) > 576
    assert all(p.device == META for p in parts.model.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_every_language_side_composes_and_names_a_class(model, compose_run):
    cfg = compose_run(f"model={model}", "model/sam=vit_l")
    assert issubclass(find_class("language", cfg.model.language["_target_"], object), Language)
    assert cfg.model.sam_type == "vit_l"
    assert (cfg.model.llava is None) == ("weights" in cfg.model.language)


@pytest.mark.parametrize("sam", SAMS)
def test_every_mask_side_composes_alike_in_both_ways(sam, compose_run):
    """`model/sam=vit_h` and `mask=sam_vit_h` are the same cell."""
    option = f"sam_{sam}" if sam.startswith("vit") else sam
    one, two = compose_run(f"model/sam={sam}"), compose_run(f"mask={option}")
    assert signature(one) == signature(two)
    assert find_class("mask", one.model.mask["_target_"], object).name.startswith("sam")


def test_the_backbones_of_bruegel_are_the_ones_its_recipe_makes(compose_run, tmp_path):
    cfg = compose_run("model=bruegel", f"paths.data={tmp_path}")
    assert cfg.model.llava == "keyseg/tiny/weights/bruegel/llava"
    assert cfg.model.sam == "keyseg/tiny/weights/bruegel/sam"
    tokens = cfg.model.tokens
    assert (tokens.key_init, tokens.seg_init, tokens.n_keys) == (None, None, 1)


@pytest.mark.parametrize(("side", "positions"), [(224, 256), (336, 576)])
def test_image_tokens_come_from_the_processor(side, positions, small_run):
    cfg = small_run("model.init=random", "model.lora.targets=[q_proj]")
    cfg.model.tokens.key_init = cfg.model.tokens.seg_init = None
    small = {"hidden_size": 32, "intermediate_size": 64}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    cfg.model.sizes = {
        "text": small | {"vocab_size": 300},
        "vision": small | {"image_size": side, "patch_size": 14},
    }
    parts = build(cfg, CPU)
    image = parts.conversation.tokenizer.convert_tokens_to_ids("<image>")
    assert parts.conversation.prefix((1, 1)).ids.count(image) == positions
    train = groups(e for s in load(cfg.data, "train") for e in s.examples)
    batch = parts.collator(train[:2])
    with torch.no_grad(), autocast(cfg, CPU):
        output = parts.model(batch)
    assert output.mask_logits.isfinite().all()


def test_a_processor_that_does_not_fit_its_model(small_run, llava_folder, tmp_path):
    copy = tmp_path / "llava"
    copy.mkdir()
    for file in llava_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = json.loads((copy / "processor_config.json").read_text())
    content["num_additional_image_tokens"] = 0
    (copy / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"makes 99 image tokens .* CLIP 100: .*processor_con"):
        build(small_run(f"model.llava={copy}"), CPU)


def test_random_backbones_have_the_sizes_of_the_files(small_run, llava_folder):
    cfg = small_run("model.init=random")
    torch.manual_seed(0)
    language, mask = load_backbones(cfg, CPU)
    other_language, other_mask = load_backbones(small_run(), CPU)
    llava, other = language.model, other_language.model
    for one, two in ((mask.sam, other_mask.sam), (llava, other)):
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (one, two)]
        assert shapes[0] == shapes[1]
    assert not torch.equal(llava.lm_head.weight, other.lm_head.weight)
    assert image_positions(llava.config) == 100
    assert "<image>" in language.tokenizer.get_vocab()


def test_backbones_in_the_local_cache_ask_no_network(small_run, llava_folder, cached):
    folder = cached("lab/cached", llava_folder.iterdir())
    cfg = small_run("model.llava=lab/cached")
    assert weights_path(cfg.model.llava) == str(folder)
    check_weights(cfg)
    parts = build(cfg, CPU)
    assert parts.features.encoders[0].module is not None  # is read when it is asked first
    with pytest.raises(ConfigError, match="not in the local Hugging Face cache"):
        check_weights(small_run("model.llava=lab/missing"))
    with pytest.raises(WeightsError, match="lab/missing"):
        build(small_run("model.llava=lab/missing"), CPU)


def test_random_without_sizes(small_run, tmp_path):
    with pytest.raises(WeightsError, match=r"model\.init=random: .*Give model\.sizes"):
        load_backbones(small_run("model.init=random", f"model.llava={tmp_path}"), CPU)
    with pytest.raises(WeightsError, match=r"model\.sam_type=vit_x.*vit_b"):
        load_backbones(small_run("model.init=random", "model.sam_type=vit_x"), CPU)


def test_bytes_as_tokens():
    from keyseg.model.backbones.byte_tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer()
    ids = tokenizer("a café", add_special_tokens=False)["input_ids"]
    assert len(ids) == 7
    assert tokenizer.decode(ids) == "a café"


def test_a_random_llava_with_the_tokens_of_a_folder(compose_run):
    """As long rows as a trained one has, not four times as long."""
    tokenizer = "+model.sizes.tokenizer=keyseg/tiny/weights/llava"
    cfg = compose_run("model=llava_1_5_7b", "model.init=random", tokenizer)
    language, _ = load_backbones(cfg, META, part="vision")
    assert len(language.tokenizer("the red ball", add_special_tokens=False)["input_ids"]) == 3


CHECKPOINTING = "model.gradient_checkpointing"


@pytest.mark.parametrize(
    "option", ["model.attention=eager", f"{CHECKPOINTING}=full", f"{CHECKPOINTING}=selective"]
)
def test_attention_and_checkpointing_do_not_change_the_numbers(option, make_parts):
    """In float64: in float32 the gradients of a mean are mostly rounding."""
    (first, cfg), (second, _) = make_parts("model.precision=fp32"), make_parts(
        "model.precision=fp32", option
    )  # fmt: skip
    batch = first.collator(groups(e for s in load(cfg.data, "train") for e in s.examples)[:1])
    gradients = []
    for parts in (first, second):
        model = parts.model.double().train()
        model(
            replace(batch, features=batch.features.to(torch.float64))
        ).mask_logits.mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    first_on, second_on = (
        any(getattr(m, "gradient_checkpointing", False) for m in parts.model.modules())
        for parts in (first, second)
    )
    assert (first_on, second_on) == (False, "checkpointing" in option)
    assert len(gradients[0]) == len(gradients[1]) > 20
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)


def test_selective_checkpointing_computes_again_what_it_does_not_keep(make_parts):
    """All but the two wide products of every layer; "full" those, too."""
    counted = {}
    for kind in ("none", "selective", "full"):
        parts, cfg = make_parts(f"{CHECKPOINTING}={kind}")
        [first, *_] = groups(e for s in load(cfg.data, "train") for e in s.examples)
        batch = parts.collator([first])
        parts.model.train()
        with FlopCounterMode(display=False) as counter:
            parts.model(batch).mask_logits.mean().backward()
        counted[kind] = counter.get_total_flops()
    text = parts.model.vlm.base.config.text_config
    tokens = batch.packed.input_ids.numel()
    wide = 2 * 2 * tokens * text.hidden_size * text.intermediate_size * text.num_hidden_layers
    assert counted["none"] < counted["selective"] == counted["full"] - wide


@pytest.mark.parametrize("name", ["SLURM_JOB_GPUS", "SLURM_STEP_GPUS"])
def test_a_gpu_that_was_given_and_is_not_seen_is_an_error(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match=rf"gave this job a GPU \({name}=0\), and torch .* none"):
        pick_device("auto")
    assert pick_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
