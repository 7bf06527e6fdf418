"""What is missing is said once, before anything starts: file or id, page, size, key to set."""

import json
import re

import pytest

from keyseg.config import PROJECT, ConfigError
from keyseg.data.files import DataError
from keyseg.data.prompts import add_tokens
from keyseg.model.backbones import weights
from keyseg.sweep import buildable, preflight
from keyseg.train.build import build_fusion


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def tensors(entries=None, data=b""):
    """A safetensors file."""
    head = json.dumps(entries or {}).encode()
    return len(head).to_bytes(8, "little") + head + data


@pytest.fixture
def snapshot(tmp_path):
    """A cached hub model whose weights are two files, of which `held` are there."""

    def make(held):
        repo = tmp_path / "hub" / "models--llava-hf--llava-1.5-7b-hf"
        folder = repo / "snapshots" / "abc"
        folder.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("abc")
        (folder / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
        for name in ("tokenizer_config.json", "tokenizer.json"):
            (folder / name).write_text("{}")
        names = {"a": "1.safetensors", "b": "2.safetensors"}
        index = json.dumps({"weight_map": names})
        (folder / "model.safetensors.index.json").write_text(index)
        for name in held:
            (folder / name).write_bytes(tensors())
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
    (folder / "2.safetensors").write_bytes(tensors())
    weights.check_weights(cfg)
    assert weights.weights_path(cfg.model.llava) == str(folder)
    before = weights.weights_fingerprint(cfg)
    (folder / "2.safetensors").write_bytes(tensors({"__metadata__": {}}))
    assert weights.weights_fingerprint(cfg) != before


ONE = {"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "model.safetensors",
            tensors(ONE, b"123"),
            r"bytes and its head .* 72: copy",
        ),
        ("model.safetensors", tensors(ONE, b"12345"), "bytes and its head asks for"),
        ("model.safetensors", tensors()[:5], "was cut short, or is no safetensors file"),
        ("model.safetensors", b"<html>", "was cut short, or is no safetensors file"),
        ("model.safetensors", tensors([1]), "is no safetensors file"),
        (
            "config.json",
            b'{"model_type": "qwen2_5_vl"}',
            "=qwen2_5_vl, and .*reads llava",
        ),
        ("config.json", b'{"model_type": "llava"}', "first LLaVA's own layout.*no vision_config"),
        ("config.json", b"{", "cannot be read"),
        ("tokenizer.json", None, "there is no tokenizer in"),
    ],
)
def test_a_damaged_folder_is_one_line(
    run_config, llava_folder, sam_folder, tmp_path, file, content, said
):
    """Before anything is submitted, with the file and what to do."""
    folder = tmp_path / "llava"
    folder.mkdir()
    for source in llava_folder.iterdir():
        (folder / source.name).symlink_to(source)
    run_config.model.llava, run_config.model.sam = str(folder), str(sam_folder)
    weights.check_weights(run_config)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        weights.check_weights(run_config)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_shard_is_named(compose_run, snapshot, tmp_path):
    (tmp_path / "sam.pth").write_bytes(b"sam")
    cfg = compose_run("model=llava_1_5_7b", f"model.sam={tmp_path}/sam.pth")
    folder = snapshot(["1.safetensors"])
    (folder / "2.safetensors").write_bytes(tensors(ONE, b"1"))
    with pytest.raises(ConfigError, match=r"model\.llava: .*/2\.safetensors has .* head asks for"):
        weights.check_weights(cfg)


def test_random_needs_no_files(compose_run):
    cfg = compose_run("model=llava_1_5_13b", "model.init=random")
    weights.check_weights(cfg)
    assert weights.weights_fingerprint(cfg) == "random"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("model=llava_1_5_7b", "model.quantization=nf4"),
            r"needs bitsandbytes: pip install 'keyseg\[qlora\]'",
        ),
        (
            ("model=smolvlm_2b", "model.init=random"),
            r"model=smolvlm_2b: .*SmolVlm needs num2words: pip install 'keyseg\[smolvlm\]'",
        ),
    ],
)
def test_a_library_that_is_needed_is_named(compose_run, monkeypatch, overrides, said):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cfg = compose_run(*overrides)
    with pytest.raises(ConfigError, match=said):
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


