"""SAM-HQ, through transformers: SAM with a mask of finer edges, from what its ViT saw early on.

Two maps are kept of an image: the embedding, and the first global layer's states, five times as
large at ViT-H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamHQConfig, SamHQModel

from keyseg.config import ModelConfig
from keyseg.data.prefix import Size
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.sam import preprocess
from keyseg.model.backbones.sam2 import Sam2, Sam2Head
from keyseg.model.resample import Frame


class SamHq(Sam2):
    """See `keyseg.model.backbones.sides.MaskSide`."""

    name = "sam_hq"
    title = "SAM-HQ's encoder"
    families = ("sam_hq",)
    model = SamHQModel
    config = SamHQConfig
    scores_objects = False

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


class SamHqHead(Sam2Head):
    """The decoder for one mask per prompt: SAM's own first mask and the finer one, summed.

    Its other level are the early states (N, W, E, E).
    """

    @property
    def objects(self) -> None:
        """See `PromptedHead`: SAM's decoder has no such score."""

    def idle(self) -> list[nn.Module]:
        """Parts that the single mask does not use: frozen on purpose."""
        return [*self.decoder.output_hypernetworks_mlps[1:], self.decoder.iou_prediction_head]

    def further(self, maps: Sequence[Tensor]) -> dict[str, Any]:
        """See `Sam2Head`."""
        (early,) = maps
        return {"hq_token_only": False, "intermediate_embeddings": [early.permute(0, 2, 3, 1)]}
