"""The terms of the loss, as pure functions, and their weighted sum.

A term is a function under `@term`, which says what it is the mean over; the config gives it a
weight (`loss.terms: {edge: 0.5}`). The four of the paper have keys of their own in
`loss`, and the object score has one.

Shapes: N expressions, M supervised positions, K KEY tokens, V vocabulary, D hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from keyseg.config import OBJECT_TERM, ConfigError, LossConfig
from keyseg.data.example import VOID
from keyseg.runs import targets

if TYPE_CHECKING:
    from keyseg.model.keyseg import Output
    from keyseg.train.batch import Batch

TAKES = {
    "tokens": ("logits", "labels"),
    "masks": ("logits", "targets"),
    "keywords": ("output", "batch"),
    "expressions": ("output", "batch"),
}
"""What a term can be the mean over, and what its function takes before its options.

tokens: logits (M, V), labels (M) -> (). masks: logits (N, H, W), targets uint8 (N, H, W) in
{0, 1, 255 = ignore}, of one size -> (N,). keywords, expressions: the model's Output and the Batch
-> (), the mean over the expressions with a keyword, or over all.
"""

Function = TypeVar("Function", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class LossTerm:
    """A term of the loss. over: a key of `TAKES`."""

    name: str
    over: str
    function: Callable[..., Tensor]


LOSS_TERMS: dict[str, LossTerm] = {}
"""Every term that is defined, by name."""


def term(over: str, name: str | None = None) -> Callable[[Function], Function]:
    """Make a function a term of the loss, called like the function if `name` does not say.

    Raises:
        ValueError: `over` is no key of `TAKES`, or another function has the name.
    """
    if over not in TAKES:
        raise ValueError(f"a term is over {', '.join(TAKES)}, not {over}")

    def define(function: Function) -> Function:
        made = LossTerm(name or function.__name__, over, function)
        known = LOSS_TERMS.get(made.name)
        if known is not None and _place(known.function) != _place(function):
            raise ValueError(
                f"{_place(function)}: there is a term '{made.name}', {_place(known.function)}"
            )
        LOSS_TERMS[made.name] = made
        return function

    return define


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@term("tokens", name="text")
def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the answer: logits (M, V), labels (M)."""
    return F.cross_entropy(logits.float(), labels)


@term("masks", name="bce")
def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Per mask, mean over its pixels: logits (N, H, W), targets (N, H, W) uint8 -> (N,).

    Void pixels do not count (`loss.void=background` has made them background before).
    """
    valid = targets != VOID
    each = F.binary_cross_entropy_with_logits(
        logits.float(), (targets == 1).float(), reduction="none"
    )
    return (each * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


@term("masks", name="dice")
def dice_loss(logits: Tensor, targets: Tensor, *, smooth: float = 1.0) -> Tensor:
    """`1 - 2 |p t| / (|p| + |t|)` per mask: logits (N, H, W), targets (N, H, W) -> (N,).

    Smoothed by `smooth` pixels, so that an empty target with nothing predicted is no error.
    """
    valid = targets != VOID
    p = logits.float().sigmoid() * valid
    t = (targets == 1).float()
    return 1 - (2 * (p * t).sum((1, 2)) + smooth) / (p.sum((1, 2)) + t.sum((1, 2)) + smooth)


def keyword_logits(query: Tensor, table: Tensor, similarity: str, temperature: float) -> Tensor:
    """`W h_key . E^T / tau` (paper 3.4): query (..., D), table (V, D) -> (..., V).

    similarity "cosine": both sides L2-normalised first, as the released code does.
    """
    query, table = query.float(), table.float()
    if similarity == "cosine":
        query, table = F.normalize(query, dim=-1), F.normalize(table, dim=-1)
    return query @ table.T / temperature


def keyword_loss(logits: Tensor, keywords: Sequence[Sequence[int]], target: str) -> Tensor:
    """Cross-entropy of the keyword: logits (N, K, V), sub-tokens of N keywords (may be empty).

    target "first": the first sub-token. "all": the mean over the sub-tokens. The mean over KEY
    tokens and over the expressions that have a keyword; 0 when none has, or there is no KEY.
    """
    wanted = [list(k[:1] if target == "first" else k) for k in keywords]
    rows = [n for n, k in enumerate(wanted) if k]
    if not rows or not logits.shape[1]:
        return logits.sum() * 0.0
    scores = logits[rows].log_softmax(-1).mean(dim=1)
    each = [-scores[i, wanted[n]].mean() for i, n in enumerate(rows)]
    return torch.stack(each).mean()


@term("keywords", name="keyword")
def named_keyword(
    output: Output, batch: Batch, *, temperature: float, similarity: str, target: str
) -> Tensor:
    """Cross-entropy of the keyword at KEY: `keyword_loss` of `keyword_logits`."""
    scores = keyword_logits(output.key_query, output.table, similarity, temperature)
    return keyword_loss(scores, batch.keyword_ids, target)


@term("expressions", name=OBJECT_TERM)
def object_loss(output: Output, batch: Batch) -> Tensor:
    """Binary cross-entropy of the mask side's object score: whether a target is there."""
    assert output.object_logits is not None, "the mask side has no object score"
    there = [not batch.examples[owner].no_target for owner in batch.owners]
    logits = output.object_logits.float()
    return F.binary_cross_entropy_with_logits(logits, logits.new_tensor(there))


