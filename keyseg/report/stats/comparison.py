"""A contrast with its numbers: intervals and p values by source, and what they rest on.

Trainings that collapsed are left out of them (`collapse`); what all trainings say, and the median
of the seeds, stand beside.

Shapes: n images, S seeds, P pairs, M measures, C columns of sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from keyseg.metrics import BY_NAME, COLUMNS, ratios
from keyseg.report.stats import inference
from keyseg.report.stats.collapse import Side, collapsed, with_collapse
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.median import Median, median
from keyseg.report.stats.parts import ProtocolSamples, images_of, on_common_examples, part_of
from keyseg.report.store import CellResult, VariantResult

MCNEMAR = "precision@0.5"


@dataclass(frozen=True)
class Comparison:
    """All measures of a contrast, each array (M,) unless said.

    `value`, `intervals`, `p`, `sources`, `by_seed` (S, M), `effects`: of the seeds in which every
    training succeeded. `sides`: every variant with all its trainings, by label. `everyone`: the
    difference of all trainings, collapsed ones among them, with an interval at 95 % and one that
    is corrected for the number of contrasts (`corrected`); both without ends where nothing
    collapsed. `median`: over all seeds.
    """

    value: np.ndarray
    intervals: Mapping[str, inference.Estimate]
    p: Mapping[str, np.ndarray]
    sources: inference.Sources
    by_seed: np.ndarray
    effects: tuple[np.ndarray, np.ndarray]
    mcnemar: tuple[int, int, float] | None
    examples: int
    sides: Mapping[str, Side]
    everyone: inference.Estimate
    corrected: inference.Estimate
    median: Median
    seeds: int
    """Seeds that are told of, those in which a training collapsed among them."""


@dataclass(frozen=True)
class SeedTable:
    """Sums of a contrast by image and seed: `whole` (n, S, P, 2, C); `kept`: the places of the
    seeds in which every training succeeded; `sets`: the parts behind each seed."""

    sets: Sequence[tuple[ProtocolSamples, ...]]
    whole: np.ndarray
    kept: Sequence[int]

    @property
    def table(self) -> np.ndarray:
        """(n, kept, P, 2, C)."""
        rows: np.ndarray = self.whole[:, list(self.kept)]
        return rows


def seed_table(contrast: Contrast, protocol: str) -> SeedTable | None:
    """What a contrast rests on under a protocol; None where no seed tells."""
    sets = _sets(contrast, protocol)
    lost = collapsed_seeds(contrast, protocol)
    kept = [i for i, parts in enumerate(sets) if not any(_is(lost, part.cell) for part in parts)]
    return SeedTable(sets, _table(sets), kept) if kept else None


def compare(
    contrast: Contrast, protocol: str, margin: np.ndarray, seed: int, contrasts: int = 1
) -> Comparison | None:
    """The numbers of a contrast under a protocol; None where no seed tells.

    Args:
        margin: (M,) of each measure.
        seed: fixes the resamples.
        contrasts: how many are declared.
    """
    paired = seed_table(contrast, protocol)
    if paired is None:
        return None
    sets, whole, kept = paired.sets, paired.whole, paired.kept
    table, first = paired.table, sets[kept[0]]
    flat = table.reshape(len(table), -1, 2, len(COLUMNS))  # pairs are averaged as seeds are
    factor = contrast.factor
    by_seed = inference.differences(table, factor)
    value, spread = by_seed.mean(0), inference.sources(table, factor)
    images = _scaled(inference.bootstrap(flat, seed=seed), factor)
    both = inference.student(value, spread.both, spread.freedom)
    sides = {v.label: _side(v, protocol, contrast.weights[v.label]) for v in contrast.variants}
    every_seed = inference.differences(whole, factor)
    succeeded = both if len(kept) > 1 else images
    strict = 1 - (1 - inference.CONFIDENCE) / contrasts
    stricter = (
        inference.student(value, spread.both, spread.freedom, strict) if len(kept) > 1 else images
    )
    return Comparison(
        value=value,
        intervals={
            "images": images,
            "seeds": inference.student(value, spread.seeds, max(len(kept) - 1, 1)),
            "both": both,
        },
        p={
            "images": inference.swap_images(flat, seed=seed),
            "seeds": inference.flip_seeds(by_seed, seed=seed),
            "both": inference.both_p(value, spread),
            "equivalence": inference.equivalence_p(value, spread, margin),
        },
        sources=spread,
        by_seed=by_seed,
        effects=(inference.image_effect(flat), inference.standardised(by_seed)),
        mcnemar=_mcnemar(first) if contrast.plain else None,
        examples=len(first[0].samples),
        sides=sides,
        everyone=with_collapse(every_seed.mean(0), succeeded, list(sides.values())),
        corrected=with_collapse(every_seed.mean(0), stricter, list(sides.values()), strict),
        median=median(every_seed),
        seeds=len(sets),
    )


def collapsed_seeds(contrast: Contrast, protocol: str) -> dict[str, set[int]]:
    """Seeds whose training collapsed, by label of the variant."""
    by_label = {}
    for variant in contrast.variants:
        side = _side(variant, protocol, 0.0)
        seeds = [cell.seed for cell in _read(variant, protocol)]
        by_label[variant.label] = {
            s for s, failed in zip(seeds, side.failed, strict=True) if failed
        }
    return by_label


def _is(lost: Mapping[str, set[int]], cell: CellResult) -> bool:
    return cell.seed in lost[cell.label]


def _read(variant: VariantResult, protocol: str) -> list[CellResult]:
    """Finished cells that were read under a protocol."""
    return [c for c in variant.finished if (c.samples["protocol"] == protocol).any()]


def _side(variant: VariantResult, protocol: str, weight: float) -> Side:
    cells = _read(variant, protocol)
    totals = [part_of(cell, protocol).terms.sum(0) for cell in cells]
    scores = ratios(np.array(totals).reshape(len(cells), len(COLUMNS)))
    return Side(scores, collapsed(scores[:, list(BY_NAME).index("giou")]), weight)


def _sets(contrast: Contrast, protocol: str) -> list[tuple[ProtocolSamples, ...]]:
    """For every seed the parts of all pairs (against, of, against, of ...) on common examples.

    Where no seed is shared, the seeds of a plain contrast are paired as they come.
    """
    order = [v for of, against in contrast.pairs for v in (against, of)]
    shared = sorted(contrast.shared_seeds)
    by_seed = [_by_seed(v, contrast, shared) for v in order]
    cells = [tuple(cells_of[seed] for cells_of in by_seed) for seed in shared]
    if not cells and contrast.plain:
        cells = list(zip(*(v.finished for v in order), strict=False))
    sets = [on_common_examples([part_of(cell, protocol) for cell in row]) for row in cells]
    return [parts for parts in sets if len(parts[0].samples)]


def _by_seed(
    variant: VariantResult, contrast: Contrast, shared: Sequence[int]
) -> dict[int, CellResult]:
    """The cell that stands for each seed."""
    if variant in contrast.seeded:
        return {cell.seed: cell for cell in variant.finished}
    return dict.fromkeys(shared, variant.finished[0])


def _table(sets: Sequence[tuple[ProtocolSamples, ...]]) -> np.ndarray:
    """(n, S, P, 2, C) sums by image, side 0 what is held against."""
    images = images_of([part for parts in sets for part in parts])

    def sums(part: ProtocolSamples) -> np.ndarray:
        return part.sums(len(images), images.get_indexer(part.image_ids))

    rows = [np.stack([sums(part) for part in parts], 1) for parts in sets]
    table: np.ndarray = np.stack(rows, 1)
    return table.reshape(len(images), len(sets), -1, 2, len(COLUMNS))


def _scaled(estimate: inference.Estimate, factor: float) -> inference.Estimate:
    return inference.Estimate(
        factor * estimate.value, factor * estimate.low, factor * estimate.high
    )


def _mcnemar(parts: Sequence[ProtocolSamples]) -> tuple[int, int, float]:
    above = COLUMNS.index(BY_NAME[MCNEMAR].numerator.name)
    first, second = parts
    order = pd.Index(second.samples["id"]).get_indexer(pd.Index(first.samples["id"]))
    return inference.mcnemar(first.terms[:, above] > 0, second.terms[order][:, above] > 0)
