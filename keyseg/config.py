"""The resolved config of one run: its typed schema, its checks, and the signature that names it.

`experiments/` composes the values, this file says what they must be. A group whose set is open
(fusion, data) stays a free dict with a `_target_`; everything else is typed, so a wrong type or a
misspelt key in a YAML is an error before anything is built.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

PROJECT = Path(__file__).resolve().parent.parent
"""Root of the checkout: where experiments/, sweeps/ and reports/ lie."""

NAMED = ("model", "fusion", "data", "prompt", "loss")
"""Groups whose options are recorded by `name`, which is that of the file."""

NOT_IN_SIGNATURE = (
    "name",
    "rerun",
    "stale",
    "reuse",
    "dry",
    "detach",
    "until",
    "notify",
    "model.start",  # a place; what lies there has a hash, which counts
    "paths.*",
    "runtime.*",
    "data.root",
    "data.*.root",
    "ablation",  # empty: a leaf of its own
    "ablation.*",
)
"""Keys that cannot change a result, as patterns over dotted names."""

LLAVA, SAM = "keyseg.model.backbones.llava.Llava", "keyseg.model.backbones.sam.SegmentAnything"
"""The sides that a config has which names none."""

ADDED: dict[str, Any] = {
    "loss.terms": {},
    "loss.object": 1.0,
    "data.train_images": "all",
    "data.texts": "all",
    "optim.decay": 0.2,
    "optim.until": "steps",
    "fusion.key_in_context": True,
    "fusion.match": "fusion",
    "prompt.names_target": True,
    "prompt.test": "",
    "prompt.each": "{text} {tokens}",
    "prompt.between": " ",
    "model.points.count": 0,
    "model.points.above": 0.8,
    "model.points.below": 0.2,
    "model.points.pool": 2,
    "model.tokens.no_target": "empty",
    "model.tokens.rej": "[REJ]",
    "data.targets": "union",
    "data.*.targets": "union",
    "data.draw": "permutation",
    "model.clip_view": "crop",
    "model.language._target_": LLAVA,
    "model.mask._target_": SAM,
    "model.shared_projection": False,
    "model.tokens.rows": "new",
    "loss.dice_smooth": 1.0,
    "loss.void": "skip",
    "optim.patience": 5,
    "optim.times": 1,
    "stream": 0,
    "data.wrong_masks": 0,
    "evaluation.eroded": 0,
    "evaluation.eroded_by": 2,
    "evaluation.object_threshold": 0.0,
    "evaluation.intervention": "",
    "model.start_hash": "",
}
"""Keys younger than the first cells: pattern over dotted names, and the value that does nothing.

