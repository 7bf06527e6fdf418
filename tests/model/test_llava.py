"""What of LLaVA is trained, how the new tokens start, and that it generates what it computes."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from keyseg.data.mix import groups, load_splits
from keyseg.data.prefix import Prefix
from keyseg.model.backbones.llava import clip_parameters, load_llava
from keyseg.model.backbones.sam import WeightsError
from keyseg.model.packing import pack

IMAGE = 4  # id of <image> in the tiny tokenizer
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def untie(llava):
    """LLaVA-1.5 has a head of its own."""
    llava.config.tie_word_embeddings = False
    llava.config.text_config.tie_word_embeddings = False
    llava.lm_head.weight = torch.nn.Parameter(torch.randn_like(llava.lm_head.weight))


def test_only_lora_of_the_language_model_and_the_token_rows_are_trained(make_vlm):
    vlm, _ = make_vlm()
    layers = len(vlm.base.model.language_model.layers)
    lora, rows = [], []
    for name, parameter in vlm.named_parameters():
        if parameter.requires_grad:
            (lora if "lora_" in name else rows).append((name, parameter))
    found = {m[0] for m in (re.search(r"layers\.\d+\.\w+\.\w+\.lora_[AB]", n) for n, _ in lora)}
    assert len(found) == len(lora) == layers * len(TARGETS) * 2
    assert all("language_model" in n and "vision" not in n for n, _ in lora)
    assert [tuple(p.shape) for _, p in rows] == [(2, 192)]
    assert "embed_tokens" in rows[0][0]


def test_lora_does_not_widen_what_autocast_narrows_again(make_parts):
    """peft casts inputs to LoRA's fp32 by itself; under autocast that is two copies for nothing."""
    parts, cfg = make_parts("model.frozen=precision")
    examples = [e for s in load_splits(cfg.data, ["train"])[0] for e in s.examples][:2]
    batch = parts.collator(groups(examples))
    seen = []
    for name, module in parts.model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        parts.model(batch)
    assert seen
    assert set(seen) == {torch.bfloat16}


def test_clip_is_left_out_and_the_projector_is_frozen(make_vlm):
    """CLIP has layers of the names that LoRA looks for."""
    vlm, _ = make_vlm()
    assert not list(vlm.base.model.vision_tower.parameters())
    assert not any(p.requires_grad for p in vlm.base.model.multi_modal_projector.parameters())


@pytest.mark.parametrize(("part", "left_out"), [("language", "vision"), ("vision", "text")])
def test_part_of_a_llava(llava_folder, part, left_out):
    """The other part's layers stay on disk; the config still tells the whole."""
    whole, _ = load_llava(llava_folder)
    some, _ = load_llava(llava_folder, part=part)
    assert some.config.to_dict() == whole.config.to_dict()
    wanted, found = (dict(m.named_parameters()) for m in (whole, some))
    assert found.keys() < wanted.keys()
    assert all(torch.equal(found[n], wanted[n]) for n in found)
    layers = {"vision": ".vision_tower.encoder.", "text": ".language_model.layers."}
    gone = {n for n in wanted if layers[left_out].strip(".") in n}
    assert wanted.keys() - found.keys() == gone


def test_weights_that_are_missing_are_named(llava_folder, tmp_path):
    """transformers would draw them at random, with a warning."""
    for file in llava_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in state if "layers.1" in name and "q_proj" in name)
    del state[gone]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 weights are missing: .*q_proj"):
        load_llava(tmp_path)


def test_clips_size_is_known_without_it(llava_folder):
    whole, _ = load_llava(llava_folder)
    count = sum(p.numel() for p in whole.model.vision_tower.parameters())
    some, _ = load_llava(llava_folder, part="language")
    assert clip_parameters(some.config) == count


def test_an_untied_head_has_token_rows_of_its_own(make_vlm):
    vlm, _ = make_vlm(untie)
    rows = [n for n, p in vlm.named_parameters() if p.requires_grad and "lora_" not in n]
    assert len(rows) == 2
    assert any("embed_tokens" in n for n in rows)
    assert any("lm_head" in n for n in rows)


def test_new_rows_start_from_the_named_words(make_vlm):
    vlm, tokenizer = make_vlm(shaken=False, starts=(20, None))
    key, seg = tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
    table = vlm.table()
    assert len(table) == seg + 1
    assert torch.equal(table[key], table[20])
    assert not torch.equal(table[seg], table[key])
    embedded = vlm.base.get_input_embeddings()(torch.tensor([key, 20]))
    assert torch.equal(embedded[0], embedded[1])


def test_a_padded_table_is_not_resized(make_vlm):
    """LLaVA-1.5's table has 64 rows to spare."""
    rows = []

    def pad(llava):
        count = llava.get_input_embeddings().weight.shape[0] + 64
        llava.resize_token_embeddings(count, mean_resizing=False)
        rows.append(count)

    vlm, tokenizer = make_vlm(pad, shaken=False, starts=(None, 21))
    key, seg = tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
    assert len(vlm.table()) == rows[0]
    assert torch.equal(vlm.table()[seg], vlm.table()[21])
    assert vlm.table()[key].count_nonzero() == len(vlm.table()[key])


