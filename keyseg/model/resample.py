"""Between the grid of a mask decoder and an image's own pixels.

Shapes: N masks, S side of the square that the mask side sees, 4E side of the decoder's grid, H x W
the image's own size, h x w the part of the grid that is not padding.

SAM brings logits to S x S, cuts the padding off and brings the rest to H x W, bilinearly both
times (`Sam.postprocess_masks`). Both steps are linear along each axis, so together they are one
matrix for the rows and one for the columns, with at most a few weights in each of their rows:
the same numbers without the S x S pictures, several times faster, and no sum whose order a GPU
chooses (benchmarks/eval.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def resized(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width when the longest side becomes `side` (segment_anything's rounding)."""
    scale = side / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


class Frame(NamedTuple):
    """How an image fills the square that a mask side sees: `side` pixels, padded where an image is
    no square, or squashed to it."""

    side: int
    squash: bool = False

    def at(self, grid: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of a grid's part that shows the image; `grid` places a side."""
        if self.squash:
            return grid, grid
        shrink = self.side // grid
        high, wide = resized(height, width, self.side)
        return -(-high // shrink), -(-wide // shrink)


def to_original(logits: Tensor, frame: Frame, original: tuple[int, int]) -> Tensor:
    """(N, 4E, 4E) decoder logits -> (N, H, W) float32 at the image's own size."""
    rows, columns = _matrices(logits.shape[-1], frame, original, logits.device)
    with torch.autocast(logits.device.type, enabled=False):
        out: Tensor = rows @ logits.float() @ columns.T
    return out


def drawn(logits: Tensor, frame: Frame, original: tuple[int, int]) -> Tensor:
    """Masks at the image's own size, column by column: bool (N, W, H), logit > 0.

    The columns are what run lengths are made of. On a CPU the few weights of each row are summed
    mask by mask, which stays in its cache.
    """
    if logits.device.type != "cpu":
        return to_original(logits, frame, original).transpose(1, 2) > 0
    rows, columns = _weights(logits.shape[-1], frame, original)
    height, width = original
    out = torch.empty(len(logits), width, height, dtype=torch.bool)
    for mask, logit in zip(out, logits.float(), strict=True):
        high = _combine(logit, rows)  # (H, 4E)
        torch.gt(_combine(high.T.contiguous(), columns), 0, out=mask)
    return out


def at_decoder(logits: Tensor, targets: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Logits without padding and targets of their size: (N, 4E, 4E), (N, H, W) -> two (N, h, w).

    Targets keep their values (0, 1, 255): the nearest pixel's.
    """
    height, width = frame.at(logits.shape[-1], targets.shape[-2], targets.shape[-1])
    small = F.interpolate(targets[:, None], (height, width), mode="nearest-exact")[:, 0]
    return logits[:, :height, :width], small


@lru_cache(maxsize=512)  # images of a data set come in a few hundred sizes
def _matrices(
    grid: int, frame: Frame, original: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(H, 4E) and (W, 4E)."""
    large = torch.eye(grid)[None]  # one row a place of the grid; resized along the other axis
    kept = (grid, grid)
    if not frame.squash:  # there is nothing to cut off of a squashed one: one step, as SAM 2 does
        kept = resized(*original, frame.side)
        large = F.interpolate(large, frame.side, mode="linear", align_corners=False)
    rows, columns = (
        F.interpolate(large[..., :part], whole, mode="linear", align_corners=False)[0].T
        for part, whole in zip(kept, original, strict=True)
    )
    return rows.contiguous().to(device), columns.contiguous().to(device)


Weights = list[tuple[Tensor, Tensor]]
"""A few times the place (rows,) of an input row for each output row, and its weight (rows, 1)."""


@lru_cache(maxsize=512)
def _weights(grid: int, frame: Frame, original: tuple[int, int]) -> tuple[Weights, Weights]:
    """The weights of both matrices that are not 0."""

    def of(matrix: Tensor) -> Weights:
        most = int(matrix.count_nonzero(dim=1).max())
        values, places = matrix.topk(most, dim=1)
        return [(places[:, k].contiguous(), values[:, k, None].contiguous()) for k in range(most)]

    rows, columns = _matrices(grid, frame, original, torch.device("cpu"))
    return of(rows), of(columns)


def _combine(picture: Tensor, weights: Weights) -> Tensor:
    """Sums of weighted rows: (n, m) -> (rows, m)."""
    (first, weight), *others = weights
    out = picture.index_select(0, first).mul_(weight)
    for place, weight in others:
        out.addcmul_(picture.index_select(0, place), weight)
    return out
