"""A tokenizer that writes bytes: for random weights of any size, where there are no files.

About four times as many tokens for a text as LLaMA's.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

_SPECIAL = ("<s>", "</s>", "<unk>", "<pad>", "<image>")


def tokenizer_of(sizes: dict[str, Any], *more: str, **names: str) -> Any:
    """The one that `sizes` names, or bytes; `more`, `names`: as `byte_tokenizer` takes them."""
    named = sizes.get("tokenizer")
    if named:
        return AutoTokenizer.from_pretrained(named, local_files_only=True)
    return byte_tokenizer(*more, **names)


def byte_tokenizer(*more: str, **names: str) -> PreTrainedTokenizerFast:
    """One token for each byte.

    more: special tokens of a family. names: of them by role, as a family's processor asks its
    tokenizer for them (`image_token="<|image_pad|>"`).
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *letters, *more])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<image>", *more],
        padding_side="left",
        **names,
    )
