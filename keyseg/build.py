"""The composition root: the one place that knows all parts of a cell and wires them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.data.batch import Collator
from keyseg.data.prompts import Conversation, add_tokens
from keyseg.model.fusion import FusionVariant
from keyseg.model.keyseg import KeySeg
from keyseg.model.random_llava import random_llava
from keyseg.model.sam import WeightsError, load_sam, preprocess, random_sam
from keyseg.model.vlm import Vlm, load_llava
from keyseg.preflight import weights_path

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parts:
    """A cell, ready to be trained: the model, and what turns examples into its batches."""

    model: KeySeg
    collator: Collator
    conversation: Conversation


def build(cfg: RunConfig, device: torch.device) -> Parts:
    """Load the backbones, add what is trained, freeze what is not. Seed torch first.

    Raises:
        WeightsError: a backbone is missing or broken.
        ConfigError: the variant cannot be built, or the words that tokens start from are unknown.
    """
    sam, llava, processor = load_backbones(cfg, device)
    tokenizer = processor.tokenizer
    tokens = cfg.model.tokens
    add_tokens(tokenizer, tokens)
    starts = [_word_id(tokenizer, word) for word in (tokens.key_init, tokens.seg_init)]
    vlm = Vlm(
        llava,
        new_tokens=tokenizer.convert_tokens_to_ids([tokens.key, tokens.seg]),
        init_tokens=starts,
        rank=cfg.model.lora.r,
        alpha=cfg.model.lora.alpha,
        dropout=cfg.model.lora.dropout,
        targets=cfg.model.lora.targets,
    )
    if cfg.model.gradient_checkpointing:
        vlm.checkpoint_gradients()
    model = KeySeg(
        vlm,
        sam,
        build_fusion(cfg, sam.mask_decoder.transformer_dim),
        projection_layers=cfg.model.projection_layers,
        previous_state=tokens.state == "previous",
        train_table=cfg.loss.keyword.table == "trained",
    )
    freeze_unpulled(model, cfg)
    image_tokens = _image_tokens(processor)
    seen = image_positions(llava.config)
    if image_tokens != seen:
        raise WeightsError(
            f"model.llava={cfg.model.llava}: its processor makes {image_tokens} image tokens of a "
            f"picture and its CLIP {seen}: patch size, crop size and num_additional_image_tokens "
            "in processor_config.json must fit config.json"
        )
    conversation = Conversation(tokenizer, cfg.prompt, tokens, image_tokens)
    collator = Collator(conversation, processor.image_processor, partial(preprocess, sam))
    return Parts(model.to(device), collator, conversation)


def load_backbones(cfg: RunConfig, device: torch.device) -> tuple[Any, Any, Any]:
    """SAM, LLaVA and its processor: from files, or of the same sizes with random weights.

    Raises:
        WeightsError: a backbone is missing or broken.
    """
    choice = cfg.model
    dtype = DTYPES[choice.precision] if choice.frozen == "precision" else torch.float32
    sam_path, path = resolve_path(choice.sam), weights_path(choice.llava)
    if choice.init == "random":
        with device:
            sam = random_sam(sam_path, choice.sam_type)
            llava, processor = random_llava(
                path, choice.sizes, dtype=dtype, attention=choice.attention
            )
    else:
        sam = load_sam(sam_path, choice.sam_type)
        llava, processor = load_llava(
            path,
            dtype=dtype,
            attention=choice.attention,
            quantization=choice.quantization,
            device=device,
        )
    sam.image_encoder.to(dtype)
    return sam, llava, processor


def build_fusion(cfg: RunConfig, dim: int) -> FusionVariant:
    """The variant that `fusion._target_` names, for prompts of `dim` channels."""
    options = {k: v for k, v in cfg.fusion.items() if k not in ("_target_", "name")}
    target = str(cfg.fusion["_target_"])
    module, _, name = target.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
        variant: FusionVariant = made(dim=dim, n_keys=cfg.model.tokens.n_keys, **options)
    except (ImportError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"fusion={cfg.fusion['name']} ({target}): {error}") from error
    return variant


def freeze_unpulled(model: KeySeg, cfg: RunConfig) -> None:
    """Freeze what no loss of this config pulls on (weight 0 = measured, not trained)."""
    if not cfg.loss.keyword.weight:
        model.keyword_head.requires_grad_(False)
    if not cfg.loss.bce and not cfg.loss.dice:
        drawn = (
            model.mask_head,
            model.fusion,
            model.seg_projection,
            model.key_projection,
            model.context_projection,
        )
        for part in drawn:
            if isinstance(part, nn.Module):
                part.requires_grad_(False)


def _word_id(tokenizer: object, word: str | None) -> int | None:
    if word is None:
        return None
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    if len(ids) != 1 or ids[0] == getattr(tokenizer, "unk_token_id", None):
        raise ConfigError(
            f"model.tokens.*_init={word!r}: must be one known token of the tokenizer, "
            "or null for the mean of all"
        )
    return int(ids[0])


def image_positions(config: Any) -> int:
    """Image positions that a LLaVA makes of one picture: patches, and CLIP's own token if kept."""
    patches = int(config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return patches + int(config.vision_feature_select_strategy == "full")


def _image_tokens(processor: object) -> int:
    """Image positions that the processor puts in for one picture."""
    crop = processor.image_processor.crop_size  # type: ignore[attr-defined]
    blank = torch.zeros(3, crop["height"], crop["width"], dtype=torch.uint8)
    made = processor(text=["<image>"], images=[blank], return_tensors="pt")  # type: ignore[operator]
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")  # type: ignore[attr-defined]
    return int((made["input_ids"] == image_id).sum())
