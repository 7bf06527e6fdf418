"""Qwen2.5-VL and Qwen3-VL: as many image tokens as an image's size asks for, turned by their place.

`model.language.view: {size: {shortest_edge: ..., longest_edge: ...}}` bounds the pixels that are
read of an image.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import (
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from keyseg.data.prefix import Prefix, Size
from keyseg.model.backbones.byte_tokenizer import tokenizer_of
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.language import Language
from keyseg.model.backbones.vlm import Vlm

_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


class QwenVlm(Vlm):
    """Features are kept as the merger gives them."""

    sees = ("visual",)


class DeepVlm(QwenVlm):
    """Later layers see the image again: a level of features for each of them."""

    def seen(self, tokens: Levels) -> BaseModelOutputWithPooling:
        """See `Vlm`."""
        deep = [[level] for level in tokens[1:]]
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=[tokens[0]], deepstack_features=deep
        )


class Qwen25Vl(Language):
    """See `keyseg.model.backbones.sides.LanguageSide`."""

    family = "qwen2_5_vl"
    name = "qwen2_5_vl"
    title = "Qwen2.5-VL's encoder"
    vlm: ClassVar[type[Vlm]] = QwenVlm
    outside = ("visual",)
    takes = ("pixel_values", "image_grid_thw")
    placeholder = "<|vision_start|><|image_pad|><|vision_end|>"
    config: ClassVar[Any] = Qwen2_5_VLConfig
    processors: ClassVar[Any] = (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor)

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
        """`text`, `vision`: arguments of the family's two configs."""
        tokenizer = tokenizer_of(sizes, *_TOKENS.values(), **_TOKENS)
        ids = {f"{k}_id": tokenizer.convert_tokens_to_ids(v) for k, v in _TOKENS.items()}
        text, vision = dict(sizes["text"]), dict(sizes["vision"])
        tied = bool(text.pop("tie_word_embeddings", False))
        config = cls.config(text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids)
        seen = config.vision_config
        images = Qwen2VLImageProcessor(
            patch_size=seen.patch_size,
            merge_size=seen.spatial_merge_size,
            temporal_patch_size=seen.temporal_patch_size,
        )
        whole, videos = cls.processors
        return config, whole(image_processor=images, tokenizer=tokenizer, video_processor=videos())

    def _places(self, size: Size) -> Prefix:
        """Text counts on; an image's token is turned by its row and column, and what comes after
        goes on behind the longer side."""
        made = self._processed(size)
        ids: list[int] = made["input_ids"][0].tolist()
        merge = self.processor.image_processor.merge_size
        _, rows, columns = (int(n) for n in made["image_grid_thw"][0])
        rows, columns = rows // merge, columns // merge
        count, first = rows * columns, ids.index(self.model.config.image_token_id)
        grid = [(row, column) for row in range(rows) for column in range(columns)]
        positions = [[0] * count, [row for row, _ in grid], [column for _, column in grid]]
        image = Prefix(ids[first : first + count], positions, max(rows, columns))
        return Prefix.of(ids[:first]).then(image).then(Prefix.of(ids[first + count :]))


class Qwen3Vl(Qwen25Vl):
    """See `keyseg.model.backbones.sides.LanguageSide`; features have several levels."""

    family = "qwen3_vl"
    name = "qwen3_vl"
    title = "Qwen3-VL's encoder"
    vlm = DeepVlm
    config = Qwen3VLConfig
    processors = (Qwen3VLProcessor, Qwen3VLVideoProcessor)