A new key of the schema, or of an option file, is listed here with the value under which a run is
the run that it was before there was the key. At that value it is no part of the signature, so that
cells made before it are found. Terms of the loss need no line: at weight 0 they do not count.
"""

OWN_TERMS = ("text", "bce", "dice", "keyword")
"""Terms of the loss with keys of their own; the first cells had them, so they count at weight 0."""

OBJECT_TERM = "object"
"""Another one with a key of its own, there where the object score is asked for alone."""

REDEFINED: dict[str, tuple[Any, Any]] = {
    "model.tokens.*_init": (None, "drawn"),  # was the mean of the table, for KEY and SEG alike
}
"""Values that do something else than for the first cells: pattern over dotted names, the value, and
what it counts as in a signature, so that a cell of then is not taken for one of today."""

_FIRST_TARGETS = {
    **{
        name: f"keyseg.model.fusion.{name}"
        for name in ("SegOnly", "SelfAttention", "Cross", "CrossSelf", "Full")
    },
    **{
        name: f"keyseg.model.controls.{name}"
        for name in ("Add", "CrossResidual", "MatchedMlp", "NoMlp", "NoResidual", "RandomKey")
    },
    **{name: f"keyseg.model.controls.{name}" for name in ("Released", "ShuffledKey")},
    **{f"{m}.read": f"keyseg.data.{m}.read" for m in ("refer", "grefer", "reason_seg")},
    "scenes.prepare": "keyseg.data.scenes.prepare",
}
"""What the first signatures hash for the classes and functions there were. Closed."""


ALL = "all"
"""Of data.train_images: every image of the train split."""


DRAWS = ("permutation", "uniform")
"""Of data.draw: how the images of a source come in training: none again before all have come, or
each drawn out of all (released)."""


class ConfigError(ValueError):
    """A value in the config is wrong; the message names the key, the value and the remedy."""


@dataclass
class LoraConfig:
    """LoRA on the language model. `targets` are the names of its linear layers."""

    r: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    targets: list[str] = MISSING


@dataclass
class TokensConfig:
    """The two new tokens: their text, order in the answer, state that is read, and start values.

    `n_keys`: KEY tokens in an answer; 0 = none, no row for it and no keyword loss (LISA).
    `state`: "token" reads the hidden state at the token, "previous" the one before it (LISA).
    `init`: the word whose embedding a new token starts from; null = a draw of its own, like a word
    of the table (LISA).
    `rows`: of the vocabulary's two tables the "new" ones are trained, or "all" (LISA, released).
    `no_target`: how an answer says that an expression names nothing: with a mask that is "empty",
    or it "reject"s it by a third token, `rej`, and draws nothing (GSVA), or the mask side's "score"
    of an object says so (SAM 2).
    """

    key: str = "[KEY]"
    seg: str = "[SEG]"
    n_keys: int = 1
    order: str = "key_first"
    state: str = "token"
    key_init: str | None = None
    seg_init: str | None = None
    rows: str = "new"
    no_target: str = "empty"
    rej: str = "[REJ]"


@dataclass
class PointsConfig:
    """Points beside SEG in the mask side's prompt (READ): where image tokens are like SEG's state.

    `count`: at most so many; 0 = none. The likeness, between 0 and 1, is read on a grid that is
    `pool` times as coarse as the image tokens': from `above` a point says "this", up to `below`
    "not this", in between nothing.
    """

    count: int = 0
    above: float = 0.8
    below: float = 0.2
    pool: int = 2


@dataclass
class ModelConfig:
    """Backbones (`llava`, `sam`: a folder, a file or a hub id) and what is trained of them.

    `language`, `mask`: the class of either side (`_target_`), and its options; see
    keyseg/model/backbones/sides.py. `language.weights`: of another language side than LLaVA.
    `init`: "random" needs no weights: sizes come from the files' configs, or from `sizes` (text,
    vision: arguments of LlamaConfig and CLIPVisionConfig; tokenizer: a folder with one, bytes if
    left out) where it is not empty.
    `frozen`: frozen weights are kept in "fp32" or in `precision`. `quantization`: "nf4" keeps the
    language model's in 4 bits (extra `qlora`). `gradient_checkpointing`: what the backward pass
    computes again of the language model's layers: nothing ("none"), all ("full"), or all but the
    MLP's wide products ("selective"). `clip_view`: how CLIP gets an image that is no square:
    "crop" = its middle, as the public processors do; "pad" = all of it, padded; "squash" = all of
    it, resized to a square. `shared_projection`: SEG and KEY have one projection (released).
    `start`: a finished run or an import whose weights, backbones among them, training begins from;
    `start_hash`: of what it trained, set when a cell's config is frozen.
    """

    name: str = MISSING
    language: dict[str, Any] = field(default_factory=lambda: {"_target_": LLAVA})
    mask: dict[str, Any] = field(default_factory=lambda: {"_target_": SAM})
    llava: str | None = None
    sam: str = MISSING
    sam_type: str = MISSING
    init: str = "pretrained"
    sizes: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    frozen: str = "fp32"
    quantization: str = "none"
    attention: str = "sdpa"
    gradient_checkpointing: str = "none"
    projection_layers: int = 2
    shared_projection: bool = False
    clip_view: str = "crop"
    start: str | None = None
    start_hash: str = ""
    points: PointsConfig = field(default_factory=PointsConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)

    @property
    def language_weights(self) -> str:
        """Where the language side's weights are: folder or hub id."""
        return str(self.language.get("weights") or self.llava)

    @property
    def scores_objects(self) -> bool:
        """Whether the mask side's object score decides that there is no target, and is trained."""
        return self.tokens.no_target == "score"

    @property
    def mask_weights(self) -> str:
        """Where the mask side's weights are: file, folder or hub id."""
        return self.sam

    def with_weights(self, language: str, mask: str) -> ModelConfig:
        """The same backbones in other places."""
        if "weights" in self.language:
            return replace(self, language={**self.language, "weights": language}, sam=mask)
        return replace(self, llava=language, sam=mask)


