"""Scores and contrasts of a sweep as tidy tables: one row per value, with its interval.

`scores` columns: protocol, slice, group, label, metric, value, low, high, sd (over seeds), seeds,
examples, images, majority. The whole test split is slice "" and group "". Fractions, not percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from keyseg.metrics import BY_NAME, COLUMNS, MEASURES, NO_TARGET, OF_KEY, majority, ratios
from keyseg.report.stats import inference, training, verdict
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.margin import margins
from keyseg.report.store import CellResult, Sweep, VariantResult
from keyseg.runs.provenance import cost_unit

SLICE = "slice_"
MAX_GROUPS = 12
"""A slice with more values than this (an id, say) is no slice worth a table."""
ORDER = ("empty", "small", "short", "medium", "large", "long", "0", "1", "2", "3+")

SCORE_COLUMNS = (
    "protocol",
    "slice",
    "group",
    "label",
    "metric",
    "value",
    "low",
    "high",
    "sd",
    "seeds",
    "examples",
    "images",
    "majority",
)
SOURCES = ("images", "seeds", "both")
TESTS = (*SOURCES, "equivalence")
CONTRAST_COLUMNS = (
    "protocol",
    "contrast",
    "label",
    "baseline",
    "metric",
    "difference",
    "low",
    "high",
    *(f"{end}_{source}" for source in SOURCES for end in ("low", "high")),
    *(f"p_{source}" for source in SOURCES),
    *(f"holm_{source}" for source in SOURCES),
    "margin",
    "p_equivalence",
    "holm_equivalence",
    "sd",
    "effect_images",
    "effect_seeds",
    "won",
    "lost",
    "mcnemar",
    "seeds",
    "examples",
    "images",
    "hole",
    "verdict",
    "sentence",
    "caveat",
    "training",
    "at",
)
MCNEMAR = "precision@0.5"
Group = tuple[str, str]
WHOLE: Sequence[Group] = [("", "")]


@dataclass(frozen=True)
class ProtocolSamples:
    """A cell's samples of one protocol: `terms` (rows, COLUMNS), `images` (rows,) names."""

    cell: CellResult
    samples: pd.DataFrame
    terms: np.ndarray

    @cached_property
    def image_ids(self) -> pd.Index[str]:
        """(rows,) image of each example."""
        return pd.Index(self.samples["image_id"].astype(str))

    @cached_property
    def groups(self) -> Mapping[str, np.ndarray]:
        """(rows,) the value of each slice."""
        own = [c for c in self.samples.columns if c.startswith(SLICE)]
        return {c.removeprefix(SLICE): np.asarray(self.samples[c].astype(str), object) for c in own}

    def within(self, group: Group) -> np.ndarray:
        """(rows,) bool: which examples belong to the group."""
        name, value = group
        if not name:
            return np.ones(len(self.samples), bool)
        if name not in self.groups:
            return np.zeros(len(self.samples), bool)
        kept: np.ndarray = self.groups[name] == value
        return kept

    def sums(self, images: int, codes: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
        """(images, COLUMNS) of the rows `kept`; codes (rows,) number the images."""
        if kept is None:
            return inference.image_sums(codes, self.terms, images)
        return inference.image_sums(codes[kept], self.terms[kept], images)


def slices(sweep: Sweep) -> dict[str, list[str]]:
    """Slices worth splitting by and their values: style, size, length, distractors, then others.

    Values stand in their natural order if they have one, else as they come in the data. A slice
    that has one value only, or more than `MAX_GROUPS`, is left out.
    """
    values: dict[str, dict[str, None]] = {}
    for cell in sweep.finished:
        for column in cell.samples.columns:
            if column.startswith(SLICE):
                found = cell.samples[column].dropna().astype(str).unique()
                values.setdefault(column.removeprefix(SLICE), {}).update(dict.fromkeys(found))

    def ordered(found: Iterable[str]) -> bool:
        return set(found) <= set(ORDER)

    first = ["style", "size", "length", "distractors"]
    names = [n for n in first if n in values] + sorted(set(values).difference(first))
    return {
        name: sorted(values[name], key=ORDER.index) if ordered(values[name]) else list(values[name])
        for name in names
        if 1 < len(values[name]) <= MAX_GROUPS
    }


def scores(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Every measure of every variant and protocol, by slice under the headline one."""
    split = [(name, value) for name, values in slices(sweep).items() for value in values]
    rows: list[tuple[object, ...]] = []
    for variant in sweep.variants:
        for protocol in sweep.protocols:
            parts = [p for c in variant.finished if len((p := _part(c, protocol)).samples)]
            if not parts:
                continue
            images = _images(parts)
            codes = [images.get_indexer(p.image_ids) for p in parts]
            groups = [*WHOLE, *split] if protocol == sweep.headline else WHOLE
            for group in groups:
                each = zip(parts, codes, strict=True)
                table = np.stack([p.sums(len(images), at, p.within(group)) for p, at in each], 1)
                table = table[:, :, None]
                seen = np.asarray((table[..., COLUMNS.index("examples")] > 0).any((1, 2)))
                found = inference.bootstrap(table, seed=seed, rows=seen if group[0] else None)
                by_seed = ratios(table.sum(0)[:, 0])
                spread = _spread(by_seed)
                first = parts[0]
                own = first.samples[first.within(group)]
                size = (len(parts), len(own), int(own["image_id"].nunique()), majority(own))
                for m, measure in enumerate(MEASURES):
                    ends = (found.value[m], found.low[m], found.high[m], spread[m])
                    key = (protocol, *group, variant.label, measure.name)
                    rows.append((*key, *map(float, ends), *size))
    return _measured(pd.DataFrame(rows, columns=list(SCORE_COLUMNS)), "value")


def contrasts(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Every declared contrast on the examples and seeds that both variants have.

    One without a result is a row all the same; `hole` says what is lacking, there and where only
    a part of the seeds is done. Holm's correction runs over all declared contrasts, for each
    protocol and measure.
    """
    rows: list[dict[str, object]] = []
    margin = np.array([margins(sweep.design)[measure.name] for measure in MEASURES])
    for protocol in sweep.protocols or ("",):
        block: list[tuple[Contrast, _Held | None]] = []
        for contrast in declared(sweep):
            pairs = _pairs(contrast.against, contrast.of, protocol)
            block.append((contrast, _held(pairs, margin, seed) if pairs else None))
        known = [held for _, held in block if held]
        pending = len(block) - len(known)
        reached = {contrast.name: training.reach(contrast) for contrast, _ in block}
        for m, measure in enumerate(MEASURES):
            corrected = {
                s: iter(inference.holm([h.p[s][m] for h in known], pending)) for s in TESTS
            }
            for contrast, held in block:
                row: dict[str, object] = {
                    "protocol": protocol,
                    "contrast": contrast.name,
                    "label": contrast.of.label,
                    "baseline": contrast.against.label,
                    "metric": measure.name,
                    "hole": contrast.hole(len(held.by_seed) if held else 0),
                }
                if held:
                    adjusted = {test: float(next(corrected[test])) for test in TESTS}
                    row |= _row(held, m, adjusted, len(block), margin[m], *_hours(contrast))
                    if measure.name in OF_KEY and not contrast.asks_key:
                        row["sentence"] = f"{row['verdict']}: not asked, answers hold no KEY"
                else:
                    row |= _no_result(str(row["hole"]))
                rows.append(training.qualified(row, reached[contrast.name]))
    return _measured(pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS)), "difference")


