"""The four losses, as pure functions, and their weighted sum.

Shapes: N expressions, M supervised positions, K KEY tokens, V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from keyseg.data.example import VOID

if TYPE_CHECKING:
    from keyseg.config import LossConfig


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the answer: logits (M, V), labels (M)."""
    return F.cross_entropy(logits.float(), labels)


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Per mask, mean over its pixels: logits (N, H, W), targets (N, H, W) uint8 -> (N,)."""
    valid = targets != VOID
    each = F.binary_cross_entropy_with_logits(
        logits.float(), (targets == 1).float(), reduction="none"
    )
    return (each * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """`1 - 2 |p t| / (|p| + |t|)` per mask: logits (N, H, W), targets (N, H, W) -> (N,).

    Smoothed by one pixel, so that an empty target with nothing predicted is no error.
    """
    valid = targets != VOID
    p = logits.float().sigmoid() * valid
    t = (targets == 1).float()
    return 1 - (2 * (p * t).sum((1, 2)) + 1) / (p.sum((1, 2)) + t.sum((1, 2)) + 1)


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


@dataclass(frozen=True)
class Losses:
    """Scalars of one step. `total` is what is trained."""

    text: Tensor
    bce: Tensor
    dice: Tensor
    keyword: Tensor
    total: Tensor


def weigh(text: Tensor, bce: Tensor, dice: Tensor, keyword: Tensor, cfg: LossConfig) -> Losses:
    """The weighted sum. A weight of 0 measures a loss without training it."""
    pairs = (
        (text, cfg.text),
        (bce, cfg.bce),
        (dice, cfg.dice),
        (keyword, cfg.keyword.weight),
    )
    total = torch.zeros((), device=text.device)
    for value, weight in pairs:
        if weight:  # not `0 * value`: that would still run its backward pass, and spread NaN
            total = total + weight * value
    return Losses(text.detach(), bce.detach(), dice.detach(), keyword.detach(), total)
