"""Points for the mask side: where image tokens are like SEG's state, and where not (READ).

Shapes: N masks, L tokens in a row, D hidden size, P = side x side image tokens, n points, C
channels of a prompt, H x W the image's own size. Points are (x, y). The image tokens show the
middle square of an image, as `model.clip_view=crop` has it.

Source: READ's public code (https://github.com/rui-qian/READ), settings of READ-7B by default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from keyseg.config import PointsConfig
from keyseg.data.prefix import Size
from keyseg.model.resample import resized

THIS, NOT_THIS, NEITHER = 1, 0, -1
"""What a point says; SAM's own numbers."""

_FINE = 336
"""Side of the picture of likeness on which points are moved, in pixels of the middle square."""

_NEAR = 10
"""Pixels around a point that can move it: further away the weight is below exp(-100)."""


class PointPrompts(nn.Module):
    """From the states of a language model to prompts."""

    def __init__(self, rule: PointsConfig, encoder: nn.Module, side: int) -> None:
        """`encoder`: of SAM, for points in its square of `side` pixels; stays as it is."""
        super().__init__()
        self.rule, self.side = rule, side
        self.encoder = encoder.requires_grad_(False)

    def forward(
        self,
        states: Tensor,
        image_tokens: Tensor,
        rows: Sequence[int],
        seg: Tensor,
        sizes: Sequence[Size],
    ) -> Tensor:
        """Prompts (N, n + 1, C), the last of them SAM's padding.

        Args:
            states: (B, L, D), of the rows of B images.
            image_tokens: bool (B, L), which of them are an image's.
            rows: of the N masks.
            seg: (N, D), the state that is read of SEG.
            sizes: of the B images.
        """
        with torch.autocast(states.device.type, enabled=False):
            prompts = []
            for row, own in zip(rows, seg.float(), strict=True):
                likeness = states[row][image_tokens[row]].float() @ own
                height, width = sizes[row]
                points, labels = points_of(likeness, (height, width), self.rule)
                high, wide = resized(height, width, self.side)
                scaled = points * points.new_tensor([wide / width, high / height])
                prompts.append(
                    self.encoder(points=(scaled[None], labels[None]), boxes=None, masks=None)[0]
                )
            return torch.cat(prompts)


def points_of(likeness: Tensor, size: Size, rule: PointsConfig) -> tuple[Tensor, Tensor]:
    """Points (n, 2) in pixels of the image, and what each says (n,).

    The likest places first, then the least like, then the rest in reading order, `rule.count` in
    all; each is moved a little towards what is like SEG around it.

    Args:
        likeness: (P,), of any scale.
        size: H, W.
        rule: see `PointsConfig`.
    """
    side = math.isqrt(len(likeness))
    grid = likeness.float().view(1, 1, side, side)
    coarse = _unit(_resized(grid, side // rule.pool, side // rule.pool))
    coarse = _placed(coarse, size, outside=-1.0)[0, 0]
    value = coarse.detach().flatten()
    this, not_this = value >= rule.above, (value >= 0) & (value <= rule.below)
    inside = [
        _by(this, -value),
        _by(not_this & ~this, value),
        _by((value >= 0) & ~this & ~not_this, torch.zeros_like(value)),
    ]
    chosen = torch.cat(inside)[: rule.count]
    labels = torch.full_like(chosen, NEITHER)
    labels[this[chosen]] = THIS
    labels[not_this[chosen]] = NOT_THIS
    height, width = size
    rows, columns = coarse.shape
    x = ((chosen % columns + 0.5) * (width / columns)).clamp(max=width - 1)
    y = ((chosen // columns + 0.5) * (height / rows)).clamp(max=height - 1)
    fine = _placed(_resized(_unit(grid), _FINE, _FINE), size, outside=0.0)
    return _moved(_resized(fine, height, width)[0, 0], torch.stack([x, y], -1).floor()), labels


def _by(these: Tensor, order: Tensor) -> Tensor:
    """Numbers of the places that are meant, by `order`."""
    places = these.nonzero().flatten()
    return places[order[places].argsort(stable=True)]


def _unit(values: Tensor) -> Tensor:
    """Between 0 and 1; 0 where all are the same."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def _resized(grid: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)


def _placed(square: Tensor, size: Size, outside: float) -> Tensor:
    """The middle square (1, 1, s, s) of an image with what it does not show."""
    side = square.shape[-1]
    scale = side / min(size)
    # READ rounds down, so that at some sizes a place is cut off; of one place nothing would be left
    least = -((side - 1) // 2)
    down, right = (max((int(length * scale) - side) // 2, least) for length in size)
    return F.pad(square, (right, right, down, down), value=outside)


def _moved(fine: Tensor, points: Tensor) -> Tensor:
    """Each point (n, 2) to the mean of the pixels (H, W) around it, weighted by
    exp(value - squared distance)."""
    height, width = fine.shape
    step = torch.arange(-_NEAR, _NEAR + 1, device=fine.device)
    dy, dx = torch.meshgrid(step, step, indexing="ij")
    x, y = (points[:, axis, None, None].long() + d for axis, d in ((0, dx), (1, dy)))
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    value = fine[y.clamp(0, height - 1), x.clamp(0, width - 1)] - (dx**2 + dy**2)
    weight = value.masked_fill(outside, -torch.inf).flatten(1).softmax(-1)
    return torch.stack([(weight * at.flatten(1)).sum(-1) for at in (x, y)], -1)
