"""A text2text model of the real classes, tiny and with random weights; a data set to ask about."""

import json
from pathlib import Path

import pytest

WORDS = "a the of in what is dog cat bird ball red wooden deck ship sings purrs barks ? ."
TARGET = {"label": "target", "points": [[2, 2], [7, 2], [7, 5], [2, 5]]}
QUERIES = {
    "a": "what barks ?",
    "b": "what purrs ?",
    "c": "what sings ?",
    "d": "where is the crew ?",
    "e": "what part of the dog barks ?",
}


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory) -> Path:
    """A T5 with a word-level tokenizer, as save_pretrained leaves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny t5")
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *WORDS.split()])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = T5Config(
            vocab_size=len(vocabulary),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            initializer_factor=4.0,
        )
        model = T5ForConditionalGeneration(config)
        with torch.no_grad():
            model.shared.weight[:3] = 0.0  # it says words, not the special tokens
        model.save_pretrained(folder)
    return folder


@pytest.fixture
def reason_data(tmp_path, reason_folder) -> Path:
    """data.root with ReasonSeg: five training queries, and LISA's answers to all but the last."""
    root = tmp_path / "disk"
    reason_folder.root = root / "reason_seg"
    for name, query in QUERIES.items():
        reason_folder.add(name, [query], [TARGET])
    answers = {"a": "the dog .", "b": "a large cat .", "c": "the bird .", "d": "the wooden deck ."}
    file = root / "reason_seg/explanatory/train.json"
    file.parent.mkdir()
    file.write_text(
        json.dumps(
            [
                {"query": QUERIES[n], "outputs": text, "image": f"{n}.jpg", "json": f"{n}.json"}
                for n, text in answers.items()
            ]
        )
    )
    return root
