"""SAM 2, 2.1 and SAM 3's tracker, through transformers: an image is squashed to a square.

What is kept of an image are three maps: the embedding and the two of high resolution, which went
through the decoder's conv_s0 and conv_s1; those are frozen therefore.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam3TrackerConfig,
    Sam3TrackerModel,
)
from transformers.utils import logging

from keyseg.config import ModelConfig
from keyseg.data.prefix import Size
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.language import BROKEN, first_line, quiet
from keyseg.model.backbones.sides import Drawn
from keyseg.model.backbones.weights import WeightsError, weights_path
from keyseg.model.resample import Frame


class Sam2:
    """See `keyseg.model.backbones.sides.MaskSide`."""

    name: ClassVar[str] = "sam2"
    title: ClassVar[str] = "SAM 2's encoder"
    families: ClassVar[tuple[str, ...]] = ("sam2", "sam2_video")
    """transformers' `model_type`: public files hold the video model, whose memory is left out."""
    model: ClassVar[type[PreTrainedModel]] = Sam2Model
    config: ClassVar[type[PretrainedConfig]] = Sam2Config
    scores_objects: ClassVar[bool] = True
    takes_points: ClassVar[bool] = False

    def __init__(self, model: Any, dtype: torch.dtype, choice: ModelConfig) -> None:
        self.sam, self.dtype, self.choice = model, dtype, choice
        self.side = int(model.prompt_encoder.input_image_size)
        square = {"height": self.side, "width": self.side}
        self.processor = Sam2ImageProcessor(size=square)

    @classmethod
    def load(cls, choice: ModelConfig, dtype: torch.dtype, device: torch.device, part: str) -> Self:
        """See `Backbone`."""
        path, sizes = weights_path(choice.mask_weights), choice.mask.get("sizes")
        try:
            if choice.init == "random":
                stored = cls.config.from_pretrained
                config = cls.config(**sizes) if sizes else stored(path, local_files_only=True)
                with device:
                    model: Any = cls.model(config)
            else:
                model = cls._read(path)
        except BROKEN as error:
            raise WeightsError(
                f"model.sam={choice.mask_weights} cannot be read as {cls.__name__} "
                f"({first_line(error)}). Set model.sam to a folder or hub id of model_type="
                f"{cls.families[0]} in the Hugging Face layout, or choose another with mask=NAME"
            ) from error
        # in eval mode it would draw another of four masks where the first is unsteady: training and
        # evaluation would not see the same
        model.mask_decoder.dynamic_multimask_via_stability = False
        return cls(model.eval(), dtype, choice)

    @classmethod
    def _read(cls, path: str | Path) -> Any:
        logging.disable_progress_bar()  # a run has a progress view of its own
        kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
        if kind not in cls.families:
            raise ValueError(f"its config.json says model_type={kind}")
        with quiet():
            model, info = cls.model.from_pretrained(
                path, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing: {', '.join(missing[:3])} ...")
        return model

    def seen_with(self) -> dict[str, Any]:
        """See `Backbone`."""
        return {"family": self.families[0], "preprocess": self.processor.to_dict()}

    def encoder_size(self) -> int:
        """See `Backbone`."""
        return sum(p.numel() for p in self.sam.vision_encoder.parameters())

    def encoder(self) -> nn.Module:
        """See `Backbone`."""
        return Sam2Encoder(self.sam).to(self.dtype)

    def pixels(self, picture: Tensor) -> dict[str, Tensor]:
        """See `Backbone`."""
        return {"pixels": self.processor([picture], return_tensors="pt")["pixel_values"]}

    def head(self) -> Any:
        """See `MaskSide`."""
        return Sam2Head(self.sam, Frame(self.side, squash=True))

    def point_encoder(self) -> nn.Module:
        """See `MaskSide`."""
        raise NotImplementedError(f"{self.title}: points are SAM's alone")

    def ask(self, boxes: Tensor, size: Size) -> Tensor:
        """See `MaskSide`."""
        self.sam.prompt_encoder.to(boxes.device)
        self.sam.shared_image_embedding.to(boxes.device)
        asked = (boxes * boxes.new_tensor(self._scale(size)))[:, None]
        prompts: Tensor = self.sam.get_prompt_embeddings(input_boxes=asked)[0][:, 0]
        return prompts

    def _scale(self, size: Size) -> list[float]:
        """From pixels of an image to those of the square: left, top, right, bottom."""
        height, width = size
        return [self.side / width, self.side / height] * 2

    def save(self, head: Any, folder: Path) -> dict[str, str]:
        """See `MaskSide`."""
        whole = self._read(weights_path(self.choice.mask_weights))
        whole.mask_decoder.load_state_dict(head.decoder.state_dict())
        whole.config.mask_decoder_config.dynamic_multimask_via_stability = False  # as in `load`
        whole.save_pretrained(folder / "sam")
        self.processor.save_pretrained(folder / "sam")
        return {"sam": "sam", "sam_type": "transformers"}


class Sam3Tracker(Sam2):
    """SAM 3's promptable part: 1008 pixels, maps of 72, 288 and 144."""

    name = "sam3"
    title = "SAM 3's encoder"
    families = ("sam3_tracker", "sam3_video")
    model = Sam3TrackerModel
    config = Sam3TrackerConfig


class Sam2Encoder(nn.Module):
    """Pixels (1, 3, S, S) -> embedding (C, E, E), and (C / 8, 4E, 4E), (C / 4, 2E, 2E).

    The two convolutions are copies: an encoder is frozen, and the decoder is not.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.vision = sam.vision_encoder
        self.conv_s0 = deepcopy(sam.mask_decoder.conv_s0)
        self.conv_s1 = deepcopy(sam.mask_decoder.conv_s1)
        self.register_buffer("no_memory", sam.no_memory_embedding.detach().reshape(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Levels:
        """See the class."""
        fine, middle, coarse = self.vision(pixels, return_dict=True).fpn_hidden_states[:3]
        return (coarse + self.no_memory)[0], self.conv_s0(fine)[0], self.conv_s1(middle)[0]


class Sam2Head(nn.Module):
    """The decoder for one mask per prompt, each prompt with its own image."""

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

    @property
    def objects(self) -> nn.Module | None:
        """See `PromptedHead`."""
        made: nn.Module = self.decoder.pred_obj_score_head
        return made

    def idle(self) -> list[nn.Module]:
        """What the single mask does not use, or was used before features were kept: frozen."""
        decoder = self.decoder
        unused = [decoder.iou_prediction_head, decoder.pred_obj_score_head]
        return [*decoder.output_hypernetworks_mlps[1:], *unused, decoder.conv_s0, decoder.conv_s1]

    def further(self, maps: Sequence[Tensor]) -> dict[str, Any]:
        """What the decoder reads besides the embedding, from the other levels."""
        return {"high_resolution_features": list(maps)}

    def forward(self, features: Levels, prompts: Tensor) -> Drawn:
        """Levels (N, C, E, E), prompts (N, P, C) -> N masks."""
        embeddings, *maps = features
        n = prompts.shape[0]
        assert embeddings.shape[0] == n, f"{embeddings.shape[0]} images for {n} prompts"
        masks, expected, *more = self.decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self.image_pe.expand(n, -1, -1, -1),
            sparse_prompt_embeddings=prompts[:, None],
            dense_prompt_embeddings=self.no_mask.expand_as(embeddings),
            multimask_output=False,
            **self.further(maps),
        )
        objects = None if self.objects is None else more[-1][:, 0, 0]
        return Drawn(masks[:, 0, 0], expected[:, 0, 0].detach(), objects)
