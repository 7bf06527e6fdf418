import math
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from keyseg.config import (
    CHOICES,
    NAMED,
    NOT_NEGATIVE,
    POSITIVE,
    PROJECT,
    ConfigError,
    RunConfig,
    flatten,
    resolve_path,
    signature,
    validate,
)


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        return OmegaConf.to_container(compose("config"), resolve=True)


@pytest.fixture
def changed(composed):
    """The default config as a plain dict, with values replaced by dotted key."""

    def change(values):
        cfg = OmegaConf.create(composed)
        for key, value in values.items():
            OmegaConf.update(cfg, key, value, force_add=True)
        return OmegaConf.to_container(cfg)

    return change


def backwards(tree):
    if isinstance(tree, dict):
        return {key: backwards(tree[key]) for key in reversed(tree)}
    return tree


def test_signature_is_12_hex_digits_and_ignores_the_order_of_keys(composed):
    name = signature(composed)
    assert len(name) == 12
    assert int(name, 16) >= 0
    assert list(backwards(composed)) != list(composed)
    assert signature(backwards(composed)) == name


def test_signature_is_the_same_for_every_form_of_a_config(composed):
    assert signature(validate(composed)) == signature(composed)
    assert signature(OmegaConf.create(composed)) == signature(composed)
    assert signature(OmegaConf.structured(validate(composed))) == signature(composed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("rerun", True),
        ("paths.outputs", "/elsewhere"),
        ("runtime.threads", 7),
        ("runtime.device", "cuda"),
        ("data.root", "/elsewhere"),
        ("data.prepare.root", "/elsewhere"),
        ("ablation.question", "why?"),
    ],
)
def test_keys_that_cannot_change_a_result_do_not_count(composed, changed, key, value):
    assert signature(changed({key: value})) == signature(composed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("fusion.heads", 2),
        ("fusion.anything", 1),
        ("data.prepare.seed", 1),
        ("data.splits.train", []),
        ("prompt.answers", ["{tokens}"]),
        ("model.tokens.key_init", "at"),
        ("model.llava", "another/folder"),
        ("optim.betas", [0.9, 0.9]),
    ],
)
def test_every_other_value_counts(composed, changed, key, value):
    assert signature(changed({key: value})) != signature(composed)


def test_a_default_of_the_schema_counts(composed, changed, monkeypatch):
    """A key that no YAML sets is part of the signature through its default."""
    without = changed({})
    del without["model"]["projection_layers"]
    assert validate(without).model.projection_layers == RunConfig().model.projection_layers
    given = {"model.projection_layers": RunConfig().model.projection_layers}
    assert signature(without) == signature(changed(given))
    other = {"model.projection_layers": RunConfig().model.projection_layers + 1}
    assert signature(without) != signature(changed(other))