@dataclass
class KeywordLossConfig:
    """Keyword CE: `target` is "first" (sub-token) or "all" (sub-tokens averaged).

    `table`: of the vocabulary, against which KEY is held: the "frozen" pre-trained one, a copy that
    is "trained", the frozen one "projected" to the prompts' width by a random matrix (released), or
    such a projection as a table of its "own" that is trained (an import of released weights).
    """

    weight: float = MISSING
    temperature: float = MISSING
    similarity: str = MISSING
    target: str = MISSING
    table: str = MISSING


@dataclass
class LossConfig:
    """Weights of the terms of the loss. Weight 0: measured and logged, not trained.

    `resolution`: masks are compared at the "image"'s own size, or at that of the "decoder".
    `dice_smooth`: pixels that are added above and below the fraction (1e-3: LISA, released).
    `void`: pixels to ignore are left out ("skip"), or count as "background" (LISA, released).
    `object`: of the object score, a term where `model.tokens.no_target` is "score" alone.
    `terms`: more of them by name: a weight, or {weight, options}; with a `_target_` the function
    is that one, else the term of that name (`keyseg.train.losses`).
    """

    name: str = MISSING
    text: float = MISSING
    bce: float = MISSING
    dice: float = MISSING
    resolution: str = MISSING
    dice_smooth: float = 1.0
    void: str = "skip"
    keyword: KeywordLossConfig = field(default_factory=KeywordLossConfig)
    object: float = 1.0
    terms: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimConfig:
    """AdamW; learning rates by parameter group; length and rhythm of a run, in steps.

    `times`: what `steps` is multiplied by when a cell's config is frozen; 1 from then on.

    `schedule`: after the warm-up the rate is "constant", falls to 0 ("linear", "cosine"), or is
    constant and falls over the last `decay` of the steps ("wsd"). `until`: a run ends after its
    "steps", or, before them, where val has reached a "plateau" (and the rate has decayed there), or
    where `patience` evaluations on end were no better than the best before them ("patience").
    """

    steps: int = MISSING
    times: float = 1
    images_per_step: int = MISSING
    expressions_per_image: int = MISSING
    lr: float = MISSING
    lr_fusion: float = MISSING
    lr_decoder: float = MISSING
    betas: list[float] = MISSING
    weight_decay: float = MISSING
    warmup: int = MISSING
    schedule: str = MISSING
    decay: float = 0.2
    until: str = "steps"
    patience: int = 5
    clip: float = MISSING
    eval_every: int = MISSING
    checkpoint_every: int = MISSING


@dataclass
class EvaluationConfig:
    """How val (during training) and test (once, at the end) are read.

    `object_threshold`: up to this object score (a logit) there is no target, and the mask is empty;
    where `model.tokens.no_target` is "score".
    `texts`: "all" sentences of a val or test target that the data's splits give, or the "first".
    Planted truths: of the `eroded` share of test targets `eroded_by` pixels of the edge are taken
    away; `intervention`: test is read with a token's state replaced, "key-swap" and the like.
    """

    images_per_batch: int = MISSING
    texts: str = MISSING
    val_images: int | None = None
    protocols: list[str] = MISSING
    max_new_tokens: int = MISSING
    eroded: float = 0.0
    eroded_by: int = 2
    intervention: str = ""
    object_threshold: float = 0.0


@dataclass
class PromptConfig:
    """Templates. `{query}`: the expression; `{tokens}`: KEY and SEG; `{text}`: names the object.

    `names_target`: false = answers end before `{text}`, so that the text loss teaches no keyword.
    `test`: the question of val and test, for short and long queries; "" = the first of `short` and
    of `long`. `each`: stands for `{tokens}` once for each target of a query that may have several,
    with commas between; `{text}` is that target's name then. `between`: what stands between KEY and
    SEG where `{tokens}` does.
    """

    name: str = MISSING
    system: str = MISSING
    user: str = MISSING
    assistant: str = MISSING
    end: str = MISSING
    short: list[str] = MISSING
    long: list[str] = MISSING
    answers: list[str] = MISSING
    names_target: bool = True
    test: str = ""
    each: str = "{text} {tokens}"
    between: str = " "


