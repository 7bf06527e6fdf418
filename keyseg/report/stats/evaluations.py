"""A sweep's runs on other data than their own test: one tidy sweep for each test set, with scores
and paired contrasts as for the runs' own.

No training is added. Another system's imported masks stand with the test set that they were
imported for; its imported weights are read like our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from keyseg.report.stats import looks, scores
from keyseg.report.stats.parts import SLICE
from keyseg.report.store import CellResult, Sweep, VariantResult
from keyseg.runs import imported
from keyseg.runs.evaluations import Evaluation, TestSet, read
from keyseg.runs.run_directory import RunDirectory

NOT_EVALUATED = "not evaluated"
"""The status of a cell that was not read on a test set."""


@dataclass(frozen=True)
class OnTestSet:
    """A sweep on one test set. `sweep`: its cells with their samples of it; `evaluated`: by
    signature, what is known of the reading; none of the runs' own test."""

    title: str
    sweep: Sweep
    scores: pd.DataFrame
    contrasts: pd.DataFrame
    evaluated: Mapping[str, Sequence[Evaluation]] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether it is the test that the runs themselves were read on."""
        return not self.evaluated


def fresh(cell: CellResult) -> list[Evaluation]:
    """Evaluations of the weights that a cell has now; those of earlier ones are left out."""
    weights = str(cell.info.get("checkpoint_fingerprint"))
    return [e for e in read(RunDirectory(cell.directory)) if e.of.get("checkpoint") == weights]


def own(sweep: Sweep) -> Sweep:
    """The sweep without the imported cells that belong to other test sets of it.

    One that has no others is left as it is.
    """
    here = _own_place(sweep)
    elsewhere = {_place(e.about.get("protocol")) for c in sweep.cells for e in _stored(c)} - {here}

    def belongs(cell: CellResult) -> bool:
        if _masks(cell):
            return _place(cell.info.get("protocol")) not in elsewhere
        return not cell.imported or bool(len(cell.samples)) or not _stored(cell)

    kept = tuple(_with(sweep.variants, belongs))
    return replace(sweep, variants=kept) if kept else sweep


def evaluations(whole: Sweep, mine: OnTestSet, seed: int) -> list[OnTestSet]:
    """The runs' own test, then every other test set: those that the design declares in its order.

    [] where no run was read on other data.

    Args:
        whole: with all imported cells.
        mine: the own test.
        seed: of every resample.
    """
    stored = {cell.signature: _stored(cell) for cell in whole.cells if cell.status == "done"}
    test_sets = dict.fromkeys(e.of_set for each in stored.values() for e in each)
    sets = sorted(test_sets, key=lambda s: _order(whole.design.get("tests") or [], s))
    first = [mine] if sets and mine.sweep.finished else []
    return [*first, *(_on(whole, s, stored, seed) for s in sets)]


def lacking(sweep: Sweep) -> dict[str, list[str]]:
    """By run, the declared test sets that it was not read on."""
    declared = [str(item) for item in sweep.design.get("tests") or []]
    missing_of = {}
    for cell in sweep.finished:
        there = {f"{e.of_set.data}:{e.of_set.split}" for e in _stored(cell)}
        there |= {e.of_set.data for e in _stored(cell) if e.of_set.split == "test"}
        if not cell.imported and (missing := [d for d in declared if d not in there]):
            missing_of[f"{cell.label}, seed {cell.seed}"] = missing
    return missing_of


def tidy(test_sets: Iterable[OnTestSet], what: str) -> pd.DataFrame:
    """`scores` or `contrasts` of all test sets under each other, with a first column `test_set`."""
    frames = []
    for each in test_sets:
        frame = each.scores if what == "scores" else each.contrasts
        if what == "scores":
            frame = frame[frame["slice"] == ""]
        frames.append(frame.assign(test_set=each.title))
    if not frames:
        return pd.DataFrame()
    every = pd.concat(frames, ignore_index=True)
    return every[["test_set", *(c for c in every if c != "test_set")]]


def _on(
    whole: Sweep, of_set: TestSet, stored: Mapping[str, Sequence[Evaluation]], seed: int
) -> OnTestSet:
    here = {s: [e for e in each if e.of_set == of_set] for s, each in stored.items()}
    here = {s: each for s, each in here.items() if each}
    places = {_place(e.about.get("protocol")) for each in here.values() for e in each}

    def belongs(cell: CellResult) -> bool:
        if cell.imported and not _masks(cell):
            return cell.signature in here
        return not _masks(cell) or _place(cell.info.get("protocol")) in places

    variants = []
    for variant in _with(whole.variants, belongs):
        cells = [c if _masks(c) else _read_on(c, here.get(c.signature, ())) for c in variant.cells]
        variants.append(replace(variant, cells=tuple(cells)))
    # these speak of the own test
    design = {**whole.design, "looks": None, looks.JOINED: [], "declared": None}
    sweep = replace(whole, design=design, variants=tuple(variants))
    plain = replace(sweep, variants=tuple(_without_slices(v) for v in sweep.variants))
    return OnTestSet(
        of_set.title, sweep, scores.scores(plain, seed), scores.contrasts(plain, seed), here
    )


def _read_on(cell: CellResult, evaluations: Sequence[Evaluation]) -> CellResult:
    if not evaluations:
        status = NOT_EVALUATED if cell.status == "done" else cell.status
        return replace(cell, samples=pd.DataFrame(), status=status)
    samples = pd.concat([e.samples for e in evaluations], ignore_index=True)
    return replace(
        cell, samples=samples, info={**cell.info, "protocol": evaluations[0].about["protocol"]}
    )


def _without_slices(variant: VariantResult) -> VariantResult:
    """Slices are not shown by test set, and take most of the time."""

    def bare(cell: CellResult) -> CellResult:
        kept = [c for c in cell.samples.columns if not str(c).startswith(SLICE)]
        return replace(cell, samples=cell.samples[kept])

    return replace(variant, cells=tuple(map(bare, variant.cells)))


def _with(variants: Sequence[VariantResult], belongs: Any) -> Iterator[VariantResult]:
    for variant in variants:
        cells = tuple(c for c in variant.cells if belongs(c))
        if cells:
            yield replace(variant, cells=cells)


def _stored(cell: CellResult) -> list[Evaluation]:
    return [] if _masks(cell) else fresh(cell)


def _masks(cell: CellResult) -> bool:
    """Whether it is another system's masks, which nobody can read on other data."""
    return imported.masks_only(cell.info)


def own_title(sweep: Sweep) -> str:
    """The runs' own test as a reader knows it."""
    data, splits = _own_place(sweep)
    return f"{data or 'own'} {' + '.join(splits)} (the runs' own test)"


def _own_place(sweep: Sweep) -> tuple[str, tuple[str, ...]]:
    cells = [c for c in sweep.finished if not c.imported] or sweep.finished
    return _place(cells[0].info.get("protocol")) if cells else ("", ())


def _place(protocol: Any) -> tuple[str, tuple[str, ...]]:
    """Data set and parts of a protocol."""
    if not isinstance(protocol, Mapping):
        return "", ()
    entries = protocol.get("splits") or ()
    parts = sorted({str(entry.get("split", "test")) for entry in entries})
    return str(protocol.get("data") or ""), tuple(parts)


def _order(declared: Sequence[Any], of_set: TestSet) -> tuple[int, str]:
    names = [str(item) if ":" in str(item) else f"{item}:test" for item in declared]
    name = f"{of_set.data}:{of_set.split}"
    return (names.index(name) if name in names else len(names), of_set.title)
