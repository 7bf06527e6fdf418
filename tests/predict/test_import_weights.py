"""Weights in LISA's names: imported, and held against LISA's forward written down again."""

from __future__ import annotations

import json
import math
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
)

from keyseg import cli
from keyseg.config import ConfigError
from keyseg.data.mix import ImageGroup
from keyseg.model.backbones.sam import build_sam
from keyseg.predict import foreign_weights as weights
from keyseg.predict import imported_model
from keyseg.predict.imported_model import ForeignCheckpoint
from keyseg.predict.predictor import Predictor, _example
from keyseg.runs.finding import find_all_finished
from keyseg.tiny.arch import SAM_SIZES, TALK
from tests.model.test_points import sought

CPU = torch.device("cpu")
D, HEADS, LAYERS, MLP, SIDE, PATCH, WIDTH = 48, 4, 3, 96, 32, 8, 40
SAM = {**SAM_SIZES, "decoder_heads": 8, "encoder_depth": 2, "encoder_global": [1]}
QUERY = "the red ball"
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions. "
)


def tokenizer(own=("[SEG]", "<im_start>", "<im_end>")):
    """Words, and LISA's three tokens behind them; no place for an image."""
    words = ["What", "this", "image", "Please", "output", "segmentation", "mask", "USER", "red"]
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", *TALK, "ball", *map(str.lower, words)]
    table = {word: place for place, word in enumerate(dict.fromkeys(vocabulary))}
    made = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", table["<s>"])]
    )
    known = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    known.pad_token = "<unk>"
    known.add_tokens([AddedToken(text, normalized=False) for text in own])
    return known


