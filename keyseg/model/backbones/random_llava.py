"""LLaVA of any size with random weights: for speed, memory and shapes, where there are no files.

Unless `sizes` names a tokenizer, it writes bytes: about four times as many tokens for a text as
LLaMA's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from keyseg.model.backbones.llava import set_layers
from keyseg.model.backbones.sam import WeightsError

_SPECIAL = ("<s>", "</s>", "<unk>", "<pad>", "<image>")


def random_llava(
    path: str | Path,
    sizes: dict[str, Any],
    *,
    dtype: torch.dtype,
    attention: str,
    part: str = "whole",
) -> tuple[LlavaForConditionalGeneration, AutoProcessor]:
    """Model and processor from `sizes`, or from the folder's config where they are empty.

    Built on torch's default device: under `torch.device("meta")` nothing is allocated.
    `part`: as in `load_llava`.

    Raises:
        WeightsError: neither sizes nor a folder with a config, or sizes that do not go together.
    """
    try:
        if sizes:
            config, processor = _from_sizes(sizes)
        else:
            config = LlavaConfig.from_pretrained(path, local_files_only=True)
            processor = AutoProcessor.from_pretrained(path, local_files_only=True)
        layers = set_layers(config, part, 0)
        model = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation=attention
        )
        set_layers(model.config, part, layers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"model.init=random: {type(error).__name__}: {str(error).splitlines()[0]}. Give "
            f"model.sizes (text, vision, tokenizer), or a model.llava with a config (now {path})"
        ) from error
    return model.eval(), processor


def _from_sizes(sizes: dict[str, Any]) -> tuple[LlavaConfig, LlavaProcessor]:
    vision = CLIPVisionConfig(**sizes["vision"])
    named = sizes.get("tokenizer")
    if named:
        tokenizer = AutoTokenizer.from_pretrained(named, local_files_only=True)
    else:
        tokenizer = byte_tokenizer()
    side, patch = vision.image_size, vision.patch_size
    text = LlamaConfig(
        **sizes["text"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // patch) ** 2,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    pictures = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # CLIP's class token
    )
    return config, processor


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *letters])}
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
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