@dataclass
class RuntimeConfig:
    """What changes speed only. `threads`: null = cores divided among the cells at work.

    `accumulation`: micro-batches that a process makes of its share of a step's images, one after
    the other. `sharding`: with several GPUs "none" has each hold the model (DDP), "fsdp" a share.
    `log_model`: MLflow gets the model of a finished run (what was trained, not the backbones).
    `log_variants`: MLflow gets a run a variant, with mean and spread over its seeds.
    `features`: keep what the frozen encoders see under paths.data, up to `features_gib` GiB.
    `log_level`: lines of log.txt from "debug", "info", "warning" or "error" up.
    """

    device: str = "auto"
    threads: int | None = None
    log_every: int = 10
    log_level: str = "info"
    show_progress: bool = True
    log_model: bool = True
    log_variants: bool = True
    features: bool = True
    features_gib: float = 50.0
    accumulation: int = 1
    sharding: str = "none"


@dataclass
class PathsConfig:
    """Where things are written; relative to the project's root."""

    data: str = "cache"
    outputs: str = "outputs"
    reports: str = "reports/out"


@dataclass
class RunConfig:
    """One cell. `data` and `fusion` are open groups: a `_target_` and its arguments.

    `stream`: another number draws everything else at the same seed: the same cell a second time.
    """

    name: str | None = None
    seed: int = 0
    stream: int = 0
    rerun: bool = False
    stale: str = "ask"
    reuse: bool = True
    dry: bool = False
    detach: bool = False
    until: str | None = None
    notify: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    fusion: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    ablation: dict[str, Any] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """What all random draws of the run begin from."""
        if not self.stream:
            return self.seed
        digest = hashlib.sha256(f"{self.seed} {self.stream}".encode()).digest()
        return int.from_bytes(digest[:4])


TEACHER_FORCED, GENERATED = PROTOCOLS = ("teacher_forced", "generated")
"""How an evaluation comes by its answers: given up to the tokens, or written by the model."""

CHOICES: dict[str, tuple[str, ...]] = {
    "stale": ("ask", "rerun", "keep"),
    "model.precision": ("fp32", "bf16", "fp16"),
    "model.init": ("pretrained", "random"),
    "model.frozen": ("fp32", "precision"),
    "model.quantization": ("none", "nf4"),
    "model.attention": ("sdpa", "eager"),
    "model.gradient_checkpointing": ("none", "full", "selective"),
    "model.clip_view": ("crop", "pad", "squash"),
    "model.tokens.rows": ("new", "all"),
    "model.tokens.order": ("key_first", "seg_first"),
    "model.tokens.state": ("token", "previous"),
    "model.tokens.no_target": ("empty", "reject", "score"),
    "loss.resolution": ("image", "decoder"),
    "loss.keyword.similarity": ("dot", "cosine"),
    "loss.keyword.target": ("first", "all"),
    "loss.keyword.table": ("frozen", "trained", "projected", "own"),
    "loss.void": ("skip", "background"),
    "optim.schedule": ("constant", "linear", "cosine", "wsd"),
    "optim.until": ("steps", "plateau", "patience"),
    "evaluation.texts": ("all", "first"),
    "evaluation.protocols": PROTOCOLS,
    "runtime.log_level": ("debug", "info", "warning", "error"),
    "runtime.sharding": ("none", "fsdp"),
}

