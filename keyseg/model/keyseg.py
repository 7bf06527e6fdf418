"""The composition: a language side answers, fusion refines SEG by KEY, a mask side draws.

Pure: tensors in, named outputs out. No losses, no device calls, no modes.
Shapes: B images, N masks (one an expression, or several), L tokens in a row, M supervised
positions, K KEY tokens, P image tokens, D hidden size, C channels of a mask side's prompts, E side
of its embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from keyseg.model.fusion import NAME, OTHER, OWN
from keyseg.model.packing import PREFIX

if TYPE_CHECKING:
    from keyseg.model.backbones.sides import Drawn
    from keyseg.model.backbones.vlm import Vlm
    from keyseg.model.fusion import FusionVariant
    from keyseg.model.inputs import Inputs
    from keyseg.model.points import PointPrompts
    from keyseg.model.resample import Frame


@dataclass(frozen=True)
class Output:
    """text_logits (M, V) at the labelled positions, in row order; key_query (N, K, D), to be set
    against the vocabulary table (V, D), (N, 0, D) without KEY; mask_logits (N, 4E, 4E) of the
    decoder; predicted_iou (N,), its own judgement of the mask: measured, never trained;
    object_logits (N,), its score of whether something is there, where the mask side has one."""

    text_logits: Tensor
    key_query: Tensor
    table: Tensor
    mask_logits: Tensor
    predicted_iou: Tensor
    object_logits: Tensor | None = None


class KeywordHead(nn.Module):
    """`W h_key`, to be set against a vocabulary table (paper 3.4).

    W starts as the identity: before training, KEY's words are what the language model itself
    would say next. With the table trained, it is a copy of the language model's. `projected`, D ->
    C: takes the place of W for a table that is projected to C channels (released).
    """

    def __init__(
        self, table: Tensor, *, train_table: bool, projected: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.project: nn.Module
        if projected is None:
            self.project = eye = nn.Linear(table.shape[1], table.shape[1], bias=False)
            nn.init.eye_(eye.weight)
        else:
            self.project = projected
        if train_table:
            self.table: Tensor = nn.Parameter(table.clone())
        else:
            self.register_buffer("table", table, persistent=False)

    def forward(self, key_states: Tensor) -> Tensor:
        """(..., D) -> (..., width of the table)."""
        out: Tensor = self.project(key_states)
        return out


def projection(width: int, dim: int, layers: int) -> nn.Sequential:
    """D -> D -> ... -> C with ReLU between (LISA has two layers)."""
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, dim))


def random_projection(table: Tensor, dim: int, seed: int) -> Tensor:
    """(V, D) -> (V, C) by a matrix that is drawn once for a seed and never trained."""
    drawn = torch.randn(table.shape[1], dim, generator=torch.Generator().manual_seed(seed))
    matrix = drawn.to(table.device) / math.sqrt(table.shape[1])
    return table.float() @ matrix


class KeySeg(nn.Module):
    """Frozen: the language model's own weights, prompt and image encoders. Trained: the rest.

    What the two image encoders see comes with the batch (`keyseg.model.backbones.encoders`).
    """

    def __init__(
        self,
        vlm: Vlm,
        mask_head: Any,
        fusion: FusionVariant,
        *,
        n_keys: int,
        projection_layers: int,
        previous_state: bool,
        table: str,
        shared_projection: bool = False,
        points: PointPrompts | None = None,
        seed: int = 0,
    ) -> None:
        """`previous_state`: read the state before a token instead of the token's own (LISA).

        `n_keys`: KEY tokens an answer; 0 = there is none, and so no keyword head. `table`: of the
        keywords, "frozen", "trained", "projected" (with `seed`), or so and its "own", trained.
        `shared_projection`: SEG and KEY have one. `points`: stand before SEG in a mask's prompt.
        """
        super().__init__()
        self.vlm = vlm
        self.mask_head = mask_head
        self.fusion = fusion
        self.shift = int(previous_state)
        self.points = points
        words = vlm.table()
        width, self.dim = words.shape[1], int(self.mask_head.channels)
        dim = self.dim
        self.seg_projection = projection(width, dim, projection_layers) if fusion.uses_seg else None
        self.key_projection = self.seg_projection if shared_projection else None
        if fusion.uses_key and self.key_projection is None:
            self.key_projection = projection(width, dim, projection_layers)
        if not fusion.uses_key:
            self.key_projection = None
        self.context_projection = nn.Linear(width, dim) if fusion.uses_context else None
        self.keyword_head = None
        if n_keys and table in ("projected", "own"):
            shared = (self.seg_projection or self.key_projection) if shared_projection else None
            self.keyword_head = KeywordHead(
                random_projection(words, dim, seed),
                train_table=table == "own",
                projected=shared or projection(width, dim, projection_layers),
            )
        elif n_keys:  # with all rows trained the pre-trained table is another one
            kept = words.clone() if vlm.whole_tables else words
            self.keyword_head = KeywordHead(kept, train_table=table == "trained")

    @property
    def frame(self) -> Frame:
        """Where in the square that mask logits cover an image is."""
        frame: Frame = self.mask_head.frame
        return frame

    @property
    def needs_key(self) -> bool:
        """Whether a mask cannot be drawn where an answer lacks KEY."""
        return self.fusion.uses_key and self.fusion.key_from == OWN

    def forward(self, inputs: Inputs) -> Output:
        """Expressions whose answer lacks a token are computed from its row's first state."""
        states = self.vlm(inputs.packed, inputs.features.language)
        text_logits = self.vlm.logits(states.flatten(0, 1)[inputs.supervised])
        if inputs.exchanged is not None:
            states = self._exchange(inputs, states)
        rows = inputs.image_of
        seg_at = (inputs.seg_at - self.shift).clamp(min=0)
        key_at = (inputs.key_at - self.shift).clamp(min=0)
        key_states = states[rows[:, None], key_at]
        prompt = self._prompt(inputs, states, rows, seg_at, key_states)
        seen = tuple(level[rows] for level in inputs.features.mask)
        prompts = prompt[:, None]
        if self.points is not None:
            places = self._points(inputs, states, seg_at)
            prompts = torch.cat([places.to(prompts.dtype), prompts], dim=1)
        drawn: Drawn = self.mask_head(seen, prompts)
        head = self.keyword_head
        return Output(
            text_logits=text_logits,
            key_query=key_states if head is None else head(key_states),
            table=self.vlm.table() if head is None else head.table,
            mask_logits=drawn.logits,
            predicted_iou=drawn.iou,
            object_logits=drawn.objects,
        )

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What is read of KEY (N, K, D) and SEG (N, D); of any state where an answer lacks one."""
        states, rows = self.vlm(inputs.packed, inputs.features.language), inputs.image_of
        key_at, seg_at = ((at - self.shift).clamp(min=0) for at in (inputs.key_at, inputs.seg_at))
        return states[rows[:, None], key_at], states[rows, seg_at]

    def _exchange(self, inputs: Inputs, states: Tensor) -> Tensor:
        """The states with others where KEY's and SEG's are read, where there are such tokens."""
        assert inputs.exchanged is not None
        key, seg = inputs.exchanged.key, inputs.exchanged.seg
        states = states.clone()
        for at, given in (
            (inputs.key_at, key),
            (inputs.seg_at[:, None], None if seg is None else seg[:, None]),
        ):
            if given is not None:
                there = at >= 0
                rows = inputs.image_of[:, None].expand_as(at)[there]
                states[rows, at[there] - self.shift] = given[there].to(states.dtype)
        return states

    def _prompt(
        self, inputs: Inputs, states: Tensor, rows: Tensor, seg_at: Tensor, key_states: Tensor
    ) -> Tensor:
        """The refined SEG (N, C)."""
        n = len(rows)
        nothing = states.new_zeros(n, 0, self.dim)
        seg, key, context = nothing.sum(1), nothing, nothing
        mask = torch.zeros(n, 0, dtype=torch.bool, device=states.device)
        if self.seg_projection is not None:
            seg = self.seg_projection(states[rows, seg_at])
        if self.key_projection is not None:
            key = self.key_projection(self._given_for_key(inputs, key_states))
        if self.context_projection is not None:
            context = self.context_projection(states)[rows]
            mask = context_mask(inputs.packed.segments, rows, seg_at)
            if not self.fusion.key_in_context:
                mask = without(mask, torch.cat([inputs.key_at, inputs.key_at - self.shift], 1))
        return self.fusion(seg, key, context, mask)

    def _points(self, inputs: Inputs, states: Tensor, seg_at: Tensor) -> Tensor:
        """Prompts (N, n, C) of the points that SEG's state asks for."""
        assert self.points is not None
        image_tokens = inputs.packed.input_ids == self.vlm.image_token
        seg, rows = states[inputs.image_of, seg_at], inputs.image_of.tolist()
        points: Tensor = self.points(states, image_tokens, rows, seg, inputs.features.sizes)
        return points

    def _given_for_key(self, inputs: Inputs, own: Tensor) -> Tensor:
        """What the fusion gets for KEY (N, K, D); `own` is the state of the answer's KEY."""
        if self.fusion.key_from == OTHER:
            other = inputs.elsewhere
            assert other is not None, "a variant that is given another's KEY needs a split"
            with torch.no_grad():
                states: Tensor = self.vlm(other.packed, other.language)
            return states[other.rows[:, None], other.key_at - self.shift].to(own.dtype)
        if self.fusion.key_from == NAME:
            table = self.vlm.table().to(own.dtype)
            return names(table, inputs.keyword_ids)[:, None].expand_as(own)
        return own


def names(table: Tensor, keywords: Sequence[Sequence[int]]) -> Tensor:
    """(N, D): mean of each keyword's rows of the table (V, D); zeros where there is none."""
    none = table.new_zeros(table.shape[1])
    return torch.stack([table[list(ids)].mean(dim=0) if ids else none for ids in keywords])


def context_mask(segments: Tensor, rows: Tensor, seg_at: Tensor) -> Tensor:
    """(N, L): the shared prefix and the expression's own tokens before SEG.

    Later tokens name the target: under teacher forcing they would leak it.
    """
    mine = segments[rows]
    place = torch.arange(segments.shape[1], device=segments.device)
    own = mine.gather(1, seg_at[:, None])
    return ((mine == PREFIX) | (mine == own)) & (place < seg_at[:, None])


def without(mask: Tensor, places: Tensor) -> Tensor:
    """A context mask (N, L) without each expression's places (N, K); below 0 is nowhere.

    Closed are KEY's own position and, where it is another, the one whose state is read for it. What
    KEY does inside the language model stays: states after it have seen it by causal attention.
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    return mask & (place != places[..., None]).all(dim=1)
