"""The test split read again by a trained model, with KEY's or SEG's state replaced.

The causal question about a model that is done: does the mask follow what KEY says? The language
model works as it was trained; what it hands on at KEY's (SEG's) place is exchanged, for all that
reads it afterwards: the fusion's `key` (`seg`), the context, the keyword head. What KEY does inside
the language model, by causal attention, stays.

Shapes: N expressions, K KEY tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from keyseg.config import ConfigError, RunConfig
from keyseg.data.mix import ImageGroup
from keyseg.model.inputs import Exchanged
from keyseg.predict.states import States
from keyseg.runs.interventions import Intervention
from keyseg.train.batch import MISSING, Batch
from keyseg.train.build import Parts
from keyseg.train.evaluate import Record, answers_of, as_asked, evaluate_batches, in_order


class Reading:
    """A split under one protocol: read once as it is, then as often as there are interventions."""

    def __init__(
        self, parts: Parts, groups: Sequence[ImageGroup], cfg: RunConfig, protocol: str
    ) -> None:
        """Raises ConfigError where a query may have several targets, with a KEY and SEG each."""
        self.parts, self.groups, self.cfg, self.protocol = parts, groups, cfg, protocol
        examples = [e for g in groups for e in g.examples]
        if several := next((e.id for e in examples if e.targets is not None), None):
            raise ConfigError(
                f"{several} may have several targets: an intervention exchanges the one KEY or SEG "
                "of an answer; set data.targets=union"
            )
        self.states = {"key": States(examples), "seg": States(examples)}
        self._answers: dict[str, list[int]] = {}

    def untouched(self) -> list[Record]:
        """Records of the model as it is; keeps its states, answers and words."""
        records = self._records(self._kept)
        for states in self.states.values():
            for r in records:
                if r["predicted_keyword"]:
                    states.words[r["id"]] = r["predicted_keyword"]
                if r["keyword_rank"] > 0:
                    states.wrong.add(r["id"])
        return records

    def under(self, intervention: Intervention) -> list[Record]:
        """Records with one token's state replaced, of the examples that have another's.

        After `untouched`. All expressions of an image are read together; those without another's
        keep their own state.
        """
        states = self.states[intervention.token].replaced(intervention.kind)
        records = self._records(partial(self._exchanged, intervention.token, states))
        return [r for r in records if r["id"] in states]

    def _records(self, answered: Callable[[Batch], Batch]) -> list[Record]:
        made = evaluate_batches(self.parts, self.groups, self.cfg, self.protocol, answered=answered)
        return in_order(_flat(made), self.groups)

    def _kept(self, batch: Batch) -> Batch:
        batch = as_asked(self.parts, batch, self.cfg, self.protocol)
        key, seg = self.parts.model.token_states(batch)
        has_key = (batch.key_at != MISSING).all(dim=1).tolist()
        has_seg = (batch.seg_at != MISSING).tolist()
        answers = answers_of(batch)
        for n, example in enumerate(batch.examples):
            self._answers[example.id] = answers[n]
            if has_key[n]:
                self.states["key"].of[example.id] = key[n].float().cpu()
            if has_seg[n]:
                self.states["seg"].of[example.id] = seg[n : n + 1].float().cpu()
        return batch

    def _exchanged(self, token: str, states: Mapping[str, Tensor], batch: Batch) -> Batch:
        device = batch.labels.device
        answers = [self._answers[e.id] for e in batch.examples]
        batch = self.parts.collator.with_answers(batch, answers).to(device)
        own = self.states[token].of
        unread = next(iter(states.values()))  # where an answer lacks the token
        given = [states.get(e.id, own.get(e.id, unread)) for e in batch.examples]
        state = torch.stack(given).to(device)
        exchanged = Exchanged(key=state) if token == "key" else Exchanged(seg=state[:, 0])
        return replace(batch, exchanged=exchanged)


def _flat(made: Iterator[tuple[int, list[Record]]]) -> Iterator[Record]:
    for _, records in made:
        yield from records


def mean_iou(records: Sequence[Record]) -> float:
    """gIoU of some records."""
    return float(np.mean([r["iou"] for r in records]))