POSITIVE = (
    "model.points.pool",
    "model.lora.r",
    "model.lora.alpha",
    "model.projection_layers",
    "loss.keyword.temperature",
    "loss.dice_smooth",
    "optim.patience",
    "optim.images_per_step",
    "optim.expressions_per_image",
    "optim.eval_every",
    "optim.checkpoint_every",
    "evaluation.images_per_batch",
    "evaluation.max_new_tokens",
    "evaluation.eroded_by",
    "optim.times",
    "runtime.log_every",
    "runtime.features_gib",
    "runtime.accumulation",
)
NOT_NEGATIVE = (
    "model.points.count",
    "model.points.below",
    "loss.text",
    "loss.bce",
    "loss.dice",
    "loss.keyword.weight",
    "loss.object",
    "seed",
    "stream",
    "optim.warmup",
    "optim.steps",
    "optim.lr",
    "optim.lr_fusion",
    "optim.lr_decoder",
    "optim.weight_decay",
    "optim.clip",
    "model.tokens.n_keys",
)


def _token(text: Any) -> bool:
    return bool(text) and not re.search(r"\s", text)


FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda v: v < 2**63, "must be below 2**63"),
    "until": (lambda v: v in (None, "verdict"), "must be verdict, or null"),
    "model.tokens.key": (_token, "must be a text without spaces, like [KEY]"),
    "model.tokens.seg": (_token, "must be a text without spaces, like [SEG]"),
    "model.tokens.rej": (_token, "must be a text without spaces, like [REJ]"),
    "model.lora.dropout": (lambda v: 0 <= v < 1, "must be from 0 to below 1"),
    "model.lora.targets": (bool, "is empty: give names of layers, like [q_proj, v_proj]"),
    "optim.betas": (
        lambda v: len(v) == 2 and all(0 <= beta < 1 for beta in v),
        "must be two numbers from 0 to below 1",
    ),
    "evaluation.val_images": (
        lambda v: v is None or v > 0,
        "must be above 0, or null for all images",
    ),
    "evaluation.eroded": (lambda v: 0 <= v <= 1, "must be a share, from 0 to 1"),
    "evaluation.intervention": (
        lambda v: bool(re.fullmatch(r"|(key|seg)-(swap|zero|mean|noise|oracle)", v)),
        "must be key- or seg-, then swap, zero, mean, noise or oracle; empty: none",
    ),
    "runtime.threads": (
        lambda v: v is None or v > 0,
        "must be above 0, or null for a share of the cores",
    ),
    "runtime.device": (
        lambda v: bool(re.fullmatch(r"auto|cpu|mps|(cuda|xpu|npu|hpu)(:\d+)?", v)),
        "must be auto, cpu, cuda, cuda:N, mps, xpu, npu or hpu",
    ),
}
"""What a value must be where that is no range and no list of words: a test, and how it is said."""


def validate(cfg: DictConfig | Mapping[str, Any]) -> RunConfig:
    """Resolve and check a composed config; return it typed.

    Raises:
        ConfigError: an unknown key, a wrong type, a missing value, a value outside its range.
    """
    raw = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    raw = {k: v for k, v in cast(dict[str, Any], raw).items() if k != "hydra"}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), raw)
        run = cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"config key '{error.full_key or '?'}': {reason}") from error
    run.loss.terms = {name: _term(name, spec) for name, spec in run.loss.terms.items()}
    check(run)
    return run


def check(run: RunConfig) -> None:
    """Check a typed config: its values, and that its open groups say what they are.

    Raises:
        ConfigError: a value outside its range, or one that is missing.
    """
    check_values(run)
    for group, values in (("fusion", run.fusion), ("data", run.data)):
        if not values.get("name"):
            raise ConfigError(f"{group}.name is missing: choose one with {group}=NAME")
    for key, side in (("language", run.model.language), ("mask", run.model.mask)):
        if "_target_" not in side:
            raise ConfigError(f"model.{key}._target_ is missing: it names the class of the side")
    if not (run.model.llava or run.model.language.get("weights")):
        raise ConfigError("model.llava is missing: a folder or hub id; or choose with model=NAME")
    if "_target_" not in run.fusion:
        raise ConfigError("fusion._target_ is missing: it names the class of the variant")


def _term(name: str, spec: Any) -> dict[str, Any]:
    """A value of `loss.terms` as {weight, options}."""
    if name in (*OWN_TERMS, OBJECT_TERM):
        key = "keyword.weight" if name == "keyword" else name
        raise ConfigError(f"loss.terms.{name}: the weight of this term is loss.{key}")
    if not name.isidentifier() or name == "loss":
        raise ConfigError(f"loss.terms.{name}: give a term a name that a function could have")
    given = dict(spec) if isinstance(spec, Mapping) else {"weight": spec}
    weight = given.get("weight")
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not (number and 0 <= cast(float, weight) < math.inf):
        raise ConfigError(f"loss.terms.{name}: needs a weight, a number from 0 up, not {weight}")
    return given


