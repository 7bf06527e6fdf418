"""Scores and contrasts of a sweep as tidy tables: one row per value, with its interval.

`scores` columns: protocol, slice, group, label, metric, value, low, high, sd (over seeds), seeds,
examples, images, majority. The whole test split is slice "" and group "". Fractions, not percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from keyseg.report.measures import COLUMNS, MEASURES, majority, ratios
from keyseg.report.stats import (
    cluster_bootstrap,
    difference,
    image_sums,
    mean_over_seeds,
    verdict,
)
from keyseg.report.store import Cell, Sweep, Variant

SLICE = "slice_"
MAX_GROUPS = 12
"""A slice with more values than this (an id, say) is no slice worth a table."""
ORDER = ("small", "short", "medium", "large", "long")

SCORE_COLUMNS = (
    *("protocol", "slice", "group", "label", "metric", "value", "low", "high", "sd", "seeds"),
    *("examples", "images", "majority"),
)
CONTRAST_COLUMNS = (
    *("protocol", "label", "baseline", "metric", "difference", "low", "high", "sd", "seeds"),
    *("examples", "images", "verdict"),
)
Group = tuple[str, str]
Part = tuple[Cell, pd.DataFrame]
WHOLE: Sequence[Group] = [("", "")]


def slices(sweep: Sweep) -> dict[str, list[str]]:
    """Slices worth splitting by and their values: style first, then size and length, then others.

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

    first = ["style", "size", "length"]
    names = [n for n in first if n in values] + sorted(set(values).difference(first))
    return {
        name: sorted(values[name], key=ORDER.index) if ordered(values[name]) else list(values[name])
        for name in names
        if 1 < len(values[name]) <= MAX_GROUPS
    }


def scores(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Every measure of every variant, protocol and slice; see the head of this file."""
    groups = [*WHOLE]
    groups += [(name, value) for name, values in slices(sweep).items() for value in values]
    rows: list[tuple[object, ...]] = []
    for variant, protocol in product(sweep.variants, sweep.protocols):
        cells = [c for c in variant.finished if len(_of_protocol(c, protocol))]
        parts = [_of_protocol(cell, protocol) for cell in cells]
        if not parts:
            continue
        images = _images(parts)
        sums = np.stack([_sums(c, p, images, groups) for c, p in zip(cells, parts, strict=True)], 1)
        estimate = cluster_bootstrap(sums, mean_over_seeds, seed=seed)
        by_seed = ratios(sums.sum(0))
        spread = by_seed.std(0, ddof=1) if len(parts) > 1 else np.full(by_seed.shape[1:], np.nan)
        counts = sums[:, 0, :, COLUMNS.index("examples")]
        for g, (name, value) in enumerate(groups):
            chance = majority(_in_group(parts[0], (name, value)))
            size = (len(parts), int(counts[:, g].sum()), int((counts[:, g] > 0).sum()), chance)
            for m, measure in enumerate(MEASURES):
                ends = (estimate.value[g, m], estimate.low[g, m], estimate.high[g, m])
                key = (protocol, name, value, variant.label, measure.name)
                rows.append((*key, *map(float, ends), float(spread[g, m]), *size))
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def contrasts(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Every variant against the baseline on the examples (and seeds) that both have."""
    rows: list[tuple[object, ...]] = []
    baseline = sweep.baseline
    for variant, protocol in product(sweep.variants, sweep.protocols):
        if baseline is None or variant is baseline:
            continue
        pairs = _pairs(baseline, variant, protocol)
        if not pairs:
            continue
        images = _images([part for pair in pairs for _, part in pair])
        sums = np.stack(
            [np.stack([_sums(c, p, images, WHOLE)[:, 0] for c, p in pair], 1) for pair in pairs], 1
        )
        estimate = cluster_bootstrap(sums, difference, seed=seed)
        values = ratios(sums.sum(0))
        by_seed = values[:, 1] - values[:, 0]
        for m, measure in enumerate(MEASURES):
            low, high = float(estimate.low[m]), float(estimate.high[m])
            spread = float(by_seed[:, m].std(ddof=1)) if len(pairs) > 1 else float("nan")
            rows.append(
                (
                    *(protocol, variant.label, baseline.label, measure.name),
                    *(float(estimate.value[m]), low, high, spread, len(pairs)),
                    *(len(pairs[0][0][1]), len(images), verdict(m, low, high, by_seed[:, m])),
                )
            )
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def _pairs(a: Variant, b: Variant, protocol: str) -> list[tuple[Part, Part]]:
    """Both variants' cells and samples on the same examples, by seed (same seeds if there are)."""
    left, right = {c.seed: c for c in a.finished}, {c.seed: c for c in b.finished}
    common = sorted(left.keys() & right.keys())
    cells: list[tuple[Cell, Cell]] = [(left[s], right[s]) for s in common]
    if not common:
        cells = list(zip(a.finished, b.finished, strict=False))
    pairs = []
    for first, second in cells:
        x, y = _of_protocol(first, protocol), _of_protocol(second, protocol)
        x, y = x[x["id"].isin(y["id"])], y[y["id"].isin(x["id"])]
        if len(x):
            pairs.append(((first, x), (second, y)))
    return pairs


def _of_protocol(cell: Cell, protocol: str) -> pd.DataFrame:
    return cell.samples[cell.samples["protocol"] == protocol]


def _images(parts: Sequence[pd.DataFrame]) -> pd.Index[str]:
    return pd.Index(sorted(set().union(*(part["image_id"].astype(str) for part in parts))))


def _in_group(part: pd.DataFrame, group: Group) -> pd.DataFrame:
    name, value = group
    if not name:
        return part
    column = SLICE + name
    return part[part[column].astype(str) == value] if column in part else part.iloc[:0]


def _sums(
    cell: Cell, part: pd.DataFrame, images: pd.Index[str], groups: Sequence[Group]
) -> np.ndarray:
    """(images, groups, COLUMNS) of `part`, some rows of the cell's samples."""
    terms = cell.records
    out = []
    for group in groups:
        rows = _in_group(part, group).index
        out.append(image_sums(terms.loc[rows], part.loc[rows, "image_id"].astype(str), images))
    return np.stack(out, 1)
