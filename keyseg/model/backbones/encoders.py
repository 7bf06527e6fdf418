"""The two frozen image encoders: the language side's and the mask side's.

They see one image at a time, so that what they say of it never depends on its company in a batch,
and they are loaded when the first image asks for them: a run that finds all features stored
(`keyseg.model.features`) never holds them in memory.
Shapes: B images, P image tokens of one, W their width, C channels and E side of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

Levels = tuple[Tensor, ...]
"""What an encoder says of an image, or of several: one tensor, or one for each of its levels."""


@dataclass(frozen=True)
class Features:
    """What the frozen encoders see of B images.

    language: levels (ΣP, W), the tokens of all images one after the other; mask: levels
    (B, C, E, E); sizes: (height, width) of each image.
    """

    language: Levels
    mask: Levels
    sizes: list[tuple[int, int]]

    def to(self, target: torch.device | str | torch.dtype) -> Features:
        """The same features on another device, or in another precision."""
        return self._each(lambda t: t.to(target, non_blocking=t.is_pinned()))

    def pin_memory(self) -> Features:
        """The same features where a GPU can fetch them while it works."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Features:
        language, mask = (tuple(map(change, levels)) for levels in (self.language, self.mask))
        return replace(self, language=language, mask=mask)


def joined(images: Sequence[Levels]) -> Levels:
    """Image tokens of several images, level by level: (P, W) each -> (ΣP, W)."""
    return tuple(torch.cat(level) for level in zip(*images, strict=True))


def stacked(images: Sequence[Levels]) -> Levels:
    """Maps of several images, level by level: (C, E, E) each -> (B, C, E, E)."""
    return tuple(torch.stack(level) for level in zip(*images, strict=True))


@dataclass(frozen=True)
class Encoder:
    """One frozen encoder.

    title: what people call it.
    parameters: how many it has (known before it is loaded).
    key: all that its output depends on, besides the image; JSON types.
    load: makes the module, on its device; called once, when the first image comes. It takes what
    `preprocess` gives and returns the levels of one image.
    preprocess: picture uint8 (3, H, W) -> pixels by name, a batch of one.
    autocast: the precision it runs under.
    dtype: of its output.
    """

    name: str
    title: str
    parameters: int
    key: dict[str, Any]
    load: Callable[[], nn.Module]
    preprocess: Callable[[Tensor], dict[str, Tensor]]
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
    def __call__(self, picture: Tensor) -> Levels:
        """Picture uint8 (3, H, W) -> its features, on the CPU."""
        module = self.module
        weight = next(module.parameters())
        pixels = {name: given.to(weight.device) for name, given in self.preprocess(picture).items()}
        if weight.dtype != torch.float32:
            pixels = {
                k: p.to(weight.dtype) if p.is_floating_point() else p for k, p in pixels.items()
            }
        with self.autocast():
            out: Levels = module(**pixels)
        return tuple(level.to("cpu", self.dtype).contiguous() for level in out)
