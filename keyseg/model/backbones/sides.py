"""The two seams: what a cell asks of a language side and of a mask side.

A config names the class of each (`model.language._target_`, `model.mask._target_`); what is not in
these protocols is known to nobody outside the class's file.
Shapes: N prompts, P of them for one mask, L tokens, D hidden size, C channels of a prompt, E side
of an image's embedding, S side of the square that an image is brought to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from keyseg.config import ModelConfig
from keyseg.data.prefix import Prefix, Size
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.vlm import Vlm
from keyseg.model.resample import Frame
from keyseg.runs import targets

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backbone(Protocol):
    """What both sides say of their frozen image encoder."""

    name: str
    """Of the folder with its features."""
    title: str
    """What people call its encoder."""

    @classmethod
    def load(cls, choice: ModelConfig, dtype: torch.dtype, device: torch.device, part: str) -> Self:
        """From files, or random ones of the same sizes (`model.init`).

        Args:
            choice: what the config says.
            dtype: of frozen weights.
            device: where random weights are drawn, and quantised ones are made.
            part: "whole"; "language" and "vision" may leave out what the other would need.

        Raises:
            WeightsError: missing, broken or of another family; one line with file and remedy.
        """
        ...

    def seen_with(self) -> dict[str, Any]:
        """All that features depend on besides image and weights, in JSON types."""
        ...

    def encoder_size(self) -> int:
        """Parameters of the encoder, also where its weights were left out."""
        ...

    def encoder(self) -> nn.Module:
        """The encoder: what `pixels` gives -> levels of one image."""
        ...

    def pixels(self, picture: Tensor) -> dict[str, Tensor]:
        """uint8 (3, H, W) -> what the encoder takes, a batch of one."""
        ...


class LanguageSide(Backbone, Protocol):
    """A vision-language model: it reads an image and a question, and answers."""

    tokenizer: Any
    view: str
    """How much of an image it sees: see `keyseg.model.backbones.clip_view`."""

    def places(self, size: Size) -> Prefix:
        """The tokens that stand for an image of that size, and their positions."""
        ...

    def adapted(self, **options: Any) -> Vlm:
        """The language model with LoRA and new tokens; options as `Vlm` takes them."""
        ...

    def save(
        self, vlm: Vlm, folder: Path, new_tokens: Sequence[str], dtype: torch.dtype
    ) -> dict[str, Any]:
        """Write an adapted model, merged, and its processor as transformers reads them.

        Args:
            vlm: cannot be used any more.
            folder: of an export; the model gets one of its own in it.
            new_tokens: that the processor has to know.
            dtype: of its weights.

        Returns:
            What predict.py of the export asks, in JSON types: `language`, the model's folder;
            `placeholder`, what stands for an image in a text; `reads`, options of the processor;
            `clip_view`, how an image becomes a square before; null: it does not.
        """
        ...


class Drawn(NamedTuple):
    """logits of masks (N, 4E, 4E); iou (N,), what the decoder expects of each; objects (N,), logits
    of its score of whether something is there, None where it has none."""

    logits: Tensor
    iou: Tensor
    objects: Tensor | None = None


class PromptedHead(Protocol):
    """Draws masks from prompts; a module, trained in part."""

    channels: int
    frame: Frame
    objects: nn.Module | None
    """What makes the object score; frozen until it is asked for. None: nothing does."""

    def __call__(self, embeddings: Levels, prompts: Tensor) -> Drawn:
        """Levels (N, C, E, E), prompts (N, P, C) -> N masks."""
        ...


class MaskSide(Backbone, Protocol):
    """A promptable segmentation model: it draws the mask that a prompt asks for."""

    scores_objects: bool
    """Whether its decoder says by a score if something is there at all."""
    takes_points: bool
    """Whether it has a `point_encoder`."""

    def head(self) -> Any:
        """Its decoder, a `PromptedHead` and module."""
        ...

    def ask(self, boxes: Tensor, size: Size) -> Tensor:
        """Boxes (N, 4), pixels left, top, right, bottom of an image -> prompts (N, P, C)."""
        ...

    def point_encoder(self) -> nn.Module:
        """Makes prompts of points in its square, called as SAM's is."""
        ...

    def save(self, head: Any, folder: Path) -> dict[str, str]:
        """Write the model with a trained head into the folder of an export.

        Returns:
            What predict.py of the export asks: `sam`, the name of its file or folder; `sam_type`,
            a type of segment_anything's registry, "folder", or "transformers".
        """
        ...


def load_language(choice: ModelConfig, device: torch.device, part: str = "whole") -> LanguageSide:
    """The language side that `model.language` names.

    Raises:
        ConfigError: there is no such class. WeightsError: it is missing or broken.
    """
    side: LanguageSide = _load("model.language._target_", choice.language, choice, device, part)
    return side


def load_mask(choice: ModelConfig, device: torch.device, part: str = "whole") -> MaskSide:
    """The mask side that `model.mask` names.

    Raises:
        ConfigError: there is no such class. WeightsError: it is missing or broken.
    """
    side: MaskSide = _load("model.mask._target_", choice.mask, choice, device, part)
    return side


def _load(
    key: str, spec: dict[str, Any], choice: ModelConfig, device: torch.device, part: str
) -> Any:
    dtype = DTYPES[choice.precision] if choice.frozen == "precision" else torch.float32
    side: Any = targets.find_class(key, str(spec["_target_"]), object)
    return side.load(choice, dtype, device, part)