def test_rows_without_a_word_are_draws_of_their_own_like_a_word(make_vlm):
    """Seeded, another for each token and seed; normal, with each channel's mean and spread."""
    tables = {}
    for seed in (0, 0, 1):
        torch.manual_seed(99 + len(tables))  # nothing else that is drawn matters
        vlm, tokenizer = make_vlm(shaken=False, seed=seed)
        tables.setdefault(seed, []).append(vlm.table())
    key, seg = tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
    first, again, other = *tables[0], *tables[1]
    assert torch.equal(first[[key, seg]], again[[key, seg]])
    rows = [first[key], first[seg], other[key], other[seg]]
    words = first[:key]
    for row in rows:
        z = (row - words.mean(dim=0)) / words.std(dim=0)
        assert abs(float(z.mean())) < 0.25
        assert 0.8 < float(z.std()) < 1.2
    for i, one in enumerate(rows):
        for two in rows[:i]:
            assert (
                abs(float(torch.corrcoef(torch.stack([one, two]) - words.mean(dim=0))[0, 1])) < 0.3
            )


def test_segs_draw_is_the_same_with_and_without_a_key(make_parts):
    start = "model.tokens.seg_init=null"
    drawn = []
    for fusion in ("seg_only", "no_key"):
        parts, _ = make_parts(f"fusion={fusion}", start, shaken=False)
        drawn.append(parts.model.vlm.table()[parts.conversation.seg_id])
    assert torch.equal(*drawn)


@pytest.mark.parametrize("prepare", [lambda llava: None, untie], ids=["tied", "untied"])
def test_training_the_rows_changes_the_logits_of_these_tokens_alone(make_vlm, prepare):
    vlm, tokenizer = make_vlm(prepare, shaken=False)
    ids = tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
    states = torch.randn(3, 192, dtype=torch.float64)
    with torch.no_grad():
        before = vlm.logits(states)
        for name, parameter in vlm.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += 1
        changed = (vlm.logits(states) != before).any(dim=0)
    assert changed.nonzero().flatten().tolist() == sorted(ids)


def test_training_the_rows_changes_what_the_tokens_mean(make_vlm, clip):
    vlm, tokenizer = make_vlm()
    ids = tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
    rows = next(p for n, p in vlm.named_parameters() if p.requires_grad and "lora_" not in n)
    packed, _ = pack([Prefix.of([1, *[IMAGE] * 6])], [[[10, ids[0], 11], [10, 11, 12]]], 0)
    with torch.no_grad():
        before = vlm(packed, (clip[0],))
        rows[0] += 1  # KEY, in the order of `new_tokens`
        after = vlm(packed, (clip[0],))
    changed = (before != after).any(dim=-1)[0].nonzero().flatten().tolist()
    assert changed == [8, 9]  # KEY and the token behind it, not the other expression


def greedy(vlm, prompt, image, limit, eos):
    """By repeated full forward, without padding or cache."""
    ids, answer = list(prompt), []
    for _ in range(limit):
        packed, _ = pack([Prefix.of(ids)], [[]], 0)
        with torch.no_grad():
            token = int(vlm.logits(vlm(packed, (image,))[0, -1]).argmax())
        if token == eos:
            break
        ids.append(token)
        answer.append(token)
    return answer


def test_generate_is_greedy_decoding(make_vlm, clip):
    """Questions of different lengths, on different images, in one batch; one prefix an image."""
    vlm, _ = make_vlm()
    prefix, questions = [1, 5, *[IMAGE] * 6], [[10], [12, 13, 14, 15], [30]]
    image_of = torch.tensor([0, 1, 0])
    prompts, images = [prefix + q for q in questions], clip[image_of]
    wanted = [greedy(vlm, p, i, 6, eos=-1) for p, i in zip(prompts, images, strict=True)]
    assert len({tuple(w) for w in wanted}) > 1
    arguments = {"language": (clip.flatten(0, 1),), "image_of": image_of, "limit": 6, "pad": 0}
    assert vlm.generate([Prefix.of(prefix)] * 2, questions, **arguments, eos=2) == wanted
    eos = wanted[1][3]  # a word of the answers ends them now
    wanted = [greedy(vlm, p, i, 6, eos) for p, i in zip(prompts, images, strict=True)]
    assert vlm.generate([Prefix.of(prefix)] * 2, questions, **arguments, eos=eos) == wanted
    assert len(wanted[1]) <= 3


def test_an_answer_does_not_say_the_token_of_an_image(make_vlm, clip, monkeypatch):
    """Read again behind the question, it would stand for an image that is not there."""
    vlm, _ = make_vlm()
    plain = vlm.logits

    def longing(states):
        scores = plain(states)
        scores[:, IMAGE] = scores.max() + 1
        return scores

    arguments = {"language": (clip[:1].flatten(0, 1),), "image_of": torch.tensor([0]), "limit": 4}
    asked = [Prefix.of([1, 5, *[IMAGE] * 6])], [[10]]
    wanted = vlm.generate(*asked, **arguments, pad=0, eos=-1)
    monkeypatch.setattr(vlm, "logits", longing)
    assert vlm.generate(*asked, **arguments, pad=0, eos=-1) == wanted
    assert IMAGE not in wanted[0]


def test_missing_folder(tmp_path):
    with pytest.raises(WeightsError, match="LLaVA weights cannot be read") as caught:
        load_llava(tmp_path / "none")
    assert str(tmp_path / "none") in str(caught.value)
    assert "Set model.llava" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [None, "{}", "{", '{"model_type": "bert"}'])
def test_a_folder_that_is_no_llava(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"Set model\.llava"):
        load_llava(tmp_path)
