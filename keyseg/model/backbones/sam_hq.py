"""SAM-HQ, through transformers: SAM with a mask of finer edges, from what its ViT saw early on.

Two maps are kept of an image: the embedding, and the first global layer's states, five times as
large at ViT-H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamHQConfig, SamHQModel

from keyseg.config import ModelConfig
from keyseg.data.prefix import Size
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.sam import preprocess
from keyseg.model.backbones.sam2 import Sam2
from keyseg.model.resample import Frame


class SamHq(Sam2):
    """See `keyseg.model.backbones.sides.MaskSide`."""

    name = "sam_hq"
    title = "SAM-HQ's encoder"
    families = ("sam_hq",)
    model = SamHQModel
    config = SamHQConfig

    def __init__(self, model: Any, dtype: torch.dtype, choice: ModelConfig) -> None:
        super().__init__(model, dtype, choice)
        self.frame = Frame(self.side)

    def seen_with(self) -> dict[str, Any]:
        """See `Backbone`."""
        return {"family": self.families[0], "preprocess": self.side}

    def encoder(self) -> nn.Module:
        """See `Backbone`."""
        return SamHqEncoder(self.sam).to(self.dtype)

    def pixels(self, picture: Tensor) -> dict[str, Tensor]:
        """See `Backbone`; as SAM's."""
        return {"pixels": preprocess(self.side, picture)[None]}

    def head(self) -> Any:
        """See `MaskSide`."""
        return SamHqHead(self.sam, self.frame)

    def _scale(self, size: Size) -> list[float]:
        return [self.side / max(size)] * 4


class SamHqEncoder(nn.Module):
    """Pixels (1, 3, S, S) -> embedding (C, E, E), early states (W, E, E)."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.vision = sam.vision_encoder

    def forward(self, pixels: Tensor) -> Levels:
        """See the class."""
        seen = self.vision(pixels, return_dict=True)
        return seen.last_hidden_state[0], seen.intermediate_embeddings[0][0].permute(2, 0, 1)


class SamHqHead(nn.Module):
    """The decoder for one mask per prompt: SAM's own first mask and the finer one, summed."""

    image_pe: Tensor
    no_mask: Tensor

    def __init__(self, sam: Any, frame: Frame) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.channels = int(self.decoder.hidden_size)
        self.frame = frame
        with torch.no_grad():
            places = sam.get_image_wide_positional_embeddings()
        self.register_buffer("image_pe", places, persistent=False)
        no_mask = sam.prompt_encoder.no_mask_embed.weight.detach().clone()
        self.register_buffer("no_mask", no_mask.reshape(1, -1, 1, 1), persistent=False)
        for module in self.idle():
            module.requires_grad_(False)

    def idle(self) -> list[nn.Module]:
        """Parts that the single mask does not use: frozen on purpose."""
        return [*self.decoder.output_hypernetworks_mlps[1:], self.decoder.iou_prediction_head]

    def forward(self, features: Levels, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (N, C, E, E), (N, W, E, E), prompts (N, P, C) -> logits (N, 4E, 4E), IoU (N,)."""
        embeddings, early = features
        n = prompts.shape[0]
        assert embeddings.shape[0] == n, f"{embeddings.shape[0]} images for {n} prompts"
        masks, expected = self.decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self.image_pe.expand(n, -1, -1, -1),
            sparse_prompt_embeddings=prompts[:, None],
            dense_prompt_embeddings=self.no_mask.expand_as(embeddings),
            multimask_output=False,
            hq_token_only=False,
            intermediate_embeddings=[early.permute(0, 2, 3, 1)],
        )[:2]
        return masks[:, 0, 0], expected[:, 0, 0].detach()
