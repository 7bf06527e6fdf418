"""LLaVA-OneVision: the whole image and tiles of it, as many as its size asks for."""

from __future__ import annotations

from typing import Any

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
)

from keyseg.model.backbones.byte_tokenizer import tokenizer_of
from keyseg.model.backbones.language import Language


class LlavaOnevision(Language):
    """See `keyseg.model.backbones.sides.LanguageSide`."""

    family = "llava_onevision"
    name = "llava_onevision"
    title = "LLaVA-OneVision's encoder"
    placeholder = "<image>"
    takes = ("pixel_values", "image_sizes")

    @classmethod
    def from_sizes(
        cls, sizes: dict[str, Any]
    ) -> tuple[LlavaOnevisionConfig, LlavaOnevisionProcessor]:
        """`text`, `vision`: arguments of Qwen2Config and SiglipVisionConfig; `tiles`: heights and
        widths to which an image may be brought."""
        tokenizer = tokenizer_of(sizes, "<video>")
        text, vision = dict(sizes["text"]), dict(sizes["vision"])
        more = {"image_grid_pinpoints": sizes["tiles"]} if "tiles" in sizes else {}
        image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
        config = LlavaOnevisionConfig(
            text_config={"model_type": "qwen2", **text},
            vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **vision},
            image_token_index=image,
            video_token_index=video,
            tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
            **more,
        )
        seen = config.vision_config
        square = {"height": seen.image_size, "width": seen.image_size}
        processor = LlavaOnevisionProcessor(
            image_processor=LlavaOnevisionImageProcessor(
                size=square, image_grid_pinpoints=config.image_grid_pinpoints
            ),
            tokenizer=tokenizer,
            video_processor=LlavaOnevisionVideoProcessor(size=square),
            num_image_tokens=(seen.image_size // seen.patch_size) ** 2,
            vision_feature_select_strategy="full",
        )
        return config, processor
