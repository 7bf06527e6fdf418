"""The two frozen image encoders: CLIP as LLaVA reads it, and SAM's ViT.

They see one image at a time, so that what they say of it never depends on its company in a batch,
and they are loaded when the first image asks for them: a run that finds all features stored
(`keyseg.model.features`) never holds them in memory.
Shapes: B images, P image tokens, W width of CLIP, C channels and E side of SAM's embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """What the frozen encoders see of B images.

    clip (B, P, W): before LLaVA's projector (a third of the size after it, at 7B);
    sam (B, C, E, E); sizes: (height, width) of each image.
    """

    clip: Tensor
    sam: Tensor
    sizes: list[tuple[int, int]]

    def to(self, target: torch.device | str | torch.dtype) -> Features:
        """The same features on another device, or in another precision."""
        move: dict[str, Any] = {"non_blocking": True} if self.clip.is_pinned() else {}
        return replace(self, clip=self.clip.to(target, **move), sam=self.sam.to(target, **move))

    def pin_memory(self) -> Features:
        """The same features where a GPU can fetch them while it works."""
        return replace(self, clip=self.clip.pin_memory(), sam=self.sam.pin_memory())


@dataclass(frozen=True)
class Encoder:
    """One frozen encoder.

    title: what people call it.
    parameters: how many it has (known before it is loaded).
    key: all that its output depends on, besides the image; JSON types.
    load: makes the module, on its device; called once, when the first image comes.
    preprocess: picture uint8 (3, H, W) -> pixels (3, h, w).
    autocast: the precision it runs under.
    dtype: of its output.
    """

    name: str
    title: str
    parameters: int
    key: dict[str, Any]
    load: Callable[[], nn.Module]
    preprocess: Callable[[Tensor], Tensor]
    autocast: Callable[[], AbstractContextManager[Any]]
    dtype: torch.dtype

    @cached_property
    def module(self) -> nn.Module:
        """The encoder itself, in eval mode."""
        return self.load().eval().requires_grad_(False)

    @property
    def is_loaded(self) -> bool:
        """Whether an image has asked for it."""
        return "module" in vars(self)

    def loaded(self) -> Encoder:
        """This encoder, loaded now."""
        assert self.module is not None
        return self

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Tensor:
        """Picture uint8 (3, H, W) -> its features, on the CPU."""
        module = self.module
        weight = next(module.parameters())
        pixels = self.preprocess(picture)[None].to(weight.device)
        if pixels.dtype != weight.dtype and weight.dtype != torch.float32:
            pixels = pixels.to(weight.dtype)
        with self.autocast():
            out: Tensor = module(pixels)[0]
        return out.to("cpu", self.dtype).contiguous()


class ClipEncoder(nn.Module):
    """CLIP's hidden states that LLaVA's config selects: pixels (B, 3, h, w) -> (B, P, W)."""

    def __init__(self, llava: Any) -> None:
        """`llava`: a LlavaForConditionalGeneration; its language model is not used."""
        super().__init__()
        self.tower = llava.model.vision_tower
        llava.model.multi_modal_projector = nn.Identity()
        # not as a module: its language model is none of this one's parts
        self._select = llava.get_image_features

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return torch.stack(list(self._select(pixels).pooler_output))
