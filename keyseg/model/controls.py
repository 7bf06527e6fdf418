"""Variants beside the paper's: the released code's fusion, variants with a part left out, controls.

Shapes and rules as in `keyseg.model.fusion`: N expressions, K KEY tokens, T context positions, C
channels; seg (N, C), key (N, K, C), context (N, T, C), context_mask (N, T) -> (N, C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keyseg.model.fusion import NAME, OTHER, Attention, Full, SequenceAttention, Variant, mlp


class Released(Variant):
    """`s1 = s + W k; s* = s1 + MLP(s1)`, k the mean of the KEY tokens: what the public code uses.

    Its self-attention is computed and thrown away there, so it is left out. frozen=true: W and
    MLP stay at random initialisation, as in the public code (docs/fidelity.md); false trains
    them. SEG's and KEY's projections are trained in both.
    """

    uses_seg, uses_key, uses_context = True, True, False

    def __init__(self, dim: int, n_keys: int, mlp_ratio: float = 2.0, frozen: bool = True) -> None:
        super().__init__()
        self.value = nn.Linear(dim, dim)
        self.mlp = mlp(dim, mlp_ratio)
        self.requires_grad_(not frozen)

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        seg = seg + self.value(key.mean(dim=1))
        out: Tensor = seg + self.mlp(seg)
        return out


class CrossResidual(Variant):
    """`s* = s + CrossAttn(s, k)`: full without self-attention and MLP."""

    uses_seg, uses_key, uses_context = True, True, False

    def __init__(self, dim: int, n_keys: int, heads: int = 4) -> None:
        super().__init__()
        self.cross = Attention(dim, heads, single=n_keys == 1)

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        out: Tensor = seg + self.cross(seg, key)
        return out


class NoMlp(Variant):
    """`s1 = s + CrossAttn(s, k); s* = s1 + SelfAttn(s1)`: full without MLP."""

    uses_seg, uses_key, uses_context = True, True, True

    def __init__(self, dim: int, n_keys: int, heads: int = 4, key_in_context: bool = True) -> None:
        super().__init__()
        self.key_in_context = key_in_context
        self.cross = Attention(dim, heads, single=n_keys == 1)
        self.attention = SequenceAttention(dim, heads)

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        seg = seg + self.cross(seg, key)
        out: Tensor = seg + self.attention(seg, context, context_mask)
        return out


class NoResidual(Variant):
    """`s1 = CrossAttn(s, k); s2 = SelfAttn(s1); s* = MLP(s2)`: full without any residual.

    With one KEY, SEG's state is not read (as in `Cross`).
    """

    uses_key, uses_context = True, True

    def __init__(
        self,
        dim: int,
        n_keys: int,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        key_in_context: bool = True,
    ) -> None:
        super().__init__()
        self.key_in_context = key_in_context
        self.cross = Attention(dim, heads, single=n_keys == 1)
        self.attention = SequenceAttention(dim, heads)
        self.mlp = mlp(dim, mlp_ratio)
        self.uses_seg = n_keys > 1

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        out: Tensor = self.mlp(self.attention(self.cross(seg, key), context, context_mask))
        return out


class Add(Variant):
    """`s* = s + mean(k)`. Control: KEY without any parameter of its own in the fusion."""

    uses_seg, uses_key, uses_context = True, True, False

    def __init__(self, dim: int, n_keys: int) -> None:
        super().__init__()

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        return seg + key.mean(dim=1)


class MatchedMlp(Variant):
    """`s* = s + MLP(s)`, as many parameters as `Full` has. Control: reads SEG's state alone.

    `match`: "all" = the model trains as many in all (up to one hidden unit): `beside` is how many
    KEY's and the context's projections have, which a variant that reads neither lacks. "fusion" =
    the fusions alone have as many.
    """

    uses_seg, uses_key, uses_context = True, False, False

    def __init__(
        self,
        dim: int,
        n_keys: int,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        match: str = "fusion",
        beside: int = 0,
    ) -> None:
        super().__init__()
        if match not in ("all", "fusion"):
            raise ValueError(f"fusion.match={match}: must be one of all, fusion")
        self.beside = beside if match == "all" else 0
        with torch.device("meta"):  # counts without drawing random numbers
            full = Full(dim, max(n_keys, 1), heads, mlp_ratio)
            wanted = self.beside + sum(p.numel() for p in full.parameters())
        hidden = round((wanted - dim) / (2 * dim + 1))  # of hidden * (2 C + 1) + C parameters
        self.mlp = mlp(dim, (hidden + 0.5) / dim)  # half a unit, for `mlp` rounds down

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        out: Tensor = seg + self.mlp(seg)
        return out


class DerangedKey(Full):
    """`Full` with the KEY of another expression of the split: another image, another category.

    Control for what KEY's state says of the expression at hand: the KEY that is read has the same
    distribution and is computed by the same weights, at every step, from its own image and
    question; but it names something else, somewhere else. Which one is fixed for the split
    (`keyseg.data.derangement`). No gradient flows into it: it could teach nothing but noise.
    """

    key_from = OTHER


class OracleKey(Full):
    """`Full` with the true keyword's embedding for KEY's state, zeros where none is known.

    Control: the most that naming the target can be worth, beside a SEG that is trained alike.
    """

    key_from = NAME


class RandomKey(Full):
    """`Full` with `k = r`, drawn once from N(0, 1) and never trained.

    Control: no KEY reaches the fusion; its position in the context is closed unless
    key_in_context=true. Without KEY in the answer there is one r.

    r is the same for every seed and expression: what cross-attention adds is then a learned
    constant for one KEY, and a learned function of SEG for several.
    """

    uses_key = False
    noise: Tensor

    def __init__(
        self,
        dim: int,
        n_keys: int,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        residual: str = "all",
        key_in_context: bool = True,
    ) -> None:
        n_keys = max(n_keys, 1)
        super().__init__(dim, n_keys, heads, mlp_ratio, residual, key_in_context)
        drawn = torch.randn(1, n_keys, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", drawn, persistent=False)

    def forward(self, seg: Tensor, key: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """See `FusionVariant`."""
        key = self.noise.to(seg.dtype).expand(len(seg), -1, -1)
        return super().forward(seg, key, context, context_mask)
