"""Several token sequences behind one shared prefix, in one row: `[prefix][expr 1][expr 2] ...`.

Shapes: B images, L tokens in a row (padded), N expressions in the batch.
A row's `segments` say who may see whom: 0 is the prefix, 1.. an expression, -1 padding. Positions
restart after the prefix for each expression, so that every expression sees exactly what it would
see alone: the arrangement changes the cost, not the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from keyseg.data.prefix import Prefix

PREFIX = 0
PADDING = -1


@dataclass(frozen=True)
class Packed:
    """Token rows. input_ids, segments: (B, L) int64; positions: (B, L), or (3, B, L) where a
    language model turns image tokens by time, height and width."""

    input_ids: Tensor
    positions: Tensor
    segments: Tensor

    def to(self, device: torch.device | str) -> Packed:
        """The same rows on another device."""
        move = (t.to(device) for t in (self.input_ids, self.positions, self.segments))
        return Packed(*move)

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """Additive mask (B, 1, L, L): causal, and closed between expressions.

        A padding position sees itself only, so that no softmax is over nothing.
        """
        seg = self.segments
        length = seg.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=seg.device).tril()
        same = seg[:, :, None] == seg[:, None, :]
        prefix = (seg == PREFIX)[:, None, :]
        real = (seg != PADDING)[:, :, None] & (seg != PADDING)[:, None, :]
        itself = torch.eye(length, dtype=torch.bool, device=seg.device)
        visible = (causal & (same | prefix) & real) | itself
        mask = torch.zeros(visible.shape, dtype=dtype, device=seg.device)
        return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def pack(
    prefixes: Sequence[Prefix],
    expressions: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    multiple: int = 1,
) -> tuple[Packed, list[list[int]]]:
    """Lay out rows; also return where each expression starts in its row.

    Args:
        prefixes: one for each of B images.
        expressions: for each image the token lists of its expressions.
        pad_id: fills rows to the length of the longest.
        multiple: of which that length is rounded up (few shapes, for torch.compile).
    """
    rows: list[tuple[list[int], list[int], list[list[int]]]] = []
    starts: list[list[int]] = []
    for prefix, parts in zip(prefixes, expressions, strict=True):
        ids, segments = list(prefix.ids), [PREFIX] * len(prefix.ids)
        positions = [list(axis) for axis in prefix.positions]
        begin = []
        for number, part in enumerate(parts, start=1):
            begin.append(len(ids))
            ids += part
            segments += [number] * len(part)
            for axis in positions:
                axis += range(prefix.end, prefix.end + len(part))
        rows.append((ids, segments, positions))
        starts.append(begin)
    longest = max(len(ids) for ids, _, _ in rows)
    length = -(-longest // multiple) * multiple

    def filled(values: Sequence[list[int]], fill: int) -> Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in values])

    axes = [filled(axis, 0) for axis in zip(*(axes for _, _, axes in rows), strict=True)]
    packed = Packed(
        input_ids=filled([ids for ids, _, _ in rows], pad_id),
        positions=axes[0] if len(axes) == 1 else torch.stack(axes),
        segments=filled([segments for _, segments, _ in rows], PADDING),
    )
    return packed, starts
