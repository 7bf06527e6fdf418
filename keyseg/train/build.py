"""The composition root: the one place that knows all parts of a cell and wires them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
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
from keyseg.model.backbones.encoders import Encoder
from keyseg.model.backbones.sides import (
    DTYPES,
    Backbone,
    LanguageSide,
    MaskSide,
    load_language,
    load_mask,
)
from keyseg.model.backbones.weights import fingerprint
from keyseg.model.features import FrozenFeatures, Store
from keyseg.model.fusion import NAME, OTHER
from keyseg.model.keyseg import KeySeg
from keyseg.model.points import PointPrompts
from keyseg.model.variant import build_fusion
from keyseg.train.batch import Collator, Others
from keyseg.train.losses import weighted_terms


@dataclass(frozen=True)
class Parts:
    """A cell, ready to be trained: the model, and what turns examples into its batches.

    language, mask: the sides that the model was made of.
    """

    model: KeySeg
    collator: Collator
    conversation: Conversation
    features: FrozenFeatures
    language: LanguageSide
    mask: MaskSide

    @property
    def view(self) -> str:
        """How much of an image the language side sees."""
        return self.language.view


def with_others(parts: Parts, *splits: Sequence[Example]) -> Parts:
    """The parts, able to give another expression's KEY where the variant asks for one.

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
    others = Others(of, parts.features.language)
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
    language, mask = kept or load_backbones(cfg, device, part="language")
    tokens = cfg.model.tokens
    known = language.tokenizer.get_vocab()
    ids = add_tokens(language.tokenizer, tokens)
    begin = {tokens.key: tokens.key_init, tokens.seg: tokens.seg_init}
    # a token that the base was trained with (an export, LISA) keeps its row
    starts = [
        known[token] if token in known else _word_id(language.tokenizer, begin.get(token))
        for token in new_tokens(tokens)
    ]
    vlm = language.adapted(
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
    head = mask.head()
    if cfg.model.scores_objects:
        head.objects.requires_grad_(True)
    model = KeySeg(
        vlm,
        head,
        build_fusion(cfg, head.channels, vlm.table().shape[1]),
        n_keys=tokens.n_keys,
        projection_layers=cfg.model.projection_layers,
        previous_state=tokens.state == "previous",
        table=cfg.loss.keyword.table,
        shared_projection=cfg.model.shared_projection,
        points=_points(cfg, language, mask, vlm.image_token, head.frame.side),
        seed=cfg.draws,
    )
    freeze_unpulled(model, cfg)
    conversation = Conversation(language.tokenizer, cfg.prompt, tokens, language.places)
    features = frozen_features(cfg, device, language, mask)
    collator = Collator(conversation, features)
    return Parts(model.to(device), collator, conversation, features, language, mask)


def _points(
    cfg: RunConfig, language: LanguageSide, mask: MaskSide, image_token: int, side: int
) -> PointPrompts | None:
    """What makes `model.points`, where it is asked for."""
    if not cfg.model.points.count:
        return None
    asked = f"model.points.count={cfg.model.points.count}"
    if not mask.takes_points:
        raise ConfigError(f"{asked}: {mask.title} is given no points here; take SAM, or count=0")
    tokens = {language.places(size).ids.count(image_token) for size in ((64, 64), (64, 128))}
    if len(tokens) > 1 or math.isqrt(count := max(tokens)) ** 2 != count:
        raise ConfigError(
            f"{asked}: {language.title} sees an image in another form than one square of tokens; "
            "take a LLaVA-1.5, or count=0"
        )
    if (across := math.isqrt(count)) < cfg.model.points.pool:
        raise ConfigError(
            f"model.points.pool={cfg.model.points.pool}: an image has {across} x {across} tokens"
        )
    if language.view != "crop":
        raise ConfigError(f"{asked}: model.clip_view={language.view}: points are made for crop")
    return PointPrompts(cfg.model.points, mask.point_encoder(), side)


def build_features(cfg: RunConfig, device: torch.device) -> FrozenFeatures:
    """The features alone: neither language model nor decoder is loaded.

    Raises:
        WeightsError: a backbone is missing or broken.
    """
    return frozen_features(cfg, device, *load_backbones(cfg, device, part="vision"))


def frozen_features(
    cfg: RunConfig, device: torch.device, language: LanguageSide, mask: MaskSide
) -> FrozenFeatures:
    """The frozen encoders and, unless runtime.features says no, the store of what they see.

    Args:
        cfg: of the run.
        device: where the encoders work; they are moved there with the first image that needs them.
        language: its encoder's weights may have been left out: they are loaded when needed.
        mask: has its encoder.
    """
    choice = cfg.model
    random = choice.init == "random"  # weights that no name stands for: nothing is stored
    same = {"precision": choice.precision, "frozen": choice.frozen, "device": device.type}

    def encoder(side: Backbone, weights: str, load: Callable[[], nn.Module]) -> Encoder:
        known = {"weights": "random" if random else fingerprint(weights)}
        return Encoder(
            name=side.name,
            title=side.title,
            parameters=side.encoder_size(),
            key=same | known | side.seen_with(),
            load=load,
            preprocess=side.pixels,
            autocast=partial(autocast, cfg, device),
            dtype=DTYPES[choice.precision],
        )

    def of_language() -> nn.Module:
        return load_language(choice, device, part="vision").encoder().to(device)

    reading = encoder(language, choice.language_weights, of_language)
    drawing = encoder(mask, choice.mask_weights, lambda: mask.encoder().to(device))
    if random:  # loaded at once: later, the draws would come between those of the training
        return FrozenFeatures(reading.loaded(), drawing.loaded())
    store = Store(resolve_path(cfg.paths.data) / "features", cfg.runtime.features_gib * 2**30)
    return FrozenFeatures(reading, drawing, store if cfg.runtime.features else None)


_preloaded: dict[str, tuple[LanguageSide, MaskSide]] = {}


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
    names = (choice.language_weights, choice.mask_weights, choice.sam_type, choice.clip_view)
    sides = (choice.language, choice.mask, choice.attention, choice.init)
    return json.dumps([*names, *sides, choice.precision, choice.frozen, choice.quantization])


def load_backbones(
    cfg: RunConfig, device: torch.device, part: str = "whole"
) -> tuple[LanguageSide, MaskSide]:
    """Both sides (`part` of them): from files, or random ones of the same sizes.

    Raises:
        WeightsError: a backbone is missing or broken.
    """
    mask = load_mask(cfg.model, device, part)  # first: random weights are drawn in this order
    return load_language(cfg.model, device, part), mask


def freeze_unpulled(model: KeySeg, cfg: RunConfig) -> None:
    """Freeze what no loss of this config pulls on (weight 0 = measured, not trained)."""
    asked = weighted_terms(cfg.loss, objects=cfg.model.scores_objects)
    over = {term.term.over for term in asked if term.weight}
    if cfg.model.scores_objects and not cfg.loss.object:
        model.mask_head.objects.requires_grad_(False)
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