def _no_result(hole: str) -> dict[str, object]:
    counts = dict.fromkeys(("seeds", "examples", "images"), 0)
    word = verdict.NO_RESULT
    return {**counts, "verdict": word, "sentence": f"{word}: {hole}", "caveat": ""}


def _measured(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Without the measures of no-target data where there is none."""
    absent = rows["metric"].isin(NO_TARGET)
    return rows if rows.loc[absent, column].notna().any() else rows[~absent].reset_index(drop=True)


@dataclass(frozen=True)
class _Held:
    """A contrast with all measures: intervals and p values by `TESTS`, and what they rest on."""

    value: np.ndarray
    intervals: dict[str, inference.Estimate]
    p: dict[str, np.ndarray]
    sources: inference.Sources
    by_seed: np.ndarray
    effects: tuple[np.ndarray, np.ndarray]
    mcnemar: tuple[int, int, float]
    examples: int


def _held(
    pairs: Sequence[tuple[ProtocolSamples, ProtocolSamples]], margin: np.ndarray, seed: int
) -> _Held:
    images = _images([part for pair in pairs for part in pair])

    def sums(part: ProtocolSamples) -> np.ndarray:
        return part.sums(len(images), images.get_indexer(part.image_ids))

    table = np.stack([np.stack([sums(part) for part in pair], 1) for pair in pairs], 1)
    by_seed = inference.differences(table)
    value = by_seed.mean(0)
    found = inference.sources(table)
    above = COLUMNS.index(BY_NAME[MCNEMAR].numerator.name)
    first, second = pairs[0]
    order = pd.Index(second.samples["id"]).get_indexer(pd.Index(first.samples["id"]))
    return _Held(
        value=value,
        intervals={
            "images": inference.bootstrap(table, seed=seed),
            "seeds": inference.student(value, found.seeds, max(len(pairs) - 1, 1)),
            "both": inference.student(value, found.both, found.freedom),
        },
        p={
            "images": inference.swap_images(table, seed=seed),
            "seeds": inference.flip_seeds(by_seed, seed=seed),
            "both": inference.both_p(value, found),
            "equivalence": inference.equivalence_p(value, found, margin),
        },
        sources=found,
        by_seed=by_seed,
        effects=(inference.image_effect(table), inference.standardised(by_seed)),
        mcnemar=inference.mcnemar(first.terms[:, above] > 0, second.terms[order][:, above] > 0),
        examples=len(first.samples),
    )


def _row(
    held: _Held,
    m: int,
    holm: dict[str, float],
    contrasts: int,
    margin: float,
    hours: float,
    device: str,
) -> dict[str, object]:
    seeds = len(held.by_seed)
    main = "both" if seeds > 1 else "images"
    ends = {
        f"{end}_{source}": float(getattr(found, end)[m])
        for source, found in held.intervals.items()
        for end in ("low", "high")
    }
    low, high = ends[f"low_{main}"], ends[f"high_{main}"]
    evidence = verdict.Evidence(
        measure=MEASURES[m],
        difference=float(held.value[m]),
        low=low,
        high=high,
        p=holm[main],
        n_seeds=seeds,
        n_images=held.sources.n_images,
        images=float(held.sources.images[m]),
        seeds=float(held.sources.seeds[m]),
        shared=float(held.sources.shared[m]),
        hours=hours,
        device=device,
        contrasts=contrasts,
        equivalence=holm["equivalence"],
        margin=float(margin),
    )
    won, lost, p = held.mcnemar if MEASURES[m].name == MCNEMAR else (None, None, None)
    return {
        "difference": float(held.value[m]),
        "low": low,
        "high": high,
        **ends,
        **{f"p_{test}": float(found[m]) for test, found in held.p.items()},
        **{f"holm_{test}": p for test, p in holm.items()},
        "margin": float(margin),
        "sd": float(_spread(held.by_seed)[m]),
        "effect_images": float(held.effects[0][m]),
        "effect_seeds": float(held.effects[1][m]),
        "won": won,
        "lost": lost,
        "mcnemar": p,
        "seeds": seeds,
        "examples": held.examples,
        "images": held.sources.n_images,
        "verdict": verdict.word(evidence),
        "sentence": verdict.sentence(evidence),
        "caveat": verdict.caveat(evidence),
    }


def _hours(contrast: Contrast) -> tuple[float, str]:
    """Hours of one more seed of both variants, from finished cells, and of what."""
    cells = [*contrast.of.finished, *contrast.against.finished]
    return contrast.of.hours + contrast.against.hours, cost_unit(cell.info for cell in cells)


def _spread(by_seed: np.ndarray) -> np.ndarray:
    few = np.full(by_seed.shape[1:], np.nan)
    return by_seed.std(0, ddof=1) if len(by_seed) > 1 else few


def _pairs(
    a: VariantResult, b: VariantResult, protocol: str
) -> list[tuple[ProtocolSamples, ProtocolSamples]]:
    """Both variants' samples on the same examples, by seed (same seeds if there are)."""
    left, right = {c.seed: c for c in a.finished}, {c.seed: c for c in b.finished}
    common = sorted(left.keys() & right.keys())
    cells: list[tuple[CellResult, CellResult]] = [(left[s], right[s]) for s in common]
    if not common:
        cells = list(zip(a.finished, b.finished, strict=False))
    pairs = []
    for first, second in cells:
        x, y = _part(first, protocol), _part(second, protocol)
        if not x.samples["id"].array.equals(y.samples["id"].array):
            x = _only(x, x.samples["id"].isin(y.samples["id"]).to_numpy())
            y = _only(y, y.samples["id"].isin(x.samples["id"]).to_numpy())
        if len(x.samples):
            pairs.append((x, y))
    return pairs


def _only(part: ProtocolSamples, kept: np.ndarray) -> ProtocolSamples:
    return part if kept.all() else ProtocolSamples(part.cell, part.samples[kept], part.terms[kept])


def _part(cell: CellResult, protocol: str) -> ProtocolSamples:
    kept = (cell.samples["protocol"] == protocol).to_numpy()
    return ProtocolSamples(cell, cell.samples[kept], inference.columns_of(cell.terms)[kept])


def _images(parts: Sequence[ProtocolSamples]) -> pd.Index[str]:
    return pd.Index(sorted(set().union(*(p.image_ids.unique() for p in parts))))