@dataclass(frozen=True)
class Weighted:
    """A term as a config asks for it. options: what its function takes beside the data."""

    term: LossTerm
    weight: float
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the term."""
        return self.term.name

    def __call__(self, *given: Any) -> Tensor:
        """The function's value, for what `TAKES` lists."""
        return self.term.function(*given, **self.options)


def weighted_terms(cfg: LossConfig, *, objects: bool = False) -> list[Weighted]:
    """The terms of a config, those of the paper first.

    `objects`: whether the object score is one of them (`ModelConfig.scores_objects`).

    Raises:
        ConfigError: a term that is not defined, or an option that its function does not take.
    """
    keyword = cfg.keyword
    heard = {name: getattr(keyword, name) for name in ("temperature", "similarity", "target")}
    own: list[tuple[str, float, dict[str, Any]]] = [
        ("text", cfg.text, {}),
        ("bce", cfg.bce, {}),
        ("dice", cfg.dice, {"smooth": cfg.dice_smooth}),
    ]
    weighted = [Weighted(LOSS_TERMS[name], weight, options) for name, weight, options in own]
    weighted.append(Weighted(LOSS_TERMS["keyword"], keyword.weight, heard))
    if objects:
        weighted.append(Weighted(LOSS_TERMS[OBJECT_TERM], cfg.object, {}))
    return weighted + [_asked(name, spec) for name, spec in cfg.terms.items()]


def _asked(name: str, spec: Mapping[str, Any]) -> Weighted:
    """A term of `loss.terms`: {weight, perhaps _target_, options}."""
    options = {k: v for k, v in spec.items() if k not in ("weight", "_target_")}
    if target := spec.get("_target_"):
        function = targets.find(f"loss.terms.{name}._target_", str(target))
        defined = {id(known.function): known.over for known in LOSS_TERMS.values()}
        if id(function) not in defined:
            raise ConfigError(
                f"loss.terms.{name}: {target} is no term of the loss; write @term(over=...) above "
                "it (from keyseg.train.losses import term)"
            )
        made = LossTerm(name, defined[id(function)], function)
    elif name in LOSS_TERMS:
        made = LOSS_TERMS[name]
    else:
        near = get_close_matches(name, LOSS_TERMS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"loss.terms.{name}: no such term.{hint} There are: {', '.join(LOSS_TERMS)}; "
            "another function goes by {_target_: package.module.function, weight: ...}"
        )
    try:
        inspect.signature(made.function).bind(*TAKES[made.over], **options)
    except TypeError as error:
        raise ConfigError(f"loss.terms.{name}: {error}") from error
    return Weighted(made, float(spec["weight"]), options)


@dataclass(frozen=True)
class Losses:
    """Scalars of one step: each term by name, not weighted, and `total`, which is trained."""

    terms: dict[str, Tensor]
    total: Tensor


def weigh(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> Losses:
    """The weighted sum. A weight of 0 measures a term without training it."""
    total = torch.zeros((), device=next(iter(values.values())).device)
    for name, value in values.items():
        if weights[name]:  # not `0 * value`: that would still run its backward pass, and spread NaN
            total = total + weights[name] * value
    return Losses({name: value.detach() for name, value in values.items()}, total)
