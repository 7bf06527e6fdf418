"""Which variant is held against which: the contrasts that a design declares.

An entry of `contrasts` is `{of: {factor: value}, against: {factor: value}, name: text}`; factors
that it does not name are held equal, so that `{of: {weight: 0.5}, against: {weight: 0}}` is one
contrast for every value of the other factors. Without entries every variant is held against the
baseline. The steps of a declared `path` are contrasts too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from keyseg.report.store import Sweep, VariantResult


@dataclass(frozen=True)
class Contrast:
    """`of` minus `against`."""

    name: str
    of: VariantResult
    against: VariantResult

    @property
    def open(self) -> bool:
        """Whether one of the two has no results yet, so that nothing can be said."""
        return not (self.of.finished and self.against.finished)

    @property
    def asks_key(self) -> bool:
        """Whether answers of both sides hold KEY; else its measures have no difference."""
        return self.of.key_asked and self.against.key_asked

    @property
    def shared_seeds(self) -> set[int]:
        """Seeds that both have finished."""
        return {c.seed for c in self.of.finished} & {c.seed for c in self.against.finished}

    @property
    def lacking(self) -> str:
        """Cells of both variants without results: "2 cells queued, 1 failed"; "" without any."""
        cells = [c for v in (self.against, self.of) for c in v.cells if c not in v.finished]
        states = Counter("without samples" if c.status == "done" else c.status for c in cells)
        told = [f"{n} {state}" for state, n in states.most_common()]
        if not told:
            return ""
        count, _, rest = told[0].partition(" ")
        return ", ".join([f"{count} {'cell' if count == '1' else 'cells'} {rest}", *told[1:]])

    def hole(self, seeds: int) -> str:
        """What a result from so many common seeds lacks of the design; "" where nothing."""
        common = {c.seed for c in self.of.cells} & {c.seed for c in self.against.cells}
        if self.open or seeds == 0:
            return self.lacking or "no examples in common"
        if not self.shared_seeds:  # paired all the same, but chance is not shared
            cells = zip(self.of.finished, self.against.finished, strict=False)
            pairs = ", ".join(f"{a.seed} with {b.seed}" for a, b in cells)
            told = f"no seed in common, paired: {pairs}"
            return f"{told}; {self.lacking}" if self.lacking else told
        if seeds >= len(common) or not self.lacking:
            return ""
        return f"{seeds} of {len(common)} seeds: {self.lacking}"


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Every contrast of the design, in its order, then steps of its path that are none of them.

    [] where there is nothing to hold against.
    """
    entries = sweep.design.get("contrasts") or []
    found = [c for entry in entries for c in _expand(sweep, entry)]
    if not entries and sweep.baseline is not None:
        base = sweep.baseline
        found = [
            Contrast(f"{v.label} − {base.label}", v, base) for v in sweep.variants if v is not base
        ]
    known = {(c.of.label, c.against.label) for c in found}
    steps = (pair for pair in pairwise(path(sweep)) if (pair[1].label, pair[0].label) not in known)
    return found + [Contrast(f"{of.label} − {base.label}", of, base) for base, of in steps]


def path(sweep: Sweep) -> list[VariantResult]:
    """The declared way from the baseline to the whole, one change a step; [] without one.

    An entry `{factor: value}` changes one factor of the variant before it. The way ends before a
    variant that the sweep does not have.
    """
    if sweep.baseline is None:
        return []
    way = [sweep.baseline]
    asked = sweep.design.get("baseline")
    wanted = {**(asked if isinstance(asked, Mapping) else {}), **sweep.baseline.factors}
    for step in sweep.design.get("path") or []:
        wanted |= step
        found = next((v for v in sweep.variants if v.matches(wanted)), None)
        if found is None:
            break
        way.append(found)
    return way if len(way) > 1 else []


def _expand(sweep: Sweep, entry: Mapping[str, Any]) -> Iterator[Contrast]:
    of, against = dict(entry["of"]), dict(entry["against"])
    named = {*of, *against}
    for variant in sweep.variants:
        if not variant.matches(of):
            continue
        rest = {k: v for k, v in variant.factors.items() if k not in named}
        for other in sweep.variants:
            if other is not variant and other.matches({**rest, **against}):
                title = f"{variant.label} − {other.label}"
                about = f"{entry['name']}: " if entry.get("name") else ""
                yield Contrast(about + title, variant, other)
