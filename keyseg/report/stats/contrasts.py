"""Which variant is held against which: the contrasts that a design declares.

An entry of `contrasts` is one of

- `{of: {factor: value}, against: {factor: value}, name: text}`; factors that it does not name are
  held equal, so that `{of: {weight: 0.5}, against: {weight: 0}}` is one contrast for every value of
  the other factors;
- `{main: factor}`, its main effect: every value against the baseline's, mean over the others;
- `{interaction: [factor, factor]}`, a difference of differences: what the first one's change is
  worth at a value of the second, less what it is worth at the baseline's (at the first value
  there is, where the baseline lacks the other factor).

Without entries every variant is held against the baseline, where budgets vary (`optim.steps`)
against that of its own budget. The steps of a declared `path` are contrasts too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from keyseg.report.store import Sweep, VariantResult
from keyseg.runs.drops import BUDGET
from keyseg.runs.factors import compared
from keyseg.runs.sweep_directory import short_key

Pair = tuple[VariantResult, VariantResult]
"""A variant, and what it is held against."""


@dataclass(frozen=True)
class Contrast:
    """`of` minus `against`; with `more` pairs `factor` times the mean of all differences."""

    name: str
    of: VariantResult
    against: VariantResult
    more: tuple[Pair, ...] = ()
    factor: float = 1.0

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs."""
        return ((self.of, self.against), *self.more)

    @property
    def plain(self) -> bool:
        """Whether it is one variant against another."""
        return not self.more

    @property
    def weights(self) -> dict[str, float]:
        """With which weight each variant enters, by its label."""
        share = self.factor / len(self.pairs)
        weights: dict[str, float] = defaultdict(float)
        for of, against in self.pairs:
            weights[of.label] += share
            weights[against.label] -= share
        return dict(weights)

    @property
    def variants(self) -> tuple[VariantResult, ...]:
        """Its variants, each once."""
        return tuple({v.label: v for pair in self.pairs for v in pair}.values())

    @property
    def open(self) -> bool:
        """Whether a variant has no results yet, so that nothing can be said."""
        return not all(v.finished for v in self.variants)

    @property
    def asks_key(self) -> bool:
        """Whether answers of both sides hold KEY; else its measures have no difference."""
        return all(v.key_asked for v in self.variants)

    @property
    def seeded(self) -> tuple[VariantResult, ...]:
        """The variants whose seeds are paired; one training of another system goes with any."""
        return tuple(v for v in self.variants if not v.fixed) or self.variants

    @property
    def shared_seeds(self) -> set[int]:
        """Seeds that all of its variants have finished."""
        return set.intersection(*({c.seed for c in v.finished} for v in self.seeded))

    @property
    def lacking(self) -> str:
        """Cells of its variants without results: "2 cells queued, 1 failed"; "" without any."""
        variants = sorted(self.variants, key=lambda v: v is self.of)  # what is held against first
        cells = [c for v in variants for c in v.cells if c not in v.finished]
        states = Counter("without samples" if c.status == "done" else c.status for c in cells)
        counts = [f"{n} {state}" for state, n in states.most_common()]
        if not counts:
            return ""
        count, _, rest = counts[0].partition(" ")
        return ", ".join([f"{count} {'cell' if count == '1' else 'cells'} {rest}", *counts[1:]])

    def hole(self, seeds: int) -> str:
        """What a result from so many common seeds lacks of the design; "" where nothing."""
        common = set.intersection(*({c.seed for c in v.cells} for v in self.seeded))
        if self.open or seeds == 0:
            return self.lacking or "no examples in common"
        if not self.shared_seeds:  # paired all the same, but chance is not shared
            cells = zip(self.of.finished, self.against.finished, strict=False)
            pairs = ", ".join(f"{a.seed} with {b.seed}" for a, b in cells)
            pairing = f"no seed in common, paired: {pairs}"
            return f"{pairing}; {self.lacking}" if self.lacking else pairing
        if seeds >= len(common) or not self.lacking:
            return ""
        return f"{seeds} of {len(common)} seeds: {self.lacking}"


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Every contrast of the design, in its order, then steps of its path that are none of them.

    [] where there is nothing to hold against.
    """
    entries = sweep.design.get("contrasts") or []
    declared = [c for entry in entries for c in _expand(sweep, entry)]
    if not entries and sweep.baseline is not None:
        declared = list(_against_baseline(sweep, sweep.baseline))
    known = {(c.of.label, c.against.label) for c in declared if c.plain}
    steps = (pair for pair in pairwise(path(sweep)) if (pair[1].label, pair[0].label) not in known)
    return declared + [Contrast(f"{of.label} − {base.label}", of, base) for base, of in steps]


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
        variant = next((v for v in sweep.variants if v.matches(wanted)), None)
        if variant is None:
            break
        way.append(variant)
    return way if len(way) > 1 else []


def _against_baseline(sweep: Sweep, baseline: VariantResult) -> Iterator[Contrast]:
    """Every variant against the baseline of its budget; that, against the baseline."""
    for variant in sweep.variants:
        steps = {BUDGET: variant.factors[BUDGET]} if BUDGET in variant.factors else {}
        own = _at(sweep, baseline, steps) or baseline
        against = baseline if own is variant else own
        if against is not variant:
            yield Contrast(f"{variant.label} − {against.label}", variant, against)


def _expand(sweep: Sweep, entry: Mapping[str, Any]) -> Iterator[Contrast]:
    about = f"{entry['name']}: " if entry.get("name") else ""
    if "main" in entry:
        yield from _main(sweep, str(entry["main"]), about)
    elif "interaction" in entry:
        yield from _interaction(sweep, list(map(str, entry["interaction"])), about)
    else:
        yield from _differences(sweep, dict(entry["of"]), dict(entry["against"]), about)


def _differences(
    sweep: Sweep, of: dict[str, Any], against: dict[str, Any], about: str
) -> Iterator[Contrast]:
    variants = sweep.variants
    for i, j in compared(of, against, [v.factors for v in variants]):
        yield Contrast(
            f"{about}{variants[i].label} − {variants[j].label}", variants[i], variants[j]
        )


def _main(sweep: Sweep, key: str, about: str) -> Iterator[Contrast]:
    base, others = _levels(sweep, key, sweep.variants)
    for level in others:
        pairs = [
            (variant, partner)
            for variant in sweep.variants
            if str(variant.factors.get(key)) == level
            and (partner := _at(sweep, variant, {key: base}))
        ]
        if pairs:
            name = f"{about}main effect of {short_key(key)}, {level} − {base}"
            yield Contrast(name, *pairs[0], tuple(pairs[1:]))


def _interaction(sweep: Sweep, keys: Sequence[str], about: str) -> Iterator[Contrast]:
    """The pairs of a difference of differences: (both changed, one) and (none, the other)."""
    first, second = keys
    crossed = [v for v in sweep.variants if v.factors.keys() >= {*keys}]
    (a, changed), (b, where) = (_levels(sweep, key, crossed) for key in keys)
    for one in changed:
        for other in where:
            pairs: list[Pair] = []
            for whole in sweep.variants:
                if [str(whole.factors.get(key)) for key in keys] != [one, other]:
                    continue
                corners = ({first: a}, {first: a, second: b}, {second: b})
                variants = [_at(sweep, whole, corner) for corner in corners]
                known = [variant for variant in variants if variant is not None]
                if len(known) == len(corners):
                    pairs += [(whole, known[0]), (known[1], known[2])]
            if pairs:
                name = (
                    f"{about}{short_key(first)} × {short_key(second)}, {one} − {a} at {other} "
                    f"less at {b}"
                )
                yield Contrast(name, *pairs[0], tuple(pairs[1:]), factor=2.0)


def _levels(sweep: Sweep, key: str, variants: Sequence[VariantResult]) -> tuple[str, list[str]]:
    """The baseline's value of a factor, the first one if these do not have it, and its others."""
    values = dict.fromkeys(str(v.factors[key]) for v in variants if key in v.factors)
    asked = sweep.design.get("baseline")
    base = str(asked.get(key)) if isinstance(asked, Mapping) else ""
    if base not in values:
        base = next(iter(values), "")
    return base, [level for level in values if level != base]


def _at(sweep: Sweep, variant: VariantResult, changes: Mapping[str, Any]) -> VariantResult | None:
    """The variant with some factors changed and all others equal; None without one."""
    wanted = {**variant.factors, **changes}
    return next(
        (v for v in sweep.variants if v.matches(wanted) and v.factors.keys() >= changes.keys()),
        None,
    )
