"""Batches: images with several expressions each, as tensors.

Shapes: B images, E expressions, N masks in their answers (one each, but for queries that may have
several targets), L tokens in a row, M supervised positions, K KEY tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keyseg.data.example import Example
from keyseg.data.mix import ImageGroup
from keyseg.data.prompts import Conversation, Turn
from keyseg.model.backbones.encoders import Features, Levels
from keyseg.model.inputs import Elsewhere, Inputs
from keyseg.model.packing import pack

NO_LABEL = -100
"""Label of a position whose next token is not trained (torch's `ignore_index`)."""

MISSING = -1
"""Place of a token that an answer lacks."""


@dataclass(frozen=True, kw_only=True)
class Batch(Inputs):
    """Everything a step needs: what the model takes, and what it is to answer and draw.

    examples: E; owners: the number of the example that each of N masks is asked by, in order;
    rows: `image_of` as a list (reading a tensor back makes a GPU wait);
    labels (B, L): the next token where it is part of an answer, else NO_LABEL;
    masks: the targets, uint8 (H, W) in {0, 1, 255 = ignore}; target_owners: whose they are. Where
    answers are given they are as many as the answers' masks, in the same order. asked: whether each
    of N masks is trained: not that of an answer that rejects and has no SEG, nor, where an object
    score says that nothing is there, an empty one.
    """

    examples: list[Example]
    owners: list[int]
    rows: list[int]
    labels: Tensor
    masks: list[Tensor]
    target_owners: list[int]
    asked: list[bool]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image."""
        return self.features.sizes

    @property
    def example_rows(self) -> list[int]:
        """Row of each example's image."""
        return list(dict(zip(self.owners, self.rows, strict=True)).values())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on another device."""
        names = ("image_of", "packed", "labels", "supervised", "key_at", "seg_at", "features")
        moved: dict[str, Any] = {k: getattr(self, k).to(device) for k in names}
        if self.elsewhere is not None:
            moved["elsewhere"] = self.elsewhere.to(device)
        return replace(self, **moved, masks=[m.to(device) for m in self.masks])

    def pin_memory(self) -> Batch:
        """The same batch with its images and masks where a GPU can fetch them while it works."""
        masks = [m.pin_memory() for m in self.masks]
        return replace(self, features=self.features.pin_memory(), masks=masks)


@dataclass(frozen=True)
class Others:
    """Another expression for each, whose KEY it is given. of: by id; language: what the language
    side sees of images, and their sizes."""

    of: Mapping[str, Example]
    language: Callable[[Sequence[Path]], tuple[Levels, list[tuple[int, int]]]]


class Collator:
    """Turns image groups into batches."""

    def __init__(
        self,
        conversation: Conversation,
        features: Callable[[Sequence[Path]], Features],
        others: Others | None = None,
    ) -> None:
        """`features`: what the frozen encoders see of images; `others`: for a variant that is
        given another expression's KEY."""
        self.conversation = conversation
        self.features = features
        self.others = others

    def __call__(
        self, groups: Sequence[ImageGroup], rngs: Sequence[np.random.Generator] | None = None
    ) -> Batch:
        """Teacher-forced batch; an image's templates drawn with its own of `rngs`, else first."""
        draws = [None] * len(groups) if rngs is None else rngs
        turns = [
            [self.conversation.turn(e, rng) for e in g.examples]
            for g, rng in zip(groups, draws, strict=True)
        ]
        examples = [e for g in groups for e in g.examples]
        masks = [(n, torch.from_numpy(m)) for n, e in enumerate(examples) for m in e.masks()]
        features = self.features([g.image for g in groups])
        batch = Batch(
            examples=examples,
            features=features,
            masks=[mask for _, mask in masks],
            target_owners=[owner for owner, _ in masks],
            **self._asked(examples, turns, features.sizes),
        )
        rejects = [turn.rejects for of_image in turns for turn in of_image]
        if any(rejects):  # there is no KEY to name anything
            known = zip(batch.owners, batch.keyword_ids, strict=True)
            batch = replace(batch, keyword_ids=[[] if rejects[n] else ids for n, ids in known])
        if self.conversation.scored:
            there = [not examples[owner].no_target for owner in batch.owners]
            batch = replace(batch, asked=[a and b for a, b in zip(batch.asked, there, strict=True)])
        of_examples = batch.example_rows
        for owner, mask in masks:
            example, row = examples[owner], of_examples[owner]
            if tuple(mask.shape) != batch.sizes[row]:
                raise ValueError(
                    f"mask of {example.id} is {tuple(mask.shape)} (height, width), its image "
                    f"{example.image} is {batch.sizes[row]}: they do not belong together"
                )
        return batch

    def with_answers(self, batch: Batch, answers: Sequence[list[int]]) -> Batch:
        """The same batch with other answers (tokens), such as generated ones."""
        rows: list[list[Turn]] = [[] for _ in batch.sizes]
        talk = self.conversation
        for example, row, answer in zip(batch.examples, batch.example_rows, answers, strict=True):
            several = example.targets is not None
            rows[row].append(talk.read(talk.question(example), answer, several=several))
        counts = [len(turn.places) for of_image in rows for turn in of_image]
        if counts == [batch.owners.count(n) for n in range(len(counts))]:
            return replace(batch, **self._rows(rows, batch.sizes))
        return replace(batch, **self._asked(batch.examples, rows, batch.sizes))

    def _asked(
        self,
        examples: Sequence[Example],
        turns: Sequence[Sequence[Turn]],
        sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Any]:
        """What a batch says of its answers: of the tokens, and of each mask that they ask for.

        A mask's keyword is that of the target that comes as often in the data's own answer.
        """
        rows = [row for row, of_image in enumerate(turns) for _ in of_image]
        counts = [len(turn.places) for of_image in turns for turn in of_image]
        owners = [n for n, count in enumerate(counts) for _ in range(count)]
        numbers = [number for count in counts for number in range(count)]
        known = [[self.conversation.keyword_ids(k) for k in e.keywords()] for e in examples]
        of_masks = list(zip(owners, numbers, strict=True))
        return {
            "owners": owners,
            "rows": [rows[n] for n in owners],
            "image_of": torch.tensor([rows[n] for n in owners]),
            "keyword_ids": [known[n][k] if k < len(known[n]) else [] for n, k in of_masks],
            "elsewhere": self._elsewhere([(examples[n].id, k) for n, k in of_masks]),
            **self._rows(turns, sizes),
        }

    def _elsewhere(self, asked: Sequence[tuple[str, int]]) -> Elsewhere | None:
        """KEY of the others, each asked its own question; the first templates, up to KEY.

        asked: the id of an example and the number of the mask in its answer. Where the other has
        fewer, its last KEY is given.
        """
        if self.others is None:
            return None
        chosen = [(self.others.of[name], number) for name, number in asked]
        images = list(dict.fromkeys(e.image for e, _ in chosen))
        parts: list[list[list[int]]] = [[] for _ in images]
        rows, numbers, places = [], [], []
        for example, number in chosen:
            turn = self.conversation.turn(example)
            keys = turn.places[min(number, len(turn.places) - 1)].keys
            assert keys, "an answer without KEY has none to give"
            row = images.index(example.image)
            rows.append(row)
            numbers.append(len(parts[row]))
            places.append(keys)
            parts[row].append(turn.ids[: keys[-1] + 1])
        language, sizes = self.others.language(images)
        packed, starts = pack([self.conversation.prefix(s) for s in sizes], parts, self._pad())
        key_at = [
            [starts[row][number] + k for k in keys]
            for row, number, keys in zip(rows, numbers, places, strict=True)
        ]
        return Elsewhere(packed, language, torch.tensor(rows), torch.tensor(key_at))

    def _rows(
        self, turns: Sequence[Sequence[Turn]], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        talk = self.conversation
        packed, starts = pack(
            [talk.prefix(size) for size in sizes],
            [[t.ids for t in row] for row in turns],
            self._pad(),
        )
        labels = torch.full_like(packed.input_ids, NO_LABEL)
        key_at: list[list[int]] = []
        seg_at = []
        for row, (parts, begins) in enumerate(zip(turns, starts, strict=True)):
            for turn, begin in zip(parts, begins, strict=True):
                first, last = begin + turn.answer, begin + len(turn.ids)
                labels[row, first - 1 : last - 1] = packed.input_ids[row, first:last]
                missing = [MISSING] * talk.n_keys
                for keys, seg in turn.places:
                    key_at.append(missing if keys is None else [begin + k for k in keys])
                    seg_at.append(MISSING if seg is None else begin + seg)
        return {
            "packed": packed,
            "labels": labels,
            "supervised": (labels.flatten() >= 0).nonzero().flatten(),
            "key_at": torch.tensor(key_at, dtype=torch.long),
            "seg_at": torch.tensor(seg_at),
            "asked": [at != MISSING for at in seg_at],
        }

    def _pad(self) -> int:
        pad = self.conversation.tokenizer.pad_token_id
        return int(self.conversation.tokenizer.eos_token_id if pad is None else pad)
