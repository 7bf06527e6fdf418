"""The sizes of the bundled tiny backbones, and how they are built with random weights.

Both are the public classes with small numbers: transformers' LlavaForConditionalGeneration with a
word-level tokenizer, and segment_anything's own Sam modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from keyseg.data.scenes.queries import words

GRID = 10
"""Locations are words of a GRID x GRID board, one for each image patch."""
PATCH = 8
"""Side of a patch in pixels, of what the vision tower is shown."""

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
TALK = (
    "user",
    "assistant",
    ":",
    ".",
    ",",
    "?",
    ";",
    "sure",
    "it",
    "is",
    "a",
    "at",
    "find",
    "what",
    "where",
    "the",
    "here",
    "in",
    "location",
)


def cell_word(x: float, y: float, side: float) -> str:
    """The word for a location: x, y in pixels of a square picture of that side."""
    column, row = (min(GRID - 1, max(0, int(v / side * GRID))) for v in (x, y))
    return f"p{row}{column}"


def make_processor(said: Sequence[str] | None = None, patch: int = PATCH) -> LlavaProcessor:
    """A word-level tokenizer over all that is said, and a CLIP image processor.

    said: the words of a world and of what is asked about it; None = of plain scenes.
    """
    side = GRID * patch
    cells = [f"p{r}{c}" for r in range(GRID) for c in range(GRID)]
    said = [*TALK, *words()] if said is None else said
    vocabulary = list(dict.fromkeys([*_SPECIAL, *said, *cells]))
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    bos = ("<s>", vocabulary.index("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    pictures = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=fast,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, dropped by "default"
    )


def make_llava(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """About 3 million parameters, random: seed torch first."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=GRID * processor.patch_size,
        patch_size=processor.patch_size,
    )
    tokenizer = processor.tokenizer
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=3,
        max_position_embeddings=512,
        # slow rotations: likeness between a word and a patch 100 places away must survive them
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,  # four layers are few: none is left out
        image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)


SAM_SIZES: dict[str, Any] = {
    "image_size": 128,
    "patch_size": 8,
    "encoder_dim": 128,
    "encoder_depth": 4,
    "encoder_heads": 4,
    "encoder_global": [1, 3],
    "window_size": 8,
    "prompt_dim": 64,
    "decoder_depth": 2,
    "decoder_heads": 4,
    "decoder_mlp": 256,
}
"""Written beside the weights as config.json; `keyseg.model.backbones.sam.build_sam` reads it."""
