"""What the model takes: token rows, what the frozen encoders saw, and the places of the tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from keyseg.model.backbones.encoders import Features
from keyseg.model.packing import Packed


@dataclass(frozen=True)
class Inputs:
    """B images with N expressions in all, in B rows of L tokens; K KEY tokens an expression.

    packed: token rows (B, L); features: what the frozen encoders see of the B images;
    image_of (N,): row of each expression's image; supervised (M,): positions in the flattened
    rows whose next token is part of an answer; key_at (N, K), seg_at (N,): places of the tokens in
    their row, below 0 where an answer lacks one.
    """

    packed: Packed
    features: Features
    image_of: Tensor
    supervised: Tensor
    key_at: Tensor
    seg_at: Tensor
