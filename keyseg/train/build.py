"""The composition root: the one place that knows all parts of a cell and wires them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.data.derangement import check_keywords, derangement
from keyseg.data.example import Example
from keyseg.data.prompts import Conversation, add_tokens, new_tokens
from keyseg.model.backbones.clip_view import CROP, clip_pixels
from keyseg.model.backbones.encoders import ClipEncoder, Encoder
from keyseg.model.backbones.llava import Vlm, clip_parameters, load_llava
from keyseg.model.backbones.random_llava import random_llava
from keyseg.model.backbones.sam import WeightsError, load_sam, preprocess, random_sam
from keyseg.model.backbones.weights import fingerprint, weights_path
from keyseg.model.features import FrozenFeatures, Store
from keyseg.model.fusion import NAME, OTHER
from keyseg.model.keyseg import KeySeg
from keyseg.model.variant import build_fusion
from keyseg.train.batch import Collator, Others
from keyseg.train.losses import weighted_terms

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parts:
    """A cell, ready to be trained: the model, and what turns examples into its batches."""

    model: KeySeg
    collator: Collator
    conversation: Conversation
    features: FrozenFeatures


def with_others(parts: Parts, *splits: Sequence[Example]) -> Parts:
    """The parts for data of which a variant is given another expression's KEY, if this one is.

    Raises:
        DataError: a split has none to give (see `derangement`).
        ConfigError: a variant that is given the keyword, and a split without any.
    """
    fusion = parts.model.fusion
    if fusion.uses_key and fusion.key_from == NAME:
        for examples in splits:
            check_keywords(type(fusion).__name__, examples)
    if not fusion.uses_key or fusion.key_from != OTHER:
        return parts
    of = {name: other for part in splits for name, other in derangement(part).items()}
    others = Others(of, parts.features.clip)
    return replace(parts, collator=Collator(parts.conversation, parts.features, others))


def autocast(cfg: RunConfig, device: torch.device) -> AbstractContextManager[Any]:
    """The precision of the config; fp32 is no autocast."""
    if cfg.model.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[cfg.model.precision])


def build(cfg: RunConfig, device: torch.device) -> Parts:
    """Load the backbones, add what is trained, freeze what is not. Seed torch first.

    Raises:
        WeightsError: a backbone is missing or broken.
        ConfigError: the variant cannot be built, or the words that tokens start from are unknown.
    """
    kept = _preloaded.pop(
        _backbones_key(cfg), None
    )  # taken out: what is added to them belongs to this cell
    sam, llava, processor = kept or load_backbones(cfg, device, part="language")
    tokenizer = processor.tokenizer
    tokens = cfg.model.tokens
    ids = add_tokens(tokenizer, tokens)
    begin = {tokens.key: tokens.key_init, tokens.seg: tokens.seg_init}
    starts = [_word_id(tokenizer, begin.get(token)) for token in new_tokens(tokens)]
    vlm = Vlm(
        llava,
        new_tokens=ids,
        init_tokens=starts,
        seed=cfg.draws,
        rank=cfg.model.lora.r,
        alpha=cfg.model.lora.alpha,
        dropout=cfg.model.lora.dropout,
        targets=cfg.model.lora.targets,
        whole_tables=tokens.rows == "all",
    )
    if cfg.model.gradient_checkpointing != "none":
        vlm.checkpoint_gradients(selective=cfg.model.gradient_checkpointing == "selective")
    model = KeySeg(
        vlm,
        sam,
        build_fusion(cfg, sam.mask_decoder.transformer_dim, vlm.table().shape[1]),
        n_keys=tokens.n_keys,
        projection_layers=cfg.model.projection_layers,
        previous_state=tokens.state == "previous",
        table=cfg.loss.keyword.table,
        shared_projection=cfg.model.shared_projection,
        seed=cfg.draws,
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
    features = frozen_features(cfg, device, sam, llava.config, processor.image_processor)
    return Parts(model.to(device), Collator(conversation, features), conversation, features)


def build_features(cfg: RunConfig, device: torch.device) -> FrozenFeatures:
    """The features alone: neither language model nor decoder is loaded.

    Raises:
        WeightsError: a backbone is missing or broken.
    """
    sam, llava, processor = load_backbones(cfg, device, part="vision")
    return frozen_features(cfg, device, sam, llava.config, processor.image_processor)


def frozen_features(
    cfg: RunConfig, device: torch.device, sam: Any, llava: Any, image_processor: Any
) -> FrozenFeatures:
    """The frozen encoders and, unless runtime.features says no, the store of what they see.

    Args:
        cfg: of the run.
        device: where the encoders work.
        sam: a Sam; its encoder is moved to the device with the first image that needs it.
        llava: LLaVA's config.
        image_processor: LLaVA's.
    """
    choice = cfg.model
    random = choice.init == "random"  # weights that no name stands for: nothing is stored
    side, config = int(sam.image_encoder.img_size), llava.to_dict()
    seen = {k: config[k] for k in ("vision_feature_layer", "vision_feature_select_strategy")}
    same = {"precision": choice.precision, "frozen": choice.frozen, "device": device.type}

    def clip_encoder() -> nn.Module:
        _, whole, _ = load_backbones(cfg, device, part="vision")
        return ClipEncoder(whole).to(device)

    def key(weights: str, **more: Any) -> dict[str, Any]:
        return same | {"weights": "random" if random else fingerprint(weights)} | more

    precision: dict[str, Any] = {
        "autocast": partial(autocast, cfg, device),
        "dtype": DTYPES[choice.precision],
    }
    clip = Encoder(
        name="clip",
        title="CLIP",
        parameters=clip_parameters(llava),
        key=key(
            choice.llava,
            preprocess=image_processor.to_dict(),
            **({} if choice.clip_view == CROP else {"view": choice.clip_view}),
            attention=choice.attention,
            **seen,
        ),
        load=clip_encoder,
        preprocess=partial(clip_pixels, image_processor, choice.clip_view),
        **precision,
    )
    sam_encoder = Encoder(
        name="sam",
        title="SAM's encoder",
        parameters=sum(p.numel() for p in sam.image_encoder.parameters()),
        key=key(choice.sam, preprocess=side),
        load=lambda: sam.image_encoder.to(device),
        preprocess=partial(preprocess, side),
        **precision,
    )
    if random:  # loaded at once: later, the draws would come between those of the training
        return FrozenFeatures(clip.loaded(), sam_encoder.loaded())
    store = Store(resolve_path(cfg.paths.data) / "features", cfg.runtime.features_gib * 2**30)
    return FrozenFeatures(clip, sam_encoder, store if cfg.runtime.features else None)


_preloaded: dict[str, tuple[Any, Any, Any]] = {}


def preload_backbones(cfg: RunConfig) -> None:
    """Load on the CPU what `build` loads, for the processes that will be forked from this one.

    Nothing is drawn at random by that. Random weights are not shared: they belong to a seed. Nor
    are quantised ones, which are made on a GPU.
    """
    key = _backbones_key(cfg)
    if cfg.model.init != "random" and cfg.model.quantization == "none" and key not in _preloaded:
        _preloaded[key] = load_backbones(cfg, torch.device("cpu"), part="language")


def _backbones_key(cfg: RunConfig) -> str:
    choice = cfg.model
    names = (choice.llava, choice.sam, choice.sam_type, choice.attention)
    return json.dumps([*names, choice.init, choice.precision, choice.frozen, choice.quantization])


def load_backbones(
    cfg: RunConfig, device: torch.device, part: str = "whole"
) -> tuple[Any, Any, Any]:
    """SAM, LLaVA (`part` of it) and its processor: from files, or random ones of the same sizes.

    Raises:
        WeightsError: a backbone is missing or broken.
    """
    choice = cfg.model
    dtype = DTYPES[choice.precision] if choice.frozen == "precision" else torch.float32
    sam_path, path = resolve_path(choice.sam), weights_path(choice.llava)
    if choice.init == "random":
        sizes = dict(choice.sizes)
        if "tokenizer" in sizes:
            sizes["tokenizer"] = weights_path(sizes["tokenizer"])
        with device:
            sam = random_sam(sam_path, choice.sam_type)
            llava, processor = random_llava(
                path, sizes, dtype=dtype, attention=choice.attention, part=part
            )
    else:
        sam = load_sam(sam_path, choice.sam_type)
        llava, processor = load_llava(
            path,
            dtype=dtype,
            attention=choice.attention,
            quantization="none" if part == "vision" else choice.quantization,
            device=device,
            part=part,
        )
    sam.image_encoder.to(dtype)
    return sam, llava, processor


def freeze_unpulled(model: KeySeg, cfg: RunConfig) -> None:
    """Freeze what no loss of this config pulls on (weight 0 = measured, not trained)."""
    over = {term.term.over for term in weighted_terms(cfg.loss) if term.weight}
    drawn = (
        model.mask_head,
        model.fusion,
        model.seg_projection,
        model.key_projection,
        model.context_projection,
    )
    named = (model.keyword_head,)
    pulled, idle = set[nn.Parameter](), set[nn.Parameter]()
    for parts, terms in ((drawn, {"masks", "expressions"}), (named, {"keywords"})):
        every = {p for part in parts if isinstance(part, nn.Module) for p in part.parameters()}
        (pulled if over & terms else idle).update(every)
    for parameter in idle - pulled:  # a projection may be shared
        parameter.requires_grad_(False)


def _word_id(tokenizer: object, word: str | None) -> int | None:
    if word is None:
        return None
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    if len(ids) != 1 or ids[0] == getattr(tokenizer, "unk_token_id", None):
        raise ConfigError(
            f"model.tokens.*_init={word!r}: must be one known token of the tokenizer, "
            "or null for a draw of its own"
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
