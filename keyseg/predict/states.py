"""A token's states over a split, and what each may be replaced by.

Shapes: N expressions, K KEY tokens (one where it is SEG), D hidden size.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from keyseg.config import ConfigError
from keyseg.data.derangement import derangement
from keyseg.data.example import Example
from keyseg.data.relatives import relatives
from keyseg.runs.interventions import REPLACEMENTS


@dataclass
class States:
    """A token's states by example, (K, D) or (1, D), on the CPU; none where an answer lacks it.

    `words`: what KEY says, by example; `wrong`: the examples for which that is not the keyword.
    """

    examples: Sequence[Example]
    of: dict[str, Tensor] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)

    def replaced(self, kind: str) -> dict[str, Tensor]:
        """By example, what its state is replaced by: `keyseg.runs.interventions.REPLACEMENTS`.

        Without the examples that have no such state.

        Raises:
            ConfigError: no answer holds the token, or no example has such a state.
            DataError: no other image to swap with.
        """
        if not self.of:
            raise ConfigError("no answer holds the token: there is no state to replace")
        every = torch.stack(list(self.of.values()))
        mean, spread = every.mean(dim=0), every.std(dim=0)
        names = [e.id for e in self.examples]
        if kind == "swap":
            others = derangement(self.examples)
            return {name: self.of.get(others[name].id, mean) for name in names}
        if kind == "zero":
            return {name: torch.zeros_like(mean) for name in names}
        if kind == "mean":
            return dict.fromkeys(names, mean)
        if kind == "noise":
            return {name: mean + spread * _noise(name, mean) for name in names}
        if kind == "oracle":
            means = self._by_keyword()
            own = {e.id: means.elsewhere(e.keyword, e.image_id) for e in self.examples}
            return {name: mean if state is None else state for name, state in own.items()}
        if kind == "renamed":
            states = self._renamed()
        elif kind == "corrected":
            states = self._corrected()
        else:
            states = self._of_relatives(kind)
        if not states:
            raise ConfigError(f"{kind}: no expression of this split has {REPLACEMENTS[kind]}")
        return states

    def _of_relatives(self, relation: str) -> dict[str, Tensor]:
        others = relatives(self.examples, relation)
        return {e: self.of[o.id] for e, o in others.items() if {e, o.id} <= self.of.keys()}

    def _renamed(self) -> dict[str, Tensor]:
        """The thing stays, the name is another."""
        others, means = derangement(self.examples), self._by_keyword()
        return self._moved(
            (e, means.elsewhere(e.keyword, e.image_id), means.elsewhere(other.keyword, e.image_id))
            for e in self.examples
            if (other := others[e.id]).keyword != e.keyword
        )

    def _corrected(self) -> dict[str, Tensor]:
        """The thing stays, the name becomes the right one."""
        said = _Means(
            (self.words[e.id], e.image_id, self.of[e.id])
            for e in self.examples
            if e.id in self.words and e.id in self.of
        )
        means = self._by_keyword()
        return self._moved(
            (
                e,
                said.elsewhere(self.words.get(e.id), e.image_id),
                means.elsewhere(e.keyword, e.image_id),
            )
            for e in self.examples
            if e.id in self.wrong
        )

    def _moved(
        self, steps: Iterable[tuple[Example, Tensor | None, Tensor | None]]
    ) -> dict[str, Tensor]:
        """The own state of each, from the one mean to the other; where there are all three."""
        return {
            e.id: self.of[e.id] - old + new
            for e, old, new in steps
            if e.id in self.of and old is not None and new is not None
        }

    def _by_keyword(self) -> _Means:
        return _Means(
            (e.keyword, e.image_id, self.of[e.id])
            for e in self.examples
            if e.keyword is not None and e.id in self.of
        )


class _Means:
    """Means of the states of a name, those of an image left out."""

    def __init__(self, named: Iterable[tuple[str, str, Tensor]]) -> None:
        """`named`: of each state its name and its image."""
        self._sums: dict[tuple[str, str | None], Tensor] = {}
        self._counts: Counter[tuple[str, str | None]] = Counter()
        for name, image, state in named:
            for key in ((name, None), (name, image)):
                self._sums[key] = self._sums[key] + state if key in self._sums else state.clone()
                self._counts[key] += 1

    def elsewhere(self, name: str | None, image: str) -> Tensor | None:
        """The mean of a name over the other images; None where there is none."""
        if name is None or not (left := self._counts[name, None] - self._counts[name, image]):
            return None
        here = self._sums.get((name, image))
        total = self._sums[name, None]
        return (total if here is None else total - here) / left


def _noise(name: str, like: Tensor) -> Tensor:
    """Of an example: the same whatever is read with it."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