BUILT = [
    (
        "fusion._target_=keyseg.model.fusion.Fulll",
        r"Fulll.*Did you mean keyseg.model.fusion.Full\?",
    ),
    ("fusion._target_=keyseg.model.fuson.Full", "No module named 'keyseg.model.fuson'"),
    ("fusion._target_=torch.nn.Identity", "torch.nn.Identity: a stored config may name"),
    ("fusion.key_in_context=perhaps", "fusion.key_in_context=perhaps: must be true or false"),
    ("fusion.key_in_context=null", "fusion.key_in_context=None: must be true or false"),
    ("fusion.heads=-4", "fusion dim 64 is not a multiple of -4 heads"),
    ("fusion.heads=0", "fusion dim 64 is not a multiple of 0 heads"),
    ("fusion.heads=5", "fusion dim 64 is not a multiple of 5 heads"),
    ("fusion.mlp_ratio=-1", "fusion=full .*: ValueError: mlp_ratio=-1 leaves no channel"),
    ("+fusion.widht=3", "fusion=full .*: TypeError: .*widht"),
    ("prompt.answers=['Sure.']", r"prompt.answers: 'Sure.' needs \{tokens\}"),
    ("prompt.answers=[]", "prompt.answers is empty"),
    ("prompt.short=['a {thing}']", r"prompt.short: 'a \{thing\}' needs \{query\}"),
    ("prompt.user='{question}'", "prompt.user=.*needs <image> once"),
    ("prompt.assistant='{x}'", "prompt.assistant: .* has no fields"),
    ("prompt.system='<image>'", "prompt.system: .* holds <image>"),
    ("model.tokens.key='sure'", "model.tokens.key=sure: "),
    ("model.tokens.key=star", "model.tokens.key=star: is a word of the base's vocabulary"),
    ("model.tokens.seg='<pad>'", "model.tokens.seg=<pad>: is one of the base's own tokens"),
    ("model.tokens.key='<unk>'", "is one of the base's own tokens"),
    ("model.tokens.key='</s>'", "model.tokens.key=</s>: the prompt has it, too"),
    ("model.tokens.key='<image>'", "model.tokens.key=<image>: the prompt has it, too"),
    ("model.tokens.key_init=zebrafish", "model.tokens.key_init='zebrafish': must be one known"),
    ("model.tokens.seg_init='a ball'", "model.tokens.seg_init='a ball': must be one known"),
    (
        "model.lora.targets=[q_proj,nope]",
        "model.lora.targets=nope: .* has no such layer; it has .*",
    ),
    ("model.lora.targets=['(']", r"model.lora.targets=\(: "),
]


@pytest.mark.parametrize(("override", "message"), BUILT)
def test_what_cannot_be_built_is_known_before_a_job(compose_run, tmp_path, override, message):
    cfg = compose_run(override, f"paths.data={tmp_path}")
    for look in (preflight.findings, preflight.check):
        with pytest.raises(ConfigError, match=message) as caught:
            look([cfg])
        assert "\n" not in str(caught.value)