def check_values(run: RunConfig) -> None:
    """Check the values of a typed config.

    Raises:
        ConfigError: a value outside its range.
    """
    flat = flatten(run)
    for key, allowed in CHOICES.items():
        value = flat[key]
        for v in value if isinstance(value, list) else [value]:
            if v not in allowed:
                raise ConfigError(f"{key}={v}: must be one of {', '.join(allowed)}")
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ConfigError(f"{key}={value}: one is given twice")
    for key in POSITIVE:
        if not flat[key] > 0:
            raise ConfigError(f"{key}={flat[key]}: must be above 0")
    for key in NOT_NEGATIVE:
        if not flat[key] >= 0:
            raise ConfigError(f"{key}={flat[key]}: must be 0 or more")
    for key, value in flat.items():
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, float) and not math.isfinite(v):
                raise ConfigError(f"{key}={value}: must be a finite number")
    for key, (fits, says) in FORMS.items():
        if not fits(flat[key]):
            raise ConfigError(f"{key}={flat[key]}: {says}")
    tokens = run.model.tokens
    if tokens.n_keys and tokens.key == tokens.seg:
        raise ConfigError(f"model.tokens.seg={tokens.seg}: is model.tokens.key, too")
    if tokens.no_target == "reject" and tokens.rej in (tokens.key, tokens.seg):
        raise ConfigError(f"model.tokens.rej={tokens.rej}: is another token of answers, too")
    points = run.model.points
    if not points.below < points.above <= 1:
        raise ConfigError(
            f"model.points: below={points.below} above={points.above}: likeness is between 0 and "
            "1, and below must be under above"
        )
    if run.evaluation.intervention.startswith("key") and not tokens.n_keys:
        raise ConfigError(
            f"evaluation.intervention={run.evaluation.intervention}: answers hold no KEY "
            "(model.tokens.n_keys=0)"
        )
    _check_schedule(run.optim)
    count, parts = run.optim.images_per_step, run.runtime.accumulation
    if count < parts:
        raise ConfigError(
            f"optim.images_per_step={count}: too few for runtime.accumulation={parts} micro-batches"
        )
    images = run.data.get("train_images", ALL)
    share = type(images) is float and 0 < images < 1
    if images != ALL and not share and not (type(images) is int and images > 0):
        raise ConfigError(
            f"data.train_images={images}: must be a number above 0, a share below 1, or {ALL}"
        )
    wrong = run.data.get("wrong_masks", 0)
    if not (type(wrong) in (int, float) and 0 <= wrong <= 1):
        raise ConfigError(f"data.wrong_masks={wrong}: must be a share, from 0 to 1")
    draw = run.data.get("draw", DRAWS[0])
    if draw not in DRAWS:
        raise ConfigError(f"data.draw={draw}: must be one of {', '.join(DRAWS)}")
    keyword = run.loss.keyword.weight if run.model.tokens.n_keys else 0
    absent = run.loss.object if tokens.no_target == "score" else 0
    own = (run.loss.text, run.loss.bce, run.loss.dice, keyword, absent)
    if not any((*own, *(term["weight"] for term in run.loss.terms.values()))):
        raise ConfigError("all weights of loss are 0: nothing is trained; set one above 0")
    if run.model.quantization != "none":
        four = f"model.quantization={run.model.quantization}"
        if run.model.init == "random":
            raise ConfigError(f"{four}: a file is read in 4 bits, not model.init=random")
        if run.runtime.sharding != "none":
            raise ConfigError(f"{four} does not go with runtime.sharding={run.runtime.sharding}")