@pytest.mark.parametrize("key", ["model.lora.alpha", "fusion.mlp_ratio"])  # of no known type
def test_an_integer_for_a_float_is_the_same_value(changed, key):
    assert signature(changed({key: 32})) == signature(changed({key: 32.0}))
    assert signature(changed({key: 32})) != signature(changed({key: 32.5}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim.stepz": 3}, r"config key 'optim.stepz'"),
        ({"modle": {"name": "tiny"}}, r"config key 'modle'"),
        ({"data.train_images": 0}, r"data\.train_images=0: must be a number above 0, a share"),
        ({"data.train_images": 1.5}, r"data\.train_images=1.5: must be a number above 0, a share"),
        ({"data.wrong_masks": 2}, r"data\.wrong_masks=2: must be a share, from 0 to 1"),
        ({"data.draw": "any"}, r"data\.draw=any: must be one of permutation, uniform"),
        ({"evaluation.eroded": 1.2}, r"evaluation\.eroded=1.2: must be a share"),
        ({"evaluation.intervention": "key"}, r"must be key- or seg-, then swap, zero, mean"),
        (
            {"evaluation.intervention": "key-swap", "model.tokens.n_keys": 0},
            r"evaluation\.intervention=key-swap: answers hold no KEY",
        ),
        ({"optim.patience": 0}, r"optim\.patience=0: must be above 0"),
        ({"loss.dice_smooth": 0}, r"loss\.dice_smooth=0.0: must be above 0"),
        ({"data.train_images": "some"}, r"data\.train_images=some: must be a number above 0"),
        ({"optim.decay": 1.0, "optim.schedule": "wsd"}, r"optim\.decay=1\.0: must be a share"),
        (
            {"optim.decay": 0.1, "optim.schedule": "cosine"},
            r"optim\.decay=0\.1 does nothing.*cosine: set optim\.schedule=wsd",
        ),
        (
            {"optim.until": "plateau", "optim.schedule": "cosine"},
            r"optim\.until=plateau.*cosine.*optim\.schedule=wsd or const",
        ),
        ({"optim.steps": "many"}, r"config key 'optim.steps'.*many"),
        ({"optim.betas": 0.9}, r"config key 'optim.betas'"),
        ({"runtime.accumulation": 99}, r"optim.images_per_step=\d+: too few .*accumulation=99"),
        ({"rerun": "perhaps"}, r"config key 'rerun'.*perhaps"),
        ({"optim.lr": "???"}, r"config key 'optim.lr'"),
        ({"data": {}}, r"data.name is missing: choose one with data=NAME"),
        ({"fusion": {"_target_": "a.B"}}, r"fusion.name is missing: choose one with fusion=NAME"),
        ({"fusion.name": None}, r"fusion.name is missing: choose one with fusion=NAME"),
        ({"data.name": ""}, r"data.name is missing: choose one with data=NAME"),
    ],
)
def test_errors_name_the_key(composed, values, message):
    cfg = OmegaConf.create(composed)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    with pytest.raises(ConfigError, match=message) as caught:
        validate(cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.betas", [2, 3]),
        ("optim.betas", [0.9]),
        ("optim.betas", [0.9, 1.0]),
        ("model.lora.dropout", 2),
        ("model.lora.dropout", math.nan),
        ("model.lora.alpha", math.inf),
        ("model.lora.targets", []),
        ("fusion.mlp_ratio", math.nan),
        ("loss.bce", math.nan),
        ("optim.lr", math.inf),
        ("evaluation.protocols", ["generated", "generated"]),
        ("evaluation.val_images", 0),
        ("evaluation.val_images", -1),
        ("seed", 2**64),
        ("seed", 2**63),
        ("runtime.device", "nope"),
        ("runtime.device", "cuda:x"),
        ("runtime.threads", -1),
        ("runtime.threads", 0),
        ("model.tokens.key", ""),
        ("model.tokens.seg", "[SEG] "),
        ("model.tokens.seg", "[KEY]"),
    ],
)
def test_what_a_worker_would_stumble_over_is_an_error_at_once(changed, key, value):
    with pytest.raises(ConfigError, match=f"^(config key '{key}'|{re.escape(key)}=)") as caught:
        validate(changed({key: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_devices(changed, device):
    assert validate(changed({"runtime.device": device})).runtime.device == device


def test_fusion_needs_a_target(composed):
    cfg = {**composed, "fusion": {"name": "mine"}}
    with pytest.raises(ConfigError, match=r"fusion\._target_ is missing"):
        validate(cfg)


@pytest.mark.parametrize("key", CHOICES)
def test_choices(changed, key):
    listed = key == "evaluation.protocols"
    for value in CHOICES[key]:
        free = {"optim.schedule": "wsd"} if key == "optim.until" else {}  # it asks for that
        validate(changed({key: [value] if listed else value, **free}))
    with pytest.raises(ConfigError, match=f"{key}=nonsense: must be one of .*{CHOICES[key][0]}"):
        validate(changed({key: [CHOICES[key][0], "nonsense"] if listed else "nonsense"}))


@pytest.mark.parametrize("key", POSITIVE)
def test_what_must_be_above_zero(changed, key):
    with pytest.raises(ConfigError, match=f"{key}=0(.0)?: must be above 0"):
        validate(changed({key: 0}))


@pytest.mark.parametrize("key", NOT_NEGATIVE)
def test_what_must_not_be_negative(changed, key):
    validate(changed({key: 0}))
    with pytest.raises(ConfigError, match=f"{key}=-1(.0)?: must be 0 or more"):
        validate(changed({key: -1}))


def test_one_loss_must_pull(changed):
    pairs = [(f"loss.{n}", 0) for n in ("text", "bce", "dice", "keyword.weight")]
    with pytest.raises(ConfigError, match="all weights of loss are 0: nothing is trained"):
        validate(changed(dict(pairs)))
    for i in range(4):
        validate(changed(dict(pairs[:i] + pairs[i + 1 :]) | {pairs[i][0]: 0.5}))
    validate(changed(dict(pairs) | {"model.tokens.no_target": "score", "loss.object": 0.5}))


@pytest.mark.parametrize("other", [("model.init", "random"), ("runtime.sharding", "fsdp")])
def test_four_bits_go_with_files_in_one_piece(changed, other):
    key, value = other
    with pytest.raises(ConfigError, match=rf"model\.quantization=nf4.* {key}={value}"):
        validate(changed({"model.quantization": "nf4", key: value}))


def test_flatten():
    tree = {
        "a": 1,
        "b": {"c": {"d": None}, "e": [1, {"f": 2}]},
        "empty": {},
        "hydra": {"job": 1},
    }
    flat = {"a": 1, "b.c.d": None, "b.e": [1, {"f": 2}], "empty": {}}
    assert flatten(tree) == flat
    assert flatten(OmegaConf.create(tree)) == flat


def test_flatten_resolves_references_and_reads_typed_configs(composed):
    cfg = OmegaConf.create({"a": "x", "b": {"c": "${a}y"}})
    assert flatten(cfg) == {"a": "x", "b.c": "xy"}
    assert (
        flatten(validate(composed))["loss.keyword.weight"]
        == (composed["loss"]["keyword"]["weight"])
    )


def test_relative_paths_start_at_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("cache/x") == PROJECT / "cache" / "x"
    assert resolve_path(tmp_path) == tmp_path
    assert resolve_path("~/x") == Path.home() / "x"


@pytest.mark.parametrize(
    "file",
    sorted(f for g in NAMED for f in (PROJECT / "experiments" / g).glob("*.yaml")),
    ids=lambda f: f"{f.parent.name}={f.stem}",
)
def test_an_option_is_called_what_its_file_is_called(compose_run, file):
    group = file.parent.name
    run = compose_run(f"{group}={file.stem}")
    chosen = getattr(run, group)
    assert (chosen["name"] if isinstance(chosen, dict) else chosen.name) == file.stem
    assert run.name is None
    assert f"name: {file.stem}" not in file.read_text()