def test_a_token_that_was_added_to_the_base_stays_allowed(compose_run, llava_folder, tmp_path):
    import shutil

    from transformers import AutoTokenizer

    folder = tmp_path / "llava"
    shutil.copytree(llava_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<seg>"])
    tokenizer.save_pretrained(folder)
    named = (f"model.llava={folder}", "model.tokens.seg='<seg>'", f"paths.data={tmp_path}")
    buildable.check([compose_run(*named)])
    add_tokens(AutoTokenizer.from_pretrained(folder), compose_run(*named).model.tokens)


@pytest.mark.parametrize("seg", ["star", "<pad>"])
def test_where_the_tokenizer_is_no_file_the_worker_says_it(compose_run, llava_folder, seg):
    from transformers import AutoTokenizer

    tokens = compose_run(f"model.tokens.seg='{seg}'").model.tokens
    with pytest.raises(ConfigError, match=f"model.tokens.seg={seg}: "):
        add_tokens(AutoTokenizer.from_pretrained(llava_folder), tokens)


@pytest.mark.parametrize("data", ["scenes", "bruegel"])
def test_words_that_the_base_does_not_know_are_named(compose_run, tmp_path, capsys, data):
    """It reads them all as one, and would train without a word about it."""
    counts = "{train: 4, val: 1, test: 1}"
    cfg = compose_run(
        f"data={data}",
        f"paths.data={tmp_path}",
        f"data.prepare.refer={counts}",
        f"data.prepare.reason={counts}",
    )
    preflight.check([cfg])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    if data == "scenes":
        assert said == []
        return
    (line,) = said
    assert re.match(r"note: \d\d% of the queries of data=bruegel hold words that model=tiny", line)
    named = re.search(r"\((.*)\)", line)[1].split(", ")
    known = json.loads((PROJECT / "keyseg/tiny/weights/llava/tokenizer.json").read_text())
    assert named
    assert not set(named) & set(known["model"]["vocab"])


def test_every_variant_can_be_built_and_is_built_once(compose_run, tmp_path, monkeypatch):
    options = sorted(f.stem for f in (PROJECT / "experiments/fusion").glob("*.yaml"))
    cells = [
        compose_run(f"fusion={name}", f"seed={seed}", f"paths.data={tmp_path}")
        for name in options
        for seed in (0, 1)
        if name != "no_key"
    ]
    buildable.check(cells)
    monkeypatch.setattr("keyseg.model.variant.build_fusion", None)  # remembered: not built again
    buildable.check(cells)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_images=9999"], r"data.train_images=9999: train has \d+ images"),
        (["fusion=oracle_key", "data.keyword=none"], "fusion=oracle_key is given the true keyword"),
        (["fusion=shuffled_key", "one image"], "image .* has .* expressions of its split"),
    ],
)
def test_data_that_is_too_little_for_a_config_is_known_before_a_job(
    small_run, monkeypatch, overrides, message
):
    from keyseg.data import mix

    load = mix.load_splits

    def changed(data):
        splits = load(data)
        for example in (e for split in splits for source in split for e in source.examples):
            if "data.keyword=none" in overrides:
                object.__setattr__(example, "keyword", None)
            if "one image" in overrides:
                object.__setattr__(example, "image_id", "same")
        return splits

    monkeypatch.setattr(mix, "load_splits", changed)
    cfg = small_run(*(o for o in overrides if o not in ("data.keyword=none", "one image")))
    with pytest.raises((ConfigError, DataError), match=message):
        preflight.check([cfg])
    (line,) = preflight.findings([cfg])
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.sam_type=vit_x"], "model.sam_type=vit_x: must be one of folder, vit_h"),
        (["model.sam_type=vit_b"], r"model.sam_type=vit_b: model.sam=.* is a folder"),
    ],
)
def test_a_kind_of_sam_that_does_not_fit_its_file(small_run, overrides, message):
    with pytest.raises(ConfigError, match=message):
        weights.check_weights(small_run(*overrides))


def test_what_is_missing_is_a_line_each(compose_run, tmp_path):
    lacking = compose_run(
        "data=refcoco",
        f"data.root={tmp_path}/none",
        "model=llava_1_5_7b",
        f"model.sam={tmp_path}/none.pth",
        f"paths.data={tmp_path}",
    )
    weights_line, note, data_line = preflight.findings([lacking, lacking])
    assert "llava-hf/llava-1.5-7b-hf" in weights_line
    assert "none.pth" in weights_line
    assert note.startswith("note: model=llava_1_5_7b trains at the learning rates of ")
    assert data_line.startswith("missing: data set 'refcoco'")
    assert f"{tmp_path}/none" in data_line
    assert preflight.findings([compose_run(f"paths.data={tmp_path}/new")]) == []
    assert not (tmp_path / "new" / "scenes").exists(), "scenes are made at the start"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model=llava_1_5_7b", "optim=bruegel", "optim.steps=50"],
            ["optim=bruegel, chosen for model=bruegel; optim=released has others"],
        ),
        (
            ["model=tiny", "optim=bruegel"],
            ["optim=bruegel, chosen for model=bruegel; optim=adamw has others"],
        ),
        (
            ["model=bruegel", "optim=adamw"],
            ["optim=adamw, chosen for model=tiny; optim=bruegel has others"],
        ),
        (["model=bruegel", "optim=bruegel"], []),
        (["model=tiny", "optim=adamw"], []),
        (["model=llava_1_5_7b", "optim=released"], []),
        (["model=llava_1_5_7b", "optim=bruegel", "optim.lr=1e-4"], []),
    ],
)
def test_learning_rates_that_were_chosen_for_another_model_are_named(compose_run, overrides, said):
    lines = preflight.untuned([compose_run(*overrides), compose_run(*overrides)])
    assert [line.partition("the learning rates of ")[2] for line in lines] == said


def test_variants_without_key_are_let_through(small_run):
    kept = ("seg_only", "self", "mlp", "random_key")
    cells = [small_run(f"fusion={name}", "model.tokens.n_keys=0") for name in kept]
    preflight.check([*cells, small_run("fusion=no_key")])
