"""The composition root: the one place that knows all parts of a cell and wires them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.data.batch import Collator
from keyseg.data.prompts import Conversation, add_tokens
from keyseg.model.fusion import FusionVariant
from keyseg.model.keyseg import KeySeg
from keyseg.model.sam import load_sam, preprocess
from keyseg.model.vlm import Vlm, load_llava
from keyseg.preflight import weights_path


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
    sam = load_sam(resolve_path(cfg.model.sam), cfg.model.sam_type)
    llava, processor = load_llava(weights_path(cfg.model.llava))
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
    model = KeySeg(
        vlm,
        sam,
        build_fusion(cfg, sam.mask_decoder.transformer_dim),
        projection_layers=cfg.model.projection_layers,
        previous_state=tokens.state == "previous",
        train_table=cfg.loss.keyword.table == "trained",
    )
    freeze_unpulled(model, cfg)
    conversation = Conversation(tokenizer, cfg.prompt, tokens, _image_tokens(processor))
    collator = Collator(conversation, processor.image_processor, partial(preprocess, sam))
    return Parts(model.to(device), collator, conversation)


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


def _image_tokens(processor: object) -> int:
    """Image positions that the processor puts in for one picture."""
    crop = processor.image_processor.crop_size  # type: ignore[attr-defined]
    blank = torch.zeros(3, crop["height"], crop["width"], dtype=torch.uint8)
    made = processor(text=["<image>"], images=[blank], return_tensors="pt")  # type: ignore[operator]
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")  # type: ignore[attr-defined]
    return int((made["input_ids"] == image_id).sum())
