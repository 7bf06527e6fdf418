"""Looks at a sweep whose seeds come until the answer is in: what each decides, and what stands.

A look reads its own seeds and no others, so that it says the same whenever it is taken. The p
values of earlier looks are those that were written down (`runs.looks`). The first of the sweep's
metrics decides, under the headline protocol; of all other measures the p over all looks is known as
well, and holds whenever the seeds stop. Shapes: l looks, K contrasts, M measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path

import numpy as np

from keyseg.metrics import MEASURES
from keyseg.report.stats import inference, sequential
from keyseg.report.stats.comparison import seed_table
from keyseg.report.stats.contrasts import Contrast, contrasts
from keyseg.report.stats.margin import margins
from keyseg.report.stats.verdict import GIVEN_UP, INTERIM
from keyseg.report.store import Sweep, load
from keyseg.runs import declaration, disk, looks
from keyseg.runs.looks import FUTILE, OPEN, LookPlan, Ruling, TakenLook
from keyseg.runs.run_directory import RunDirectory

JOINED = "joined"
"""In the design of several sweeps read as one: name, directory, `looks` and signatures of each."""

_LEAST = 2
"""Seeds from which there is a spread."""


@dataclass(frozen=True)
class Seen:
    """What some seeds say of a contrast: `value`, `p`, `equivalence`, `chance` (of a verdict by the
    last look), each (M,); `seeds`: how many tell."""

    value: np.ndarray
    p: np.ndarray
    equivalence: np.ndarray
    chance: np.ndarray
    seeds: int


def nothing() -> Seen:
    """Fewer than two seeds tell: nothing is known, and all may still come."""
    unknown = np.full(len(MEASURES), np.nan)
    return Seen(unknown, unknown, unknown, np.ones(len(MEASURES)), 0)


def seen(
    contrast: Contrast, protocol: str, margin: np.ndarray, plan: LookPlan, contrasts: int
) -> Seen:
    """What the seeds of a contrast say; collapsed trainings are left out, as in every verdict."""
    paired = seed_table(contrast, protocol)
    if paired is None or len(paired.kept) < _LEAST:
        return nothing()
    table = paired.table
    by = inference.sources(table, contrast.factor)
    value = inference.differences(table, contrast.factor).mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        hope = sequential.chance(value, by, margin, plan.family, plan.at, contrasts).any
    return Seen(
        value,
        inference.both_p(value, by),
        inference.equivalence_p(value, by, margin),
        np.where(np.isfinite(hope), hope, 1.0),
        len(paired.kept),
    )


def at_look(sweep: Sweep, plan: LookPlan, number: int) -> Sweep:
    """The sweep with the seeds of a look only."""
    seeds = {*plan.seeds_at(number)}
    variants = (
        replace(v, cells=tuple(c for c in v.cells if c.seed in seeds)) for v in sweep.variants
    )
    return replace(sweep, variants=tuple(variants))


def decide(sweep_dir: Path) -> TakenLook:
    """Take the next look at a sweep, all of whose cells are done.

    Raises:
        ValueError: its seeds do not come by looks, there is nothing more to decide, or cells of a
            contrast that is still open have no results.
    """
    return judged(load(sweep_dir), looks.read(sweep_dir))


def judged(sweep: Sweep, taken: Sequence[TakenLook]) -> TakenLook:
    """The look that comes after those that were `taken`; raises as `decide` does."""
    plan = LookPlan.of(sweep.design)
    if plan is None or looks.ended(plan, taken):
        raise ValueError(f"{sweep.name}: no look is left to take")
    number = len(taken) + 1
    now = at_look(sweep, plan, number)
    every = contrasts(now)
    before = {r.contrast: r for look in taken for r in look.rulings}
    words = np.array([before[c.name].word if c.name in before else OPEN for c in every], object)
    open_ones = [c for c, word in zip(every, words, strict=True) if word == OPEN]
    for contrast in open_ones:
        for variant in contrast.variants:
            lacking = {*plan.seeds_at(number)} - {c.seed for c in variant.finished}
            if lacking:
                raise ValueError(
                    f"{sweep.name}: {variant.label} has no results of seed {min(lacking)}, which "
                    f"look {number} needs"
                )
    metric = sweep.metrics[0]
    m = [measure.name for measure in MEASURES].index(metric)
    margin = np.array([margins(sweep.design)[measure.name] for measure in MEASURES])
    asked = {c.name: seen(c, sweep.headline, margin, plan, len(every)) for c in open_ones}
    tests = [_column(look, every) for look in taken]
    tests.append(np.array([_pair(asked.get(c.name), m) for c in every]).T)
    p, equivalence = np.array(tests).swapaxes(0, 1)
    over = sequential.corrected(p, equivalence, plan.family, plan.at)
    hope = np.array([asked[c.name].chance[m] if c.name in asked else 1.0 for c in every])
    if number == len(plan.at):  # there is nothing to give up: these are all seeds that come
        hope = np.ones(len(every))
    after = sequential.ruled(over, hope, words)
    rulings = [
        Ruling(
            contrast=c.name,
            word=str(after[k]),
            labels=tuple(v.label for v in c.variants),
            difference=_known(asked[c.name].value[m]),
            p=_known(p[-1, k]),
            equivalence=_known(equivalence[-1, k]),
            overall=float(over.differs[k]),
            overall_equivalence=float(over.equivalent[k]),
            chance=float(asked[c.name].chance[m]),
            seeds=asked[c.name].seeds,
        )
        for k, c in enumerate(every)
        if c.name in asked
    ]
    rests_on = [c for v in now.variants for c in v.finished if _is_ruled(v.label, rulings)]
    return TakenLook(
        number=number,
        seeds=plan.at[number - 1],
        metric=metric,
        protocol=sweep.headline,
        rulings=tuple(rulings),
        samples={c.signature: samples_hash(c.directory) for c in rests_on},
        design=declaration.tested(declaration.of(sweep.design)),
        taken=time.time(),
    )


def samples_hash(directory: Path) -> str:
    """Of a run's samples, by which a look is known to rest on what is there."""
    return disk.sha256(RunDirectory(directory).samples_file)[:16]


