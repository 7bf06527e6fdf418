"""InternVL3: an image is one square tile, or several with `model.language.view.crop_to_patches`."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from keyseg.model.backbones.byte_tokenizer import tokenizer_of
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.language import Language
from keyseg.model.backbones.vlm import Vlm

_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


class InternVlm(Vlm):
    """Takes image tokens as one tensor, not as a list."""

    def seen(self, tokens: Levels) -> BaseModelOutputWithPooling:
        """See `Vlm`."""
        return BaseModelOutputWithPooling(pooler_output=tokens[0][None])


class InternVl(Language):
    """See `keyseg.model.backbones.sides.LanguageSide`."""

    family = "internvl"
    name = "internvl"
    title = "InternVL's encoder"
    vlm = InternVlm
    placeholder = "<IMG_CONTEXT>"
    reads: ClassVar[dict[str, Any]] = {"crop_to_patches": False}

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> tuple[InternVLConfig, InternVLProcessor]:
        """`text`, `vision`: arguments of Qwen2Config and InternVLVisionConfig."""
        tokenizer = tokenizer_of(sizes, *_TOKENS.values(), **_TOKENS)
        text, vision = dict(sizes["text"]), dict(sizes["vision"])
        image = tokenizer.convert_tokens_to_ids(_TOKENS["context_image_token"])
        config = InternVLConfig(
            text_config={"model_type": "qwen2", **text},
            vision_config=vision,
            image_token_id=image,
            tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
        )
        (side, _), (patch, _) = config.vision_config.image_size, config.vision_config.patch_size
        count = int((side // patch) ** 2 * config.downsample_ratio**2)
        config.image_seq_length = count
        square = {"height": side, "width": side}
        processor = InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(size=square),
            tokenizer=tokenizer,
            video_processor=InternVLVideoProcessor(size=square),
            image_seq_length=count,
        )
        return config, processor
