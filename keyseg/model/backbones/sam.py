"""SAM's parts: built from segment_anything's own classes, its mask decoder run for many prompts.

Shapes: B images, N prompts (one per expression), C prompt channels (256; 64 in the tiny one),
S side of SAM's input (1024; 128), E = S / patch, side of the image embedding.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn
from torch.nn import functional as F

from keyseg.config import ModelConfig, resolve_path
from keyseg.data.prefix import Size
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.sides import Drawn
from keyseg.model.backbones.weights import WeightsError
from keyseg.model.resample import Frame, resized

_PUBLIC = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
FOLDER_TYPE = "folder"
"""`sam_type` of a folder with config.json and model.safetensors; others are the registry's."""

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the images that SAM was trained on, by colour; the registry gives them to all its models."""

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
    UnpicklingError,
    SafetensorError,
)
"""What a file that is no SAM can raise on its way into one."""


def build_sam(sizes: dict[str, Any]) -> Sam:
    """A Sam of any size, from segment_anything's modeling classes, with random weights."""
    side = sizes["image_size"] // sizes["patch_size"]
    dim = sizes["prompt_dim"]
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=sizes["image_size"],
            patch_size=sizes["patch_size"],
            embed_dim=sizes["encoder_dim"],
            depth=sizes["encoder_depth"],
            num_heads=sizes["encoder_heads"],
            mlp_ratio=4,
            out_chans=dim,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=sizes["window_size"],
            global_attn_indexes=tuple(sizes["encoder_global"]),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(side, side),
            input_image_size=(sizes["image_size"], sizes["image_size"]),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=sizes["decoder_depth"],
                embedding_dim=dim,
                num_heads=sizes["decoder_heads"],
                mlp_dim=sizes["decoder_mlp"],
            ),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=dim,
        ),
    )


def load_sam(path: Path, sam_type: str) -> Sam:
    """Read a Sam: a folder (config.json + model.safetensors), or a public .pth of the registry.

    Every key of the file must fit and none may be missing. No code in the file is run. Tensors
    stay on disk until they are read: who wants the decoder only does not wait for the encoder.

    Raises:
        WeightsError: the file is missing, broken or of another size.
    """
    if sam_type == FOLDER_TYPE:
        file = path / "model.safetensors"
        remedy = (
            "Set model.sam to a folder with config.json and model.safetensors; "
            "`python -m keyseg.tiny` rebuilds the bundled one"
        )
    elif sam_type in sam_model_registry:
        file = path
        remedy = f"Get {sam_type} from {_PUBLIC} and set model.sam to the file"
    else:
        known = ", ".join([FOLDER_TYPE, *sam_model_registry])
        raise WeightsError(f"model.sam_type={sam_type}: must be one of {known}")
    if not file.is_file():
        raise WeightsError(f"SAM weights not found: {file}. {remedy}")
    try:
        if sam_type == FOLDER_TYPE:
            sizes = json.loads((path / "config.json").read_text())
            state = load_file(file)
        else:
            state = torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
        with torch.device("meta"):  # nothing is drawn at random that the file replaces anyway
            sam = build_sam(sizes) if sam_type == FOLDER_TYPE else sam_model_registry[sam_type]()
        sam.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
    except _BROKEN as error:
        # torch's words on a file with code in it are advice to run that code
        unsafe = isinstance(error, UnpicklingError)
        reason = "no plain file of tensors" if unsafe else shorten(str(error), 400)
        raise WeightsError(
            f"{file} does not fit model.sam_type={sam_type}: {reason}. {remedy}"
        ) from error
    return sam.eval()


def random_sam(path: Path, sam_type: str) -> Sam:
    """A Sam of the size that `sam_type` (or the folder's config.json) says, with random weights.

    Raises:
        WeightsError: no such size.
    """
    if sam_type in sam_model_registry:
        return sam_model_registry[sam_type]().eval()
    if sam_type != FOLDER_TYPE or not (path / "config.json").is_file():
        known = ", ".join([f"{FOLDER_TYPE} (with config.json in model.sam)", *sam_model_registry])
        raise WeightsError(f"model.sam_type={sam_type}, model.sam={path}: must be one of {known}")
    return build_sam(json.loads((path / "config.json").read_text())).eval()


