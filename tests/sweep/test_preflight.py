"""What is missing is said once, before anything starts: file or id, page, size, key to set."""

import json

import pytest

from keyseg.config import ConfigError
from keyseg.model.backbones import weights
from keyseg.sweep import preflight
from keyseg.train.build import build_fusion


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def snapshot(tmp_path):
    """A cached hub model whose weights are two files, of which `held` are there."""

    def make(held):
        repo = tmp_path / "hub" / "models--llava-hf--llava-1.5-7b-hf"
        folder = repo / "snapshots" / "abc"
        folder.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("abc")
        for name in ("config.json", "tokenizer_config.json"):
            (folder / name).write_text("{}")
        names = {"a": "1.safetensors", "b": "2.safetensors"}
        index = json.dumps({"weight_map": names})
        (folder / "model.safetensors.index.json").write_text(index)
        for name in held:
            (folder / name).write_text("weights")
        return folder

    return make


def test_nothing_there_is_one_error(compose_run, tmp_path):
    cfg = compose_run("model=llava_1_5_7b", f"model.sam={tmp_path}/none.pth")
    with pytest.raises(ConfigError) as caught:
        preflight.check([cfg])
    message = str(caught.value)
    for part in (
        "llava-hf/llava-1.5-7b-hf",
        "hf download",
        "14 GB",
        "https://huggingface.co/llava-hf/llava-1.5-7b-hf",
        "set model.llava in experiments/model/llava_1_5_7b.yaml",
        f"{tmp_path}/none.pth",
        "2.56 GB",
        "segment-anything#model-checkpoints",
        "model.sam in experiments/model/sam/vit_h.yaml",
    ):
        assert part in message, part
    assert "\n" not in message


def test_a_folder_that_is_not_there(run_config, tmp_path):
    run_config.model.llava, run_config.model.sam = f"{tmp_path}/llava", f"{tmp_path}/sam"
    with pytest.raises(ConfigError, match=r"no .*/llava\. .*keyseg\.tiny.*; model\.sam=.*sam/tiny"):
        weights.check_weights(run_config)


def test_a_folder_that_lacks_a_part(run_config, llava_folder, sam_folder, tmp_path):
    for source, name in ((llava_folder, "llava"), (sam_folder, "sam")):
        (tmp_path / name).mkdir()
        for file in source.iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    run_config.model.llava, run_config.model.sam = f"{tmp_path}/llava", f"{tmp_path}/sam"
    weights.check_weights(run_config)
    (tmp_path / "llava" / "config.json").unlink()
    (tmp_path / "sam" / "model.safetensors").unlink()
    wanted = r"no config\.json in .*/llava\. .*; model\.sam=.*no model\.safetensors in .*/sam\."
    with pytest.raises(ConfigError, match=wanted):
        weights.check_weights(run_config)


@pytest.mark.parametrize("name", ["/llava", "~/llava", "./llava"])
def test_a_path_is_no_hub_id(name, run_config):
    run_config.model.llava = name
    with pytest.raises(ConfigError, match=f"model.llava={name}: there is no "):
        weights.check_weights(run_config)


def test_a_cached_hub_model_is_found_and_fingerprinted(compose_run, snapshot, tmp_path):
    (tmp_path / "sam.pth").write_text("sam")
    cfg = compose_run("model=llava_1_5_7b", f"model.sam={tmp_path}/sam.pth")
    folder = snapshot(["1.safetensors"])
    with pytest.raises(ConfigError, match="not in the local Hugging Face cache"):
        weights.check_weights(cfg)
    (folder / "2.safetensors").write_text("weights")
    weights.check_weights(cfg)
    assert weights.weights_path(cfg.model.llava) == str(folder)
    before = weights.weights_fingerprint(cfg)
    (folder / "2.safetensors").write_text("others!")
    assert weights.weights_fingerprint(cfg) != before


def test_random_needs_no_files(compose_run):
    cfg = compose_run("model=llava_1_5_13b", "model.init=random")
    weights.check_weights(cfg)
    assert weights.weights_fingerprint(cfg) == "random"


def test_four_bits_need_their_library(compose_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cfg = compose_run("model=llava_1_5_7b", "model.quantization=nf4")
    with pytest.raises(ConfigError, match=r"needs bitsandbytes: pip install 'keyseg\[qlora\]'"):
        weights.check_weights(cfg)


@pytest.mark.parametrize("tokenizer", ["/nowhere/x", "nowhere/x"])
def test_a_tokenizer_that_is_missing(tokenizer, compose_run):
    """No hub is asked: without a network that takes a minute, and does not tell the name."""
    random = ("model=llava_1_5_7b", "model.init=random", f"+model.sizes.tokenizer={tokenizer}")
    with pytest.raises(ConfigError, match=rf"model\.sizes\.tokenizer={tokenizer}: there is no"):
        weights.check_weights(compose_run(*random))


def test_a_variant_that_reads_key_needs_one_in_the_answer(compose_run):
    for name in ("full", "cross", "add", "released", "shuffled_key"):
        with pytest.raises(ConfigError, match=rf"fusion={name} reads KEY, and .*n_keys=0 .*no_key"):
            preflight.check([compose_run(f"fusion={name}", "model.tokens.n_keys=0")])
    with pytest.raises(ConfigError, match=r"fusion=no_key.*n_keys=1 .*take fusion=seg_only"):
        build_fusion(compose_run("fusion=no_key", "model.tokens.n_keys=1"), 16)


def test_variants_without_key_are_let_through(small_run):
    kept = ("seg_only", "self", "mlp", "random_key")
    cells = [small_run(f"fusion={name}", "model.tokens.n_keys=0") for name in kept]
    preflight.check([*cells, small_run("fusion=no_key")])
