"""SmolVLM2: an image in tiles, each behind a token with its row and column, and all of it, small.

`model.language.view: {size: {longest_edge: 768}}` bounds the pixels that are read of an image, and
so the tiles; `{do_image_splitting: false}` leaves the small image alone.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from keyseg.model.backbones.byte_tokenizer import tokenizer_of
from keyseg.model.backbones.language import Language
from keyseg.model.backbones.vlm import Vlm

_MOST = 4
"""Rows and columns of tiles that the tokenizer of bytes knows: the longest edge is so many."""
_TILES = [f"<row_{r}_col_{c}>" for r in range(1, _MOST + 1) for c in range(1, _MOST + 1)]
_TOKENS = ("<fake_token_around_image>", "<global-img>", "<video>", "<end_of_utterance>", *_TILES)


class SmolVlmText(Vlm):
    """Its parts have other names than the other families'."""

    text = "text_model"
    sees = ("vision_model", "connector")


class SmolVlm(Language):
    """See `keyseg.model.backbones.sides.LanguageSide`."""

    family = "smolvlm"
    name = "smolvlm"
    title = "SmolVLM's encoder"
    vlm = SmolVlmText
    outside = ("vision_model", "connector")
    takes = ("pixel_values", "pixel_attention_mask")
    placeholder = "<image>"

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> tuple[SmolVLMConfig, SmolVLMProcessor]:
        """`text`, `vision`: arguments of LlamaConfig and SmolVLMVisionConfig; `scale_factor`: side
        of the squares of places that become one token."""
        tokenizer = tokenizer_of(sizes, *_TOKENS)
        text = dict(sizes["text"])
        tied = bool(text.pop("tie_word_embeddings", False))
        config = SmolVLMConfig(
            text_config={"model_type": "llama", **text},
            vision_config=dict(sizes["vision"]),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=sizes["scale_factor"],
            tie_word_embeddings=tied,
        )
        seen = config.vision_config
        side, tile = {"longest_edge": _MOST * seen.image_size}, {"longest_edge": seen.image_size}
        processor = SmolVLMProcessor(
            image_processor=SmolVLMImageProcessor(size=side, max_image_size=tile),
            tokenizer=tokenizer,
            video_processor=SmolVLMVideoProcessor(size=side, max_image_size=tile),
            image_seq_len=(seen.image_size // seen.patch_size) ** 2 // config.scale_factor**2,
        )
        return config, processor