def preprocess(side: int, image: Tensor) -> Tensor:
    """(3, H, W) uint8 -> (3, S, S): longest side to S, normalised, padded at right and bottom.

    The same numbers as `Sam.preprocess`, without a Sam: its encoder may not be there.
    """
    height, width = resized(image.shape[-2], image.shape[-1], side)
    pixels = image[None].float()
    if (height, width) != tuple(image.shape[-2:]):
        pixels = F.interpolate(
            pixels, (height, width), mode="bilinear", align_corners=False, antialias=True
        )
    mean, std = (torch.tensor(v)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
    return F.pad((pixels[0] - mean) / std, (0, side - width, 0, side - height))


class MaskHead(nn.Module):
    """SAM's decoder for one mask per prompt, each prompt with its own image embedding.

    The public `MaskDecoder.predict_masks` repeats one image for all its prompts; here the prompts
    of many images are one batch, and only the single-mask output (token 0, what
    `multimask_output=False` returns) is drawn. Same modules, same numbers.
    """

    image_pe: Tensor
    no_mask: Tensor
    objects = None

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.channels = int(sam.mask_decoder.transformer_dim)
        self.frame = Frame(int(sam.image_encoder.img_size))
        self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe(), persistent=False)
        no_mask = sam.prompt_encoder.no_mask_embed.weight.detach().clone()
        self.register_buffer("no_mask", no_mask.reshape(1, -1, 1, 1), persistent=False)
        for module in self.idle():
            module.requires_grad_(False)

    def idle(self) -> list[nn.Module]:
        """Parts that the single-mask output does not use: frozen on purpose."""
        return [*self.decoder.output_hypernetworks_mlps[1:], self.decoder.iou_prediction_head]

    def forward(self, features: Levels, prompts: Tensor) -> Drawn:
        """features (N, C, E, E), prompts (N, P, C) -> N masks.

        The IoU is what SAM itself expects of its mask; its head stays as it was pre-trained.
        """
        decoder, embeddings = self.decoder, features[0]
        n = prompts.shape[0]
        assert embeddings.shape[0] == n, f"{embeddings.shape[0]} images for {n} prompts"
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(n, -1, -1), prompts], dim=1)
        source = embeddings + self.no_mask
        places = self.image_pe.expand(n, -1, -1, -1)
        states, source = decoder.transformer(source, places, tokens)
        c, h, w = embeddings.shape[1:]
        upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(n, c, h, w))
        weights = decoder.output_hypernetworks_mlps[0](states[:, 1])
        with torch.no_grad():
            expected: Tensor = decoder.iou_prediction_head(states[:, 0].detach())[:, 0]
        return Drawn(torch.einsum("nc,nchw->nhw", weights, upscaled), expected)


class SegmentAnything:
    """SAM by segment_anything; see `keyseg.model.backbones.sides.MaskSide`."""

    name: ClassVar[str] = "sam"
    title: ClassVar[str] = "SAM's encoder"
    scores_objects: ClassVar[bool] = False
    takes_points: ClassVar[bool] = True

    def __init__(self, sam: Sam, choice: ModelConfig) -> None:
        self.sam, self.choice = sam, choice
        self.side = int(sam.image_encoder.img_size)

    @classmethod
    def load(cls, choice: ModelConfig, dtype: torch.dtype, device: torch.device, part: str) -> Self:
        """See `Backbone`."""
        path = resolve_path(choice.sam)
        if choice.init == "random":
            with device:
                sam = random_sam(path, choice.sam_type)
        else:
            sam = load_sam(path, choice.sam_type)
        sam.image_encoder.to(dtype)
        return cls(sam, choice)

    def seen_with(self) -> dict[str, Any]:
        """See `Backbone`."""
        return {"preprocess": self.side}

    def encoder_size(self) -> int:
        """See `Backbone`."""
        return sum(p.numel() for p in self.sam.image_encoder.parameters())

    def encoder(self) -> nn.Module:
        """See `Backbone`."""
        return SamEncoder(self.sam)

    def pixels(self, picture: Tensor) -> dict[str, Tensor]:
        """See `Backbone`."""
        return {"pixels": preprocess(self.side, picture)[None]}

    def head(self) -> MaskHead:
        """See `MaskSide`."""
        return MaskHead(self.sam)

    def ask(self, boxes: Tensor, size: Size) -> Tensor:
        """See `MaskSide`."""
        encoder = self.sam.prompt_encoder.to(boxes.device)
        scaled = boxes * self.side / max(size)
        prompts: Tensor = encoder(points=None, boxes=scaled, masks=None)[0]
        return prompts

    def point_encoder(self) -> nn.Module:
        """See `MaskSide`."""
        encoder: nn.Module = self.sam.prompt_encoder
        return encoder

    def save(self, head: MaskHead, folder: Path) -> dict[str, str]:
        """In the form it came in."""
        source = resolve_path(self.choice.sam)
        sam = load_sam(source, self.choice.sam_type)
        sam.mask_decoder.load_state_dict(head.decoder.state_dict())
        if self.choice.sam_type != FOLDER_TYPE:
            torch.save(sam.state_dict(), folder / "sam.pth")
            return {"sam": "sam.pth", "sam_type": self.choice.sam_type}
        (folder / "sam").mkdir()
        shutil.copyfile(source / "config.json", folder / "sam" / "config.json")
        save_file(sam.state_dict(), folder / "sam" / "model.safetensors")
        return {"sam": "sam", "sam_type": FOLDER_TYPE}


class SamEncoder(nn.Module):
    """SAM's ViT: pixels (1, 3, S, S) -> (C, E, E)."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder

    def forward(self, pixels: Tensor) -> Levels:
        """See the class."""
        return (self.encoder(pixels)[0],)
