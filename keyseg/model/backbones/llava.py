"""LLaVA-1.5: CLIP's states are kept before its projector, a third of their size after it, at 7B."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from keyseg.config import ModelConfig
from keyseg.data.prefix import Prefix, Size
from keyseg.model.backbones.byte_tokenizer import tokenizer_of
from keyseg.model.backbones.clip_view import CROP, clip_pixels
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.language import Language
from keyseg.model.backbones.vlm import Vlm
from keyseg.model.backbones.weights import WeightsError

_PUBLIC = "https://huggingface.co/llava-hf"


class LlavaVlm(Vlm):
    """The projector is part of it, frozen."""

    sees = ("vision_tower",)

    @torch.no_grad()
    def project(self, language: Levels) -> Levels:
        """CLIP's states (ΣP, W) -> image tokens (ΣP, D)."""
        projector = self.base.model.multi_modal_projector
        states = language[0].to(next(projector.parameters()).dtype)
        return (projector(states),)


class Llava(Language):
    """See `keyseg.model.backbones.sides.LanguageSide`."""

    name = "clip"
    title = "CLIP"
    family = "llava"
    vlm = LlavaVlm
    placeholder = "<image>"

    def __init__(self, model: Any, processor: Any, choice: ModelConfig) -> None:
        super().__init__(model, processor, choice)
        self.view = choice.clip_view
        image, count = processor.tokenizer.convert_tokens_to_ids("<image>"), self._image_tokens()
        self._image = Prefix.of([image] * count)

    def _image_tokens(self) -> int:
        """Image positions that the processor puts in for one picture.

        Raises:
            WeightsError: CLIP makes another number of states of one.
        """
        crop = self.processor.image_processor.crop_size
        made = self._processed((crop["height"], crop["width"]))
        image_id = self.tokenizer.convert_tokens_to_ids(self.placeholder)
        count, seen = int((made["input_ids"] == image_id).sum()), image_positions(self.model.config)
        if count != seen:
            raise WeightsError(
                f"model.llava={self.choice.llava}: its processor makes {count} image tokens of a "
                f"picture and its CLIP {seen}: patch size, crop size and "
                "num_additional_image_tokens in processor_config.json must fit config.json"
            )
        return count

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> tuple[LlavaConfig, LlavaProcessor]:
        """`text`, `vision`: arguments of LlamaConfig and CLIPVisionConfig."""
        vision = CLIPVisionConfig(**sizes["vision"])
        tokenizer = tokenizer_of(sizes)
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

    @classmethod
    def key(cls) -> str:
        """Of the config: where its weights are."""
        return "model.llava"

    @classmethod
    def title_of_family(cls) -> str:
        """See `Language`."""
        return "LLaVA"

    @classmethod
    def remedy(cls) -> str:
        """See `Language`."""
        return (
            f"Set model.llava to a folder or hub id in the Hugging Face layout ({_PUBLIC}); the "
            "bundled one: `python -m keyseg.tiny`"
        )

    def seen_with(self) -> dict[str, Any]:
        """See `Backbone`."""
        config = self.model.config.to_dict()
        select = {k: config[k] for k in ("vision_feature_layer", "vision_feature_select_strategy")}
        view = {} if self.view == CROP else {"view": self.view}
        preprocess = self.processor.image_processor.to_dict()
        return {"preprocess": preprocess, **view, "attention": self.choice.attention, **select}

    def encoder_size(self) -> int:
        """See `Backbone`."""
        return clip_parameters(self.model.config)

    def encoder(self) -> nn.Module:
        """See `Backbone`."""
        return ClipEncoder(self.model)

    def pixels(self, picture: Tensor) -> dict[str, Tensor]:
        """See `Backbone`."""
        pixels = clip_pixels(self.processor.image_processor, self.view, picture)
        return {"pixels": pixels[None]}

    def save(
        self, vlm: Vlm, folder: Path, new_tokens: Sequence[str], dtype: torch.dtype
    ) -> dict[str, Any]:
        """See `LanguageSide`."""
        return super().save(vlm, folder, new_tokens, dtype) | {"clip_view": self.view}

    def _places(self, size: Size) -> Prefix:
        """As many for every image."""
        return self._image


class ClipEncoder(nn.Module):
    """CLIP's hidden states that LLaVA's config selects: pixels (1, 3, h, w) -> (P, W)."""

    def __init__(self, llava: LlavaForConditionalGeneration) -> None:
        """`llava`: its language model is not used."""
        super().__init__()
        self.tower = llava.model.vision_tower
        llava.model.multi_modal_projector = nn.Identity()
        # not as a module: its language model is none of this one's parts
        self._select = llava.get_image_features

    def forward(self, pixels: Tensor) -> Levels:
        """See the class."""
        return (self.states(pixels)[0],)

    def states(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, h, w) -> (B, P, W)."""
        return torch.stack(list(self._select(pixels).pooler_output))


def load_llava(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    quantization: str = "none",
    device: torch.device | None = None,
    part: str = "whole",
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Model and processor from a `save_pretrained` folder or a hub id.

    Args:
        path: folder or hub id.
        dtype: of all weights.
        attention: transformers' attn_implementation.
        quantization: "nf4" keeps the linear layers of the language model in 4 bits on `device`.
        device: only for quantization; otherwise the CPU.
        part: "language" leaves CLIP's layers on disk, "vision" those of the language model.

    Raises:
        WeightsError: nothing there, or something that is no LLaVA.
    """
    where = device or torch.device("cpu")
    kept = {"dtype": dtype, "attn_implementation": attention}
    return Llava.read(path, part, quantization, where, **kept)


def clip_parameters(config: LlavaConfig) -> int:
    """How many parameters CLIP has; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModel.from_config(config.vision_config).parameters())


def image_positions(config: Any) -> int:
    """Image positions that a LLaVA makes of one picture: patches, and CLIP's own token if kept."""
    patches = int(config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return patches + int(config.vision_feature_select_strategy == "full")
