"""The fusion variants: how SEG is refined by KEY before it prompts the mask decoder.

Shapes: N expressions, K KEY tokens, T context positions, C channels of SAM's prompts.
Every variant maps seg (N, C), key (N, K, C), context (N, T, C), context_mask (N, T) -> (N, C) and
says which of the three it reads (`uses_seg`, `uses_key`, `uses_context`); what a variant does not
read is not projected for it, so no variant carries a parameter without gradient. Context is the
visual and language sequence before SEG (later tokens name the target).

With one KEY token the softmax of cross-attention is 1 whatever the query: query and key
projections would never get a gradient (docs/fidelity.md), so they exist only for K > 1,
and cross-attention is then a linear map of KEY: without a residual the fusion does not read SEG's
state, and KEY's has to carry the place as well as the name, which it can learn.

Where KEY is written before SEG the context holds its state: what reads the context reads KEY,
unless `key_in_context` is false. The composition then closes KEY's position. KEY's state has no
other way to the mask after the language model; inside it, SEG and all that follows KEY have seen
KEY by causal attention, in every variant, unless answers hold none (`model.tokens.n_keys=0`).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KEY_FROM = (OWN, OTHER, NAME) = ("own", "other", "name")
"""What a variant may get for KEY: the state of the answer's own KEY; that of another expression of
the split (`keyseg.data.derangement`); the keyword itself, as the mean of its sub-tokens' rows of
the vocabulary table. With the last two its own KEY is not read."""


class FusionVariant(Protocol):
    """What the composition asks of a variant; `Variant` has all but the formula.

    `uses_*`: what it reads. `key_in_context`: whether the context that it gets holds KEY.
    `key_from`: what it gets for KEY, one of `KEY_FROM`.
    """

    uses_seg: bool
    uses_key: bool
    uses_context: bool
    key_in_context: bool
    key_from: str

    def __call__(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """seg (N, C), key (N, K, C), context (N, T, C), context_mask (N, T) -> (N, C)."""
        ...


class Variant(nn.Module):
    """A variant that reads everything, KEY in the context too, unless it says otherwise."""

    uses_seg: bool = True
    uses_key: bool = True
    uses_context: bool = True
    key_in_context: bool = True
    key_from: str = OWN


class Attention(nn.Module):
    """Multi-head attention of one query per expression.

    `single`: there is one key only, so the weights are 1 and no query or key projection exists.
    `entropy` holds the mean entropy (nats) of the last forward's weights, detached.
    """

    def __init__(self, dim: int, heads: int, *, single: bool = False) -> None:
        super().__init__()
        fits = heads > 0 and dim % heads == 0
        assert fits, f"fusion dim {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.single = single
        if not single:
            self.query = nn.Linear(dim, dim)
            self.key = nn.Linear(dim, dim, bias=False)  # a key bias shifts all scores alike
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.entropy = torch.zeros(())

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (N, C), source (N, T, C), mask (N, T) True = visible -> (N, C)."""
        if self.single:
            assert source.shape[1] == 1, f"{source.shape[1]} keys for single-key attention"
            out: Tensor = self.out(self.value(source[:, 0]))
            return out
        n, t, c = source.shape
        heads, width = self.heads, c // self.heads
        q = self.query(query).view(n, heads, 1, width)
        k = self.key(source).view(n, t, heads, width).transpose(1, 2)
        v = self.value(source).view(n, t, heads, width).transpose(1, 2)
        scores = (q @ k.transpose(2, 3)).float() / math.sqrt(width)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        weights = scores.softmax(dim=-1)
        with torch.no_grad():
            self.entropy = torch.special.entr(weights).sum(-1).mean()
        mixed: Tensor = self.out((weights.to(v.dtype) @ v).reshape(n, c))
        return mixed


