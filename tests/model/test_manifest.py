import pytest
import torch
from torch import nn

from keyseg.data.mix import ImageSampler, load
from keyseg.model.manifest import (
    LORA,
    TOKENS,
    UntrainedModuleError,
    assert_trained,
    gradient_norms,
    leaf,
    manifest,
    room,
    trainable,
)
from keyseg.train.trainer import compute_losses

LLAVA = "vlm.peft.base_model.model.model"
LAYER = f"{LLAVA}.language_model.layers.0.self_attn.q_proj"
EMBED = f"{LLAVA}.language_model.embed_tokens"
DELTA = "token_adapter.trainable_tokens_delta.default"


@pytest.mark.parametrize(
    ("name", "owner", "row"),
    [
        (f"{LAYER}.lora_A.default.weight", LAYER, LORA),
        (f"{LAYER}.lora_B.default.weight", LAYER, LORA),
        (f"{LAYER}.base_layer.weight", f"{LAYER}.base_layer", "language model"),
        (f"{EMBED}.{DELTA}", EMBED, TOKENS),
        (f"{EMBED}.original_module.weight", f"{EMBED}.original_module", "language model"),
        (
            f"{LLAVA}.multi_modal_projector.linear_1.bias",
            f"{LLAVA}.multi_modal_projector.linear_1",
            "image projector",
        ),
        (
            "mask_head.decoder.transformer.layers.0.mlp.lin1.weight",
            "mask_head.decoder.transformer.layers.0.mlp.lin1",
            "mask_decoder.transformer",
        ),
        (
            "mask_head.decoder.iou_token.weight",
            "mask_head.decoder.iou_token",
            "mask_decoder.iou_token",
        ),
        ("fusion.cross.value.weight", "fusion.cross.value", "fusion.cross"),
        ("fusion.mlp.0.bias", "fusion.mlp.0", "fusion.mlp"),
        ("seg_projection.2.weight", "seg_projection.2", "seg_projection"),
        ("keyword_head.project.weight", "keyword_head.project", "keyword_head"),
    ],
)
def test_names(name, owner, row):
    assert leaf(name) == owner
    assert room(name) == row


@pytest.fixture
def step(make_parts):
    """A fresh model after the backward pass of one training batch."""

    def run(*overrides, change=lambda model: None):
        parts, cfg = make_parts(*overrides, shaken=False)
        change(parts.model)
        sampler = ImageSampler(load(cfg.data, "train"), 0, 2, 2)
        batch = parts.collator(sampler.step(0))
        output = parts.model(batch)
        compute_losses(output, batch, cfg, parts.model.frame).total.backward()
        return parts.model

    return run


def test_a_first_step_raises_no_alarm_though_loras_first_factor_has_no_gradient(step):
    model = step("fusion=full")
    first = [p.grad for n, p in trainable(model).items() if "lora_A" in n]
    assert first
    assert not any(g.any() for g in first)
    assert_trained(model)


def test_an_unused_module_stops_the_run_with_its_name(step):
    def add(model):
        model.fusion.forgotten = nn.Linear(4, 4)
        model.also_forgotten = nn.LayerNorm(4)

    model = step("fusion=full", change=add)
    with pytest.raises(UntrainedModuleError, match=r"no gradient .*in: ") as caught:
        assert_trained(model)
    named = str(caught.value).partition("in: ")[2].split(". ")[0]
    assert "fusion.forgotten" in named
    assert "also_forgotten" in named
    assert "cross" not in named
    model.fusion.forgotten.requires_grad_(False)
    model.also_forgotten.requires_grad_(False)
    assert_trained(model)  # frozen on purpose


def test_many_modules_are_three_names_and_a_number(step):
    model = step("fusion=full")
    for parameter in trainable(model).values():
        parameter.grad = None
    more = len({leaf(n) for n in trainable(model)}) - 3
    with pytest.raises(UntrainedModuleError, match=rf"in: \S+, \S+, \S+ and {more} more\. "):
        assert_trained(model)


def test_an_idle_lora_layer_is_found(step):
    """Both factors without gradient: the layer is not in use."""
    model = step("fusion=seg_only")
    idle = next(n for n in trainable(model) if "lora_B" in n)
    trainable(model)[idle].grad.zero_()
    with pytest.raises(UntrainedModuleError, match=leaf(idle).replace(".", r"\.")):
        assert_trained(model)


def test_a_gradient_of_zeros_is_none():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model(torch.zeros(1, 2)).sum().backward()
    model[0].weight.grad, model[0].bias.grad = torch.zeros(2, 2), None
    with pytest.raises(UntrainedModuleError, match=r"in: 0\."):
        assert_trained(model)
    model[0].bias.grad = torch.ones(2)  # one parameter of a module suffices: its input may be 0
    assert_trained(model)


WEIGHTS = [
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 0, 1, 0),
    (0, 0, 0, 1),
    (1, 0, 0, 1),
    (0, 1, 1, 1),
    (1, 1, 1, 1),
]


@pytest.mark.parametrize(("text", "bce", "dice", "keyword"), WEIGHTS)
def test_weight_0_freezes_what_nothing_else_pulls_on(step, text, bce, dice, keyword):
    model = step(
        "fusion=full",
        "model.tokens.n_keys=2",
        f"loss.text={text}",
        f"loss.bce={bce}",
        f"loss.dice={dice}",
        f"loss.keyword.weight={keyword}",
    )
    assert_trained(model)
    rows = {r["module"].partition(".")[0] for r in manifest(model) if r["trainable"]}
    drawn = {"mask_decoder", "fusion", "seg_projection", "key_projection", "context_projection"}
    wanted = {LORA, TOKENS}
    wanted |= drawn if bce or dice else set()
    wanted |= {"keyword_head"} if keyword else set()
    assert rows == wanted


def test_manifest_counts_every_parameter_once(make_parts):
    parts, _ = make_parts("fusion=full")
    model, encoders = parts.model, parts.features.encoders
    rows = manifest(model, encoders)
    outside = sum(p.numel() for e in encoders for p in e.module.parameters())
    assert sum(r["parameters"] for r in rows) == outside + sum(
        p.numel() for p in model.parameters()
    )
    trained = [r for r in rows if r["trainable"]]
    assert rows[: len(trained)] == trained
    assert sum(r["parameters"] for r in trained) == sum(
        p.numel() for p in trainable(model).values()
    )
    notes = {r["module"]: r["note"] for r in rows if not r["trainable"]}
    assert {"CLIP", "image projector", "language model", "SAM's encoder"} <= notes.keys()
    assert set(notes.values()) == {"frozen on purpose"}
    by_name = {(r["module"], r["trainable"]): r["parameters"] for r in rows}
    assert by_name["keyword_head", True] == 192**2
    assert by_name[TOKENS, True] == 2 * 192


def test_gradient_norms_by_row():
    model = nn.ModuleDict({"fusion": nn.Linear(2, 1), "other": nn.Linear(1, 1, bias=False)})
    model["fusion"].weight.grad = torch.tensor([[3.0, 0.0]])
    model["fusion"].bias.grad = torch.tensor([4.0])
    model["other"].weight.grad = torch.tensor([[-2.0]])
    norms = {name: float(value) for name, value in gradient_norms(model)}
    assert norms == {"fusion.weight": 3.0, "fusion.bias": 4.0, "other": 2.0}
