"""What the model takes: token rows, what the frozen encoders saw, and the places of the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from keyseg.model.backbones.encoders import Features, Levels
from keyseg.model.packing import Packed


@dataclass(frozen=True)
class Elsewhere:
    """Where another expression's KEY is read for each of N expressions, in rows of their own.

    packed: B' token rows that end with KEY; language: levels (ΣP, W) of their images; rows (N,):
    which one; key_at (N, K): KEY's places in it.
    """

    packed: Packed
    language: Levels
    rows: Tensor
    key_at: Tensor

    def to(self, device: Any) -> Elsewhere:
        """The same on another device."""
        language = tuple(level.to(device) for level in self.language)
        rows, key_at = self.rows.to(device), self.key_at.to(device)
        return Elsewhere(self.packed.to(device), language, rows, key_at)


@dataclass(frozen=True)
class Exchanged:
    """States that are put in the place of the language model's own: key (N, K, D), seg (N, D)."""

    key: Tensor | None = None
    seg: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """B images with N masks to be drawn in all, in B rows of L tokens; K KEY tokens a mask.

    An expression asks for one mask, or for several that share its tokens.

    packed: token rows (B, L); features: what the frozen encoders see of the B images;
    image_of (N,): row of each mask's image; supervised (M,): positions in the flattened
    rows whose next token is part of an answer; key_at (N, K), seg_at (N,): places of the tokens in
    their row, below 0 where an answer lacks one.
    keyword_ids: sub-tokens of each keyword, may be empty; what a variant reads for which KEY is
    the true name. elsewhere: for a variant that is given another expression's KEY. exchanged: an
    intervention; all that reads KEY's or SEG's state after the language model reads these.
    """

    packed: Packed
    features: Features
    image_of: Tensor
    supervised: Tensor
    key_at: Tensor
    seg_at: Tensor
    keyword_ids: list[list[int]]
    elsewhere: Elsewhere | None = None
    exchanged: Exchanged | None = None