class SequenceAttention(nn.Module):
    """SEG attends the sequence it stands in: itself and the context before it.

    Only SEG's output is read, so only its query is computed: the same number as self-attention
    over the whole sequence, read at SEG.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)

    def forward(self, seg: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """seg (N, C), context (N, T, C), context_mask (N, T) -> (N, C)."""
        source = torch.cat([seg[:, None], context], dim=1)
        visible = F.pad(context_mask, (1, 0), value=True)  # SEG sees itself
        out: Tensor = self.attention(seg, source, visible)
        return out


def mlp(dim: int, ratio: float) -> nn.Sequential:
    """C -> ratio * C -> C.

    Raises:
        ValueError: nothing is left in between.
    """
    hidden = int(dim * ratio)
    if hidden < 1:
        raise ValueError(
            f"mlp_ratio={ratio} leaves no channel of {dim}: must be at least 1 / {dim}"
        )
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class SegOnly(Variant):
    """`s* = s`. LISA's fusion. KEY is in the answer all the same; without it: `NoKey`."""

    uses_seg, uses_key, uses_context = True, False, False

    def __init__(self, dim: int, n_keys: int) -> None:
        super().__init__()

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        return seg


class NoKey(SegOnly):
    """`s* = s`, and no KEY in the answer: LISA, trained like the others. Table 3 row 1."""

    def __init__(self, dim: int, n_keys: int) -> None:
        super().__init__(dim, n_keys)
        if n_keys:
            raise ValueError(
                f"model.tokens.n_keys={n_keys} puts KEY into the answer; leave n_keys to this "
                "option, or take fusion=seg_only"
            )


class SelfAttention(Variant):
    """`s2 = s + SelfAttn(s); s* = s2 + MLP(s2)`. Table 3 row 2.

    KEY is not read: its position is closed unless key_in_context=true. residual=false is the
    literal reading, without the two additions.
    """

    uses_seg, uses_key, uses_context = True, False, True

    def __init__(
        self,
        dim: int,
        n_keys: int,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        residual: bool = True,
        key_in_context: bool = True,
    ) -> None:
        super().__init__()
        self.key_in_context = key_in_context
        self.attention = SequenceAttention(dim, heads)
        self.mlp = mlp(dim, mlp_ratio)
        self.keep = float(residual)

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        seg = self.keep * seg + self.attention(seg, context, context_mask)
        out: Tensor = self.keep * seg + self.mlp(seg)
        return out


class Cross(Variant):
    """`s* = CrossAttn(Q=s, K=V=k)`: the output replaces SEG. Table 4 row 1.

    With one KEY it is a linear map of KEY and does not read SEG's state.
    """

    uses_key, uses_context = True, False

    def __init__(self, dim: int, n_keys: int, heads: int = 4) -> None:
        super().__init__()
        self.cross = Attention(dim, heads, single=n_keys == 1)
        self.uses_seg = n_keys > 1

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        out: Tensor = self.cross(seg, key)
        return out


class CrossSelf(Variant):
    """`s1 = CrossAttn(s, k); s* = SelfAttn(s1)`, no residual. Table 4 row 2."""

    uses_key, uses_context = True, True

    def __init__(self, dim: int, n_keys: int, heads: int = 4, key_in_context: bool = True) -> None:
        super().__init__()
        self.key_in_context = key_in_context
        self.cross = Attention(dim, heads, single=n_keys == 1)
        self.attention = SequenceAttention(dim, heads)
        self.uses_seg = n_keys > 1

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        out: Tensor = self.attention(self.cross(seg, key), context, context_mask)
        return out


class Full(Variant):
    """`s1 = s + CrossAttn(s, k); s2 = s1 + SelfAttn(s1); s* = s2 + MLP(s2)`. Last rows of 3 and 4.

    The paper writes a residual around cross-attention only; whether there is one around
    self-attention and MLP its text leaves open. Default: the transformer's convention.
    residual=cross is the literal reading: `s2 = SelfAttn(s1); s* = MLP(s2)`. The paper attends to
    "the surrounding visual and language sequence", which has KEY in it: so has the context, unless
    key_in_context=false leaves KEY to cross-attention alone.
    """

    uses_seg, uses_key, uses_context = True, True, True

    def __init__(
        self,
        dim: int,
        n_keys: int,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        residual: str = "all",
        key_in_context: bool = True,
    ) -> None:
        super().__init__()
        self.key_in_context = key_in_context
        if residual not in ("all", "cross"):
            raise ValueError(f"fusion.residual={residual}: must be one of all, cross")
        self.cross = Attention(dim, heads, single=n_keys == 1)
        self.attention = SequenceAttention(dim, heads)
        self.mlp = mlp(dim, mlp_ratio)
        self.keep = float(residual == "all")

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        seg = seg + self.cross(seg, key)
        seg = self.keep * seg + self.attention(seg, context, context_mask)
        out: Tensor = self.keep * seg + self.mlp(seg)
        return out