def _is_ruled(label: str, rulings: Sequence[Ruling]) -> bool:
    return any(label in ruling.labels for ruling in rulings)


def _pair(seen: Seen | None, m: int) -> tuple[float, float]:
    return (nan, nan) if seen is None else (float(seen.p[m]), float(seen.equivalence[m]))


def _column(look: TakenLook, every: Sequence[Contrast]) -> np.ndarray:
    """(2, K) p and equivalence as a look wrote them down; NaN of contrasts it did not judge."""
    by = {r.contrast: r for r in look.rulings}
    rows = [by.get(c.name) for c in every]
    return np.array(
        [
            [nan if r is None or r.p is None else r.p for r in rows],
            [nan if r is None or r.equivalence is None else r.equivalence for r in rows],
        ],
        float,
    )


def _known(value: float) -> float | None:
    return float(value) if isfinite(value) else None


@dataclass(frozen=True)
class Standing:
    """Where the looks of a sweep stand. `rulings`: the last one on each contrast, with its look.

    `of`: name of the sweep, where it is read as one with others; contrasts have other names and
    other company there, so that no ruling is theirs.
    """

    plan: LookPlan
    taken: Sequence[TakenLook]
    rulings: Mapping[str, tuple[int, Ruling]]
    of: str = ""

    @property
    def ended(self) -> bool:
        """Whether no more seeds come."""
        return looks.ended(self.plan, self.taken)

    @property
    def interim(self) -> bool:
        """Whether more seeds are to come."""
        return not self.ended

    def where(self, look: int) -> str:
        """ "look 2 of 5 (4 seeds)"."""
        return f"look {look} of {len(self.plan.at)} ({self.plan.at[look - 1]} seeds)"

    def over_looks(
        self, contrast: Contrast, protocol: str, margin: np.ndarray, contrasts: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(M,) two-sided p and p of equivalence of a contrast over the looks that judged it.

        One that no look judged (it was declared later, or is between sweeps) is read at every look
        of which it has all seeds. NaN where no look tells.
        """
        tests = []
        last = self.rulings[contrast.name][0] if contrast.name in self.rulings else len(self.taken)
        for number in range(1, last + 1):
            here = _of_seeds(contrast, self.plan.seeds_at(number))
            whole = len(here.shared_seeds) == self.plan.at[number - 1]
            read = seen(here, protocol, margin, self.plan, contrasts) if whole else nothing()
            tests.append((read.p, read.equivalence))
        if not tests:
            return nothing().p, nothing().equivalence
        p, equivalence = np.array(tests).swapaxes(0, 1)
        family, at = self.plan.family, self.plan.at
        either = np.minimum(2 * sequential.overall(p / 2, family, at), 1)
        small = sequential.overall(equivalence, family, at)
        known = np.isfinite(p).any(0)
        return np.where(known, either, np.nan), np.where(known, small, np.nan)

    def stage(self, contrast: str, metric: str, protocol: str) -> str:
        """What stands in the place of a verdict: "interim", "given up"; "" where nothing does."""
        number, ruling = self.rulings.get(contrast, (0, None))
        if ruling is not None and ruling.word == FUTILE:
            return GIVEN_UP if self.taken[number - 1].decides(metric, protocol) else ""
        return INTERIM if self.interim and (ruling is None or ruling.word == OPEN) else ""

    def note(self, contrast: str, metric: str, protocol: str) -> str:
        """Which look decided, or what is still to come."""
        if self.of:
            return f"p over the {len(self.taken)} looks of {self.of}"
        if contrast not in self.rulings:
            return "before the first look" if self.interim else "judged by no look"
        number, ruling = self.rulings[contrast]
        if ruling.word == OPEN:
            return f"{'after' if self.interim else 'open after'} {self.where(number)}"
        if not self.taken[number - 1].decides(metric, protocol):
            return f"seeds until {self.where(number)}"
        if ruling.word == FUTILE:
            return (
                f"given up at {self.where(number)}: a verdict by {self.plan.at[-1]} seeds had a "
                f"chance of {100 * ruling.chance:.0f} %"
            )
        return f"decided at {self.where(number)}"


def _of_seeds(contrast: Contrast, seeds: Sequence[int]) -> Contrast:
    """The contrast as these seeds show it; one training of another system goes with any."""
    variants = {
        v.label: replace(v, cells=tuple(c for c in v.cells if c.imported or c.seed in seeds))
        for v in contrast.variants
    }
    of, *more = ((variants[a.label], variants[b.label]) for a, b in contrast.pairs)
    return replace(contrast, of=of[0], against=of[1], more=tuple(more))


def standing(sweep: Sweep) -> Standing | None:
    """Where the looks of a sweep stand; None where its seeds do not come by looks."""
    plan = LookPlan.of(sweep.design)
    if plan is None:
        return None
    taken = looks.read(sweep.directory)
    rulings = {r.contrast: (look.number, r) for look in taken for r in look.rulings}
    return Standing(plan, taken, rulings)


def parts_by_looks(sweep: Sweep) -> list[Standing]:
    """Of several sweeps read as one: where the looks stand of those whose seeds come by them."""
    return [stand for stand, _ in _parts(sweep) if stand is not None]


def by_contrast(sweep: Sweep) -> Callable[[Contrast], Standing | None]:
    """The looks that a contrast goes by; None where the number of its seeds was fixed before.

    In several sweeps read as one: none where all of its cells are those of a sweep without looks,
    else the looks of the first that has one of its cells. They hold for any contrast that is read
    at them and at no other time, whoever decided on its seeds.
    """
    own, parts = standing(sweep), _parts(sweep)

    def standing_of(contrast: Contrast) -> Standing | None:
        here = {cell.signature for variant in contrast.variants for cell in variant.cells}
        if any(stand is None and here <= known for stand, known in parts):
            return None
        return next((stand for stand, known in parts if stand and here & known), own)

    return standing_of


def _parts(sweep: Sweep) -> list[tuple[Standing | None, frozenset[str]]]:
    """Of several sweeps read as one: the looks of each, None without, and its signatures."""
    parts = []
    for part in sweep.design.get(JOINED) or []:
        plan = LookPlan.of(part)
        taken = looks.read(Path(part["directory"])) if plan else []
        stand = Standing(plan, taken, {}, str(part["name"])) if plan else None
        parts.append((stand, frozenset(part["signatures"])))
    return parts