def language(rows, projector=1):
    draw = torch.Generator().manual_seed(3)

    def rand(*shape, scale=0.15):
        return scale * torch.randn(shape, generator=draw)

    state = {
        "model.embed_tokens.weight": rand(rows, D, scale=0.5),
        "model.norm.weight": 1 + rand(D),
        "lm_head.weight": rand(rows, D),
        "model.text_hidden_fcs.0.0.weight": rand(D, D),
        "model.text_hidden_fcs.0.0.bias": rand(D),
        "model.text_hidden_fcs.0.2.weight": rand(SAM["prompt_dim"], D, scale=0.5),
        "model.text_hidden_fcs.0.2.bias": rand(SAM["prompt_dim"]),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for name in "qkvo":
            state[f"{at}.self_attn.{name}_proj.weight"] = rand(D, D)
        state[f"{at}.mlp.gate_proj.weight"] = rand(MLP, D)
        state[f"{at}.mlp.up_proj.weight"] = rand(MLP, D)
        state[f"{at}.mlp.down_proj.weight"] = rand(D, MLP)
        state[f"{at}.input_layernorm.weight"] = 1 + rand(D)
        state[f"{at}.post_attention_layernorm.weight"] = 1 + rand(D)
        state[f"{at}.self_attn.rotary_emb.inv_freq"] = rand(D // HEADS // 2)  # old files have it
    if projector == 1:
        state |= {"model.mm_projector.weight": rand(D, WIDTH), "model.mm_projector.bias": rand(D)}
    else:
        state |= {
            "model.mm_projector.0.weight": rand(D, WIDTH),
            "model.mm_projector.0.bias": rand(D),
        }
        state |= {"model.mm_projector.2.weight": rand(D, D), "model.mm_projector.2.bias": rand(D)}
    return state


def checkpoint(folder, projector=1, change=lambda state: state, words=None):
    """A folder as LISA's merge script leaves it, and its CLIP beside it."""
    clip = folder.parent / f"{folder.name}-clip"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        vision = CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        )
        CLIPVisionModel(vision).save_pretrained(clip)
        sam = build_sam(SAM)
        for name, parameter in sam.named_parameters():  # so that a mask has an edge somewhere
            torch.nn.init.normal_(parameter, std=1.0 if "output_upscaling" in name else 0.2)
    square = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square).save_pretrained(clip)
    words = words or tokenizer()
    words.save_pretrained(folder)
    state = language(len(words), projector)
    state |= {f"model.visual_model.{k}": v for k, v in sam.state_dict().items()}
    state["model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"] = torch.ones(WIDTH)
    state = change(state)
    half = sorted(state)[: len(state) // 2]
    index = {k: f"pytorch_model-0000{1 + (k not in half)}-of-00002.bin" for k in state}
    for name in sorted(set(index.values())):
        torch.save({k: v for k, v in state.items() if index[k] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    config = {
        "architectures": ["LISAForCausalLM"],
        "model_type": "llava",
        "hidden_size": D,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": True,
        "vision_tower": str(clip),
        "out_dim": SAM["prompt_dim"],
        "train_mask_decoder": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return state


# -- LISA's forward, from its description ---------------------------------------------------------


def rms(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def rotated(x):
    """(heads, L, d): pairs (i, i + d/2) turned by place * 10000 ** (-2 i / d)."""
    d, length = x.shape[-1], x.shape[-2]
    turn = torch.outer(torch.arange(length), 10_000.0 ** (-torch.arange(0, d, 2) / d))
    cos, sin = turn.cos(), turn.sin()
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def llama(state, x):
    """(L, D) embeddings -> (L, D) states behind the last norm."""
    length = len(x)
    future = torch.ones(length, length).triu(1).bool()
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        h = rms(x, state[f"{at}.input_layernorm.weight"])
        q, k, v = (
            (h @ state[f"{at}.self_attn.{n}_proj.weight"].T).view(length, HEADS, -1).transpose(0, 1)
            for n in "qkv"
        )
        scores = rotated(q) @ rotated(k).transpose(1, 2) / math.sqrt(D // HEADS)
        seen = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + seen.transpose(0, 1).reshape(length, D) @ state[f"{at}.self_attn.o_proj.weight"].T
        h = rms(x, state[f"{at}.post_attention_layernorm.weight"])
        gate = F.silu(h @ state[f"{at}.mlp.gate_proj.weight"].T)
        x = (
            x
            + (gate * (h @ state[f"{at}.mlp.up_proj.weight"].T))
            @ state[f"{at}.mlp.down_proj.weight"].T
        )
    return rms(x, state["model.norm.weight"])


@torch.no_grad()
def states_of(state, folder, picture, words, answer):
    """The states behind the last norm of LISA's literal question about the red ball, with an
    answer's tokens."""
    clip = folder.parent / f"{folder.name}-clip"
    ids = words(SYSTEM + "USER: <im_start>")["input_ids"]
    after = "<im_end>\n What is the red ball in this image? Please output segmentation mask."
    after_ids = words(after + " ASSISTANT:", add_special_tokens=False)["input_ids"]
    pixels = CLIPImageProcessor.from_pretrained(clip)(picture, return_tensors="pt")["pixel_values"]
    seen = CLIPVisionModel.from_pretrained(clip)(pixels, output_hidden_states=True)
    patches = seen.hidden_states[-2][0, 1:]
    if "model.mm_projector.weight" in state:
        tokens = patches @ state["model.mm_projector.weight"].T + state["model.mm_projector.bias"]
    else:
        a, b = (f"model.mm_projector.{n}" for n in (0, 2))
        tokens = F.gelu(patches @ state[f"{a}.weight"].T + state[f"{a}.bias"])
        tokens = tokens @ state[f"{b}.weight"].T + state[f"{b}.bias"]
    table = state["model.embed_tokens.weight"]
    return llama(state, torch.cat([table[ids], tokens, table[[*after_ids, *answer]]]))


def projected(state, rows):
    """LISA's two layers behind the language model."""
    first, last = (f"model.text_hidden_fcs.0.{n}" for n in (0, 2))
    hidden = F.relu(rows @ state[f"{first}.weight"].T + state[f"{first}.bias"])
    return hidden @ state[f"{last}.weight"].T + state[f"{last}.bias"]


@torch.no_grad()
def drawn_by(state, picture, prompt, points=None):
    """Logits of SAM's mask for a prompt (and points with labels): the decoder's, and those at full
    size."""
    sam = build_sam(SAM).eval()
    prefix = "model.visual_model."
    sam.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if prefix in k})
    rgb = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    embedding = sam.image_encoder(sam.preprocess(rgb)[None])
    sparse, dense = sam.prompt_encoder(points=points, boxes=None, masks=None)
    prompts = torch.cat([sparse.view(1, -1, len(prompt)), prompt[None, None]], dim=1)
    low, _ = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=prompts,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    size = rgb.shape[-2:]
    return low[0, 0], sam.postprocess_masks(low, input_size=size, original_size=size)[0, 0]


def lisa(state, folder, picture, place=-2):
    """Logits of the mask that LISA draws; `place`: of the state that is read, before [SEG]."""
    words = tokenizer()
    seg = words.convert_tokens_to_ids("[SEG]")
    states = states_of(state, folder, picture, words, [seg])
    return drawn_by(state, picture, projected(state, states[place]))


@pytest.fixture(scope="module")
def picture():
    """As large as SAM's input, so that nothing is resized: PIL and torch do that differently."""
    rng = np.random.default_rng(2)
    side = SAM["image_size"]
    return Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8))


@pytest.fixture(scope="module", autouse=True)
def no_store():
    """Nothing goes to the checkout's own MLflow file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "none")
        yield


SMALL = ("model=tiny", "model.precision=fp32", "model.frozen=fp32", "data=scenes")


def brought_in(folder, outputs, *more, system="LISA-7B-v1"):
    command = ["--outputs", str(outputs), "import-weights", str(folder), "--system", system]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--by", "me", *more, *SMALL])
    return ended.value.code


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_overrides):
    """LISA's folder, its state and the outputs with its import."""
    folder = tmp_path_factory.mktemp("weights") / "lisa"
    outputs = tmp_path_factory.mktemp("outputs")
    state = checkpoint(folder)
    data = [o for o in small_overrides if o.startswith("data.")]  # of its own test
    assert brought_in(folder, outputs, *data) == 0
    return folder, state, outputs


@pytest.mark.parametrize("projector", [1, 2])
def test_the_mask_is_that_of_lisas_own_forward(made, projector, picture, tmp_path):
    if projector == 1:
        folder, state, outputs = made
    else:  # READ and SESAME, on LLaVA-1.5
        folder, outputs = tmp_path / "sesame", tmp_path / "outputs"
        state = checkpoint(folder, projector)
        assert brought_in(folder, outputs) == 0
    [run] = find_all_finished(outputs, "LISA-7B-v1")
    assert run.config.prompt.user == "USER: <im_start><image><im_end>\n {question}"
    file = tmp_path / "picture.png"
    picture.save(file)
    predictor = Predictor(run.config, run.best_file, CPU)
    [found] = predictor(file, [QUERY], "teacher_forced")
    low, wanted = lisa(state, folder, picture)
    group = ImageGroup(file, "picture", [_example(file, QUERY)])
    with torch.no_grad():
        drawn = predictor.parts.model(predictor.parts.collator([group])).mask_logits[0]
    near = {"rtol": 1e-3, "atol": 1e-4 * float(low.abs().max())}
    torch.testing.assert_close(drawn, low, **near)
    assert not torch.allclose(drawn, lisa(state, folder, picture, place=-1)[0], **near)
    assert found.answer.replace(" ", "") == "[SEG]."
    sure = wanted.abs() > 1e-3 * wanted.abs().max()  # not on the edge, where a last bit decides
    assert 0.05 < float((wanted > 0).float().mean()) < 0.95
    assert (found.mask == (wanted > 0).numpy())[sure.numpy()].all()
    assert float(sure.float().mean()) > 0.99


def test_what_was_taken_and_left_out_is_told(made):
    _, state, outputs = made
    [run] = find_all_finished(outputs, "LISA-7B-v1")
    told = run.info["imported"]
    assert sum(told["used"].values()) + sum(told["left_out"].values()) == len(state)
    assert told["left_out"] == {
        "CLIP, which they keep frozen: it is read from its own folder": 1,
        "follows from config.json": LAYERS,
    }
    assert set(told["new"]) >= {"LoRA", "multi_modal_projector.linear_2"}
    assert (told["form"], told["said_by"]) == ("weights", "me")
    assert run.info["label"] == "LISA-7B-v1 (imported)"
    assert (run.config.model.tokens.state, run.config.model.tokens.n_keys) == ("previous", 0)
    best = load_file(run.best_file)
    rows = next(v for n, v in best.items() if "embed_tokens" in n)
    assert torch.equal(rows[0], state["model.embed_tokens.weight"][tokenizer().vocab["[SEG]"]])


def ask(outputs, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--outputs", str(outputs), *words])
    return ended.value.code


def test_it_is_a_run_like_any_other(made, small_overrides, picture, tmp_path, capsys):
    """It is evaluated, asked, reported, intervened on and exported."""
    *_, outputs = made
    data = [o for o in small_overrides if o.startswith("data.")]
    assert ask(outputs, "score", "LISA-7B-v1/LISA-7B-v1 (imported)/0") == 2
    assert "was not read on a test of its own" in capsys.readouterr().err
    assert ask(outputs, "evaluate", "LISA-7B-v1", "data=scenes", "split=val", *data) == 0
    assert "LISA-7B-v1 (imported), seed 0, on scenes val" in capsys.readouterr().out
    assert ask(outputs, "report", "LISA-7B-v1", "--out", str(tmp_path), "--format", "md") == 0
    page = (tmp_path / "LISA-7B-v1" / "report.md").read_text()
    assert "scenes val" in page
    assert "what imported weights were trained on is not known" in page
    assert ask(outputs, "export", "LISA-7B-v1", str(tmp_path / "model")) == 0
    assert (tmp_path / "model" / "llava" / "config.json").exists()
    assert ask(outputs, "intervene", "LISA-7B-v1", "--seg", "mean", "--device", "cpu") == 0
    assert "SEG mean: gIoU" in capsys.readouterr().out
    assert ask(outputs, "score", "LISA-7B-v1", "--dialect", "lisa") == 0  # it has a test of its own
    assert ask(outputs, "report", "LISA-7B-v1", "--out", str(tmp_path), "--format", "md") == 0
    assert "SEG mean" in (tmp_path / "LISA-7B-v1" / "report.md").read_text()


KEYSEG_TOKENS = ("[SEG]", "[KEY]", "<im_start>", "<im_end>")


def of_keyseg(state):
    """What KeySeg's released code has beside LISA's layers, its idle ones too."""
    draw = torch.Generator().manual_seed(7)
    dim = SAM["prompt_dim"]
    shapes = {f"{name}_proj": (dim, dim) for name in ("query", "key", "value", "out")}
    shapes |= {f"self_attn.{n}_proj": (dim, dim) for n in ("q", "k", "v", "out")}
    shapes |= {"norm1": (dim,), "norm2": (dim,), "mlp.0": (2 * dim, dim), "mlp.2": (dim, 2 * dim)}
    layers = {f"keyword_fusion.{name}": shape for name, shape in shapes.items()}
    layers |= dict.fromkeys(("keyword_text_proj", "embedding_table_proj"), (dim, D))
    for name, shape in layers.items():
        state[f"{name}.weight"] = 0.3 * torch.randn(shape, generator=draw)
        state[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=draw)
    return state


@torch.no_grad()
def keyseg_released(state, folder, picture):
    """Logits of the mask that KeySeg's main run draws, and its cosines with the table (V,).

    As it is described: SEG becomes twelve copies, each attends to KEY, the result is added, the MLP
    of that too, and the twelve become one again.
    """
    words = tokenizer(KEYSEG_TOKENS)
    answer = words(" [SEG]. [KEY].", add_special_tokens=False)["input_ids"]
    states = states_of(state, folder, picture, words, answer)
    before = len(states) - len(answer) - 1
    seg, key = (
        projected(state, states[before + answer.index(words.convert_tokens_to_ids(token))])
        for token in ("[SEG]", "[KEY]")
    )

    def layer(name, x):
        return x @ state[f"keyword_fusion.{name}.weight"].T + state[f"keyword_fusion.{name}.bias"]

    twelve = F.interpolate(seg[None, :, None], size=12, mode="linear")[0].T
    query, keys, values = (
        layer(f"{name}_proj", x)
        for name, x in (("query", twelve), ("key", key[None]), ("value", key[None]))
    )
    weights = (query @ keys.T / math.sqrt(query.shape[1])).softmax(-1)
    fused = twelve + layer("out_proj", weights @ values)
    fused = fused + layer("mlp.2", F.gelu(layer("mlp.0", fused)))
    prompt = F.interpolate(fused.T[None], size=1, mode="linear")[0, :, 0]
    table = state["model.embed_tokens.weight"] @ state["embedding_table_proj.weight"].T
    table = table + state["embedding_table_proj.bias"]
    return drawn_by(state, picture, prompt)[0], F.cosine_similarity(key, table, dim=-1)


def test_weights_of_keysegs_released_code_draw_its_masks(picture, tmp_path, capsys):
    folder, outputs = tmp_path / "keyseg", tmp_path / "outputs"
    state = checkpoint(folder, change=of_keyseg, words=tokenizer(KEYSEG_TOKENS))
    assert brought_in(folder, outputs, "fusion=full", system="KeySeg") == 2
    assert "it comes with fusion=released_trained" in capsys.readouterr().err
    assert brought_in(folder, outputs, system="KeySeg") == 0
    [run] = find_all_finished(outputs, "KeySeg")
    told = run.info["imported"]
    assert sum(told["used"].values()) + sum(told["left_out"].values()) == len(state)
    assert (run.config.model.tokens.order, run.config.prompt.between) == ("seg_first", ". ")
    file = tmp_path / "picture.png"
    picture.save(file)
    predictor = Predictor(run.config, run.best_file, CPU)
    [found] = predictor(file, [QUERY], "teacher_forced")
    assert found.answer.replace(" ", "") == "[SEG].[KEY]."
    group = ImageGroup(file, "picture", [_example(file, QUERY)])
    with torch.no_grad():
        ours = predictor.parts.model(predictor.parts.collator([group]))
    low, cosines = keyseg_released(state, folder, picture)
    torch.testing.assert_close(
        ours.mask_logits[0], low, rtol=1e-3, atol=1e-4 * float(low.abs().max())
    )
    found_cosines = F.cosine_similarity(ours.key_query[0, 0], ours.table, dim=-1)
    torch.testing.assert_close(found_cosines[: len(cosines)], cosines, rtol=1e-3, atol=1e-4)
    assert low.std() > 0.01


def test_weights_of_read_draw_from_its_points(picture, tmp_path, capsys):
    """`sought` is held against READ's rule in tests/model/test_points.py; here, what it is fed."""
    folder, outputs = tmp_path / "read", tmp_path / "outputs"
    state = checkpoint(folder, projector=2)
    more = ("model.points.count=9", "model.points.pool=1")
    assert brought_in(folder, tmp_path / "without", system="READ-7B") == 0
    assert "give model.points.count=30" in capsys.readouterr().out
    assert brought_in(folder, outputs, *more, system="READ-7B") == 0
    assert "model.points.count" not in capsys.readouterr().out
    [run] = find_all_finished(outputs, "READ-7B")
    file = tmp_path / "picture.png"
    picture.save(file)
    words = tokenizer()
    answer = words("Sure, the segmentation result is [SEG]", add_special_tokens=False)["input_ids"]
    states = states_of(state, folder, picture, words, answer)
    first = len(words(SYSTEM + "USER: <im_start>")["input_ids"])
    before, image = states[-2], states[first : first + (SIDE // PATCH) ** 2]
    points, labels = sought(image @ before, picture.size[::-1], count=9, pool=1)
    low, _ = drawn_by(state, picture, projected(state, before), (points[None], labels[None]))
    predictor = Predictor(run.config, run.best_file, CPU)
    group = ImageGroup(file, "picture", [_example(file, QUERY)])
    with torch.no_grad():
        ours = predictor.parts.model(predictor.parts.collator([group])).mask_logits[0]
    near = {"rtol": 1e-3, "atol": 1e-4 * float(low.abs().max())}
    torch.testing.assert_close(ours, low, **near)
    without, _ = drawn_by(state, picture, projected(state, before))
    assert not torch.allclose(ours, without, **near)
    assert {0, 1} <= set(labels.tolist())


def test_blanks_beside_their_tokens_are_as_they_were_trained(tmp_path):
    """In ids of LLaMA's tokenizer: the state before KEY is that of the full stop, and a word behind
    an added token has its blank before it, whatever tokenizer_config.json says of legacy."""
    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", ".", ":", "A", "▁.", "▁A"]
    table = {piece: number for number, piece in enumerate(pieces)}
    words = LlamaTokenizer(vocab=table, merges=[("▁", "."), ("▁", "A")], legacy=False)
    words.add_tokens([AddedToken(text, normalized=True) for text in KEYSEG_TOKENS])
    for folder in ("theirs", "ours"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text('{"model_type": "llava"}')
    words.save_pretrained(tmp_path / "theirs")
    source = ForeignCheckpoint(tmp_path / "theirs", "KeySeg", "clip")
    found, marked = imported_model._tokenizer(source, len(words), keyed=True)
    found.save_pretrained(tmp_path / "ours")
    assert marked
    for ours in (found, AutoTokenizer.from_pretrained(tmp_path / "ours")):
        ids = ours("<im_end>\n A: [SEG]. [KEY].</s>", add_special_tokens=False)["input_ids"]
        wanted = ["<im_end>", "▁A", ":", "[SEG]", "▁.", "[KEY]", "▁.", "</s>"]
        assert ids == words.convert_tokens_to_ids(wanted)


@pytest.mark.parametrize("system", ["KeySeg", "READ-7B"])
def test_what_they_add_is_exported(system, picture, tmp_path):
    """predict.py of the export answers the same words with the same mask."""
    from keyseg.predict.exported_script import Exported

    folder, outputs = tmp_path / "theirs", tmp_path / "outputs"
    if system == "KeySeg":
        checkpoint(folder, change=of_keyseg, words=tokenizer(KEYSEG_TOKENS))
        assert brought_in(folder, outputs, system=system) == 0
    else:
        checkpoint(folder, projector=2)
        more = ("model.points.count=9", "model.points.pool=1")
        assert brought_in(folder, outputs, *more, system=system) == 0
    [run] = find_all_finished(outputs, system)
    file = tmp_path / "picture.png"
    picture.save(file)
    predictor = Predictor(run.config, run.best_file, CPU)
    [found] = predictor(file, [QUERY], "teacher_forced")
    assert ask(outputs, "export", system, str(tmp_path / "model")) == 0
    exported = Exported(tmp_path / "model")
    answer = exported.processor.tokenizer(found.answer, add_special_tokens=False)["input_ids"]
    theirs = exported(picture, QUERY, answer)
    assert (theirs.mask == found.mask).mean() > 0.999
    assert 0.02 < found.mask.mean() < 0.98


def test_training_begins_from_it(made, small_run, make_parts):
    from copy import deepcopy

    from keyseg.sweep.cells import frozen
    from keyseg.train import start as starting
    from keyseg.train.build import build

    _, state, outputs = made
    cfg = deepcopy(small_run("fusion=full", "model.precision=fp32", "prompt=lisa_literal"))
    cfg.paths.outputs, cfg.model.start = str(outputs), "LISA-7B-v1"
    cfg = frozen(cfg)
    parts = build(cfg, CPU)
    start = starting.begin(parts, cfg)
    assert start.tokens == {"[KEY]": "new", "[SEG]": "kept"}
    assert {"key_projection", "keyword_head"} <= start.new.keys()
    assert "seg_projection" in start.taken
    seg = parts.model.vlm.table()[parts.conversation.seg_id]
    assert torch.equal(seg, state["model.embed_tokens.weight"][parts.conversation.seg_id])


def test_lora_that_lies_apart_is_merged(tmp_path):
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(D, D, generator=draw)
    a, b = torch.randn(4, D, generator=draw), torch.randn(D, 4, generator=draw)
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    rest = language(60) | {
        f"model.visual_model.{k}": v for k, v in build_sam(SAM).state_dict().items()
    }
    state = {f"base_model.model.{k}": v for k, v in rest.items()}
    state |= {f"{at}.weight": base, f"{at}.lora_A.default.weight": a}
    state |= {f"{at}.lora_B.default.weight": b}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    files = weights.Files(tmp_path)
    keys = weights.sort(files, tmp_path)
    assert keys.unmerged
    found = weights.merged(files, keys, weights.LANGUAGE_PART, alpha=8.0)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], base + 8 / 4 * b @ a)
    del state[f"{at}.lora_B.default.weight"]
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    files = weights.Files(tmp_path)
    with pytest.raises(ConfigError, match="is not whole"):
        weights.merged(files, weights.sort(files, tmp_path), weights.LANGUAGE_PART, 8.0)


def apart(state):
    """LoRA of one layer, as GSVA leaves it."""
    state = {f"base_model.model.{name}": value for name, value in state.items()}
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    return state | {
        f"{at}.lora_A.default.weight": torch.ones(4, D),
        f"{at}.lora_B.default.weight": torch.ones(D, 4),
    }


def test_alpha_of_lora_is_said_by_the_folder_or_by_you(tmp_path, capsys):
    folder, outputs = tmp_path / "gsva", tmp_path / "outputs"
    checkpoint(folder, change=apart)
    assert brought_in(folder, outputs) == 2
    assert "no adapter_config.json says its alpha: give --lora-alpha" in capsys.readouterr().err
    assert not list(outputs.glob("*"))
    files = weights.Files(folder)
    keys = weights.sort(files, folder)
    given = {
        alpha: imported_model._alpha(ForeignCheckpoint(folder, "GSVA", "clip", alpha=alpha), keys)
        for alpha in (8.0, 32.0)
    }
    assert given == {8.0: 8.0, 32.0: 32.0}
    (folder / "adapter_config.json").write_text('{"lora_alpha": 12}')
    assert imported_model._alpha(ForeignCheckpoint(folder, "GSVA", "clip"), keys) == 12.0


def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path, capsys):
    """No file may grow as large as LLaVA's: its writing breaks off in the middle."""
    folder, _, _ = made
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code = brought_in(folder, tmp_path / "outputs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    error = capsys.readouterr().err
    assert f"File too large: {tmp_path / 'outputs/LISA-7B-v1'} could not be written" in error
    assert len(error.strip().splitlines()) == 1
    assert not list((tmp_path / "outputs").iterdir())


def test_too_little_room_is_said_before_anything_is_written(made, tmp_path, capsys, monkeypatch):
    folder, _, _ = made
    little = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(imported_model.shutil, "disk_usage", lambda path: little)
    assert brought_in(folder, tmp_path / "outputs") == 2
    assert "0.0 GB free, the import needs about" in capsys.readouterr().err
    assert not list((tmp_path / "outputs").iterdir())


def renamed(state):
    state["model.layers.0.self_attn.q_proj.weird"] = state.pop("model.norm.weight")
    return state


def without_sam(state):
    return {k: v for k, v in state.items() if "visual_model" not in k}


def without_layer(state):
    return {k: v for k, v in state.items() if "layers.1.mlp.up_proj" not in k}


def half_of_keyseg(state):
    return state | {"keyword_fusion.value_proj.weight": torch.zeros(2, D)}


def idle_of_keyseg(state):
    return state | {"keyword_text_proj.weight": torch.zeros(2, D)}


def other_shape(state):
    return state | {"model.text_hidden_fcs.0.2.weight": torch.zeros(7, D)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "model.layers.0.self_attn.q_proj.weird: no key of LISA's family"),
        (without_sam, "holds no weights of SAM"),
        (half_of_keyseg, "is KeySeg's, and lacks value_proj.bias of its fusion of KEY"),
        (idle_of_keyseg, "is KeySeg's, and lacks value_proj.weight of its fusion of KEY"),
        (without_layer, "does not fit its config.json"),
        (other_shape, "SEG's projection does not fit"),
    ],
)
def test_nothing_is_guessed(change, message, tmp_path, capsys):
    checkpoint(tmp_path / "lisa", change=change)
    capsys.readouterr()  # a bar, where nothing was saved before
    assert brought_in(tmp_path / "lisa", tmp_path / "outputs") == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list((tmp_path / "outputs").glob("*/*"))


def test_files_with_code_in_them_are_not_opened(tmp_path, capsys):
    import pickle

    folder = tmp_path / "lisa"
    checkpoint(folder)
    bad = folder / "pytorch_model-00001-of-00002.bin"
    bad.write_bytes(pickle.dumps(print))
    assert brought_in(folder, tmp_path / "outputs") == 2
    assert f"{bad}" in capsys.readouterr().err


def test_a_missing_shard_and_a_token_without_a_row_are_named(tmp_path, capsys):
    folder = tmp_path / "lisa"
    checkpoint(folder)
    assert brought_in(folder, tmp_path / "outputs", "--seg", "<seg>") == 2
    assert "<seg> is no token with a row of its own" in capsys.readouterr().err
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert brought_in(folder, tmp_path / "outputs") == 2
    assert "pytorch_model-00002-of-00002.bin is missing" in capsys.readouterr().err
    assert brought_in(tmp_path / "nothing", tmp_path / "outputs") == 2
    assert "there is no such folder" in capsys.readouterr().err