def _check_schedule(optim: OptimConfig) -> None:
    decay, kind = f"optim.decay={optim.decay}", f"optim.schedule={optim.schedule}"
    if not 0 <= optim.decay < 1:
        raise ConfigError(f"{decay}: must be a share of the steps, from 0 to below 1")
    if optim.schedule != "wsd" and optim.decay != ADDED["optim.decay"]:
        raise ConfigError(f"{decay} does nothing with {kind}: set optim.schedule=wsd")
    if optim.until == "plateau" and optim.schedule not in ("wsd", "constant"):
        raise ConfigError(
            f"optim.until=plateau does not go with {kind}: its rate falls from the start, and "
            "would be broken off half-way; set optim.schedule=wsd or constant"
        )


def signature(cfg: DictConfig | Mapping[str, Any] | RunConfig) -> str:
    """12 hex digits that identify a cell: a hash of the resolved config.

    Keys in `NOT_IN_SIGNATURE` do not count, nor do those of `ADDED` at the value listed there, nor
    `loss.terms` at weight 0. A `_target_` counts by its name without the path to it, so that code
    may move. The order of keys does not count; every other value does, defaults included, so that
    a changed default gives a new signature.
    """
    counted = signed(cfg if isinstance(cfg, RunConfig) else validate(cfg))
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]


def signed(cfg: RunConfig) -> dict[str, Any]:
    """What a signature is made of: values by dotted key."""
    flat = {key: _plain(value) for key, value in flatten(cfg).items()}
    idle = tuple(_idle_terms(flat))
    return {
        key: _meaning(key, value)
        for key, value in flat.items()
        if not _left_out(key)
        and not any(value == _plain(v) for v in _idle_values(key))
        and not any(key == term or key.startswith(f"{term}.") for term in idle)
    }


@cache
def _left_out(key: str) -> bool:
    return any(fnmatch(key, pattern) for pattern in NOT_IN_SIGNATURE)


@cache
def _idle_values(key: str) -> tuple[Any, ...]:
    """Values of a newer key that do nothing."""
    return tuple(value for added, value in ADDED.items() if fnmatch(key, added))


def _meaning(key: str, value: Any) -> Any:
    """A value as a signature counts it."""
    if key.endswith("._target_"):
        return _target_name(value)
    return next((now for v, now in _redefined(key) if v == value), value)


@cache
def _redefined(key: str) -> tuple[tuple[Any, Any], ...]:
    return tuple(change for pattern, change in REDEFINED.items() if fnmatch(key, pattern))


def _idle_terms(flat: Mapping[str, Any]) -> Iterator[str]:
    """Terms at weight 0 among those that the first cells did not have."""
    for key, value in flat.items():
        if key.startswith("loss.terms.") and key.endswith(".weight") and value == 0:
            yield key.removesuffix(".weight")


def _target_name(target: str) -> str:
    """A class by its own name, a function with its module's: `Full`, `refer.read`."""
    *path, last = str(target).split(".")
    name = last if last[:1].isupper() else ".".join([*path[-1:], last])
    return _FIRST_TARGETS.get(name, name) if path[:1] == ["keyseg"] else name


def _plain(value: Any) -> Any:
    """2.0 as 2: open groups (fusion, data) have no types that would make them one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def flatten(cfg: DictConfig | Mapping[str, Any] | RunConfig) -> dict[str, Any]:
    """`{"loss.keyword.weight": 0.5, ...}`: leaves by dotted name; lists stay whole."""
    if isinstance(cfg, RunConfig):
        return dict(_leaves(vars(cfg), ""))
    plain = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    return dict(_leaves(cast(Mapping[str, Any], plain), ""))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if prefix == "" and key == "hydra":
            continue
        below = vars(value) if is_dataclass(value) else value
        if isinstance(below, Mapping) and below:
            yield from _leaves(below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


ROOT = "KEYSEG_ROOT"
"""Environment variable of jobs that run a snapshot of the code: the checkout it was taken of."""


def resolve_path(path: str | Path) -> Path:
    """An absolute path as it is; a relative one from the project's root, not from the cwd.

    In a snapshot of the code, what the snapshot holds (bundled weights) is taken from there;
    everything else (outputs, data) is where the checkout has it.
    """
    here = PROJECT / Path(path).expanduser()
    root = os.environ.get(ROOT)
    return here if root is None or here.exists() else Path(root) / Path(path).expanduser()
