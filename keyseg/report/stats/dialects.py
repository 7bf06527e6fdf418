"""The masks of a sweep under the rules of public evaluations, where these disagree on them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import pandas as pd

from keyseg.data.files import DataError
from keyseg.dialects.matched import has_several
from keyseg.dialects.score import OF_SEVERAL_TEXTS, dialects, score, seen
from keyseg.metrics import Examples
from keyseg.report.store import CellResult, Sweep, VariantResult

COMPARED = ("giou", "ciou")
DISAGREE = 0.001
"""Of a fraction: dialects that differ by no more agree."""


def rescored(sweep: Sweep) -> pd.DataFrame:
    """Scores under the headline protocol: label, seed, dialect and the scores of `COMPARED`.

    Without rows where all dialects agree to a tenth of a point on every run. A dialect that is made
    for other data, or a run without stored masks, is left out.
    """
    known, rows = list(dialects().values()), []
    for cell in sweep.finished:
        samples = rows_of(cell, sweep.headline)
        if not can_disagree(samples):
            continue
        try:
            scored = score(samples, known)
        except DataError:  # no masks are stored, or damaged ones: the gallery shows which
            continue
        for name, scores in scored.items():
            of_this_data = isfinite(scores["giou"]) and isfinite(scores.get("r", 1.0))
            if not of_this_data:  # no target has negatives, no query may have several targets
                continue
            values = {key: scores.get(key, float("nan")) for key in COMPARED}
            rows.append({"label": cell.label, "seed": cell.seed, "dialect": name, **values})
    table = pd.DataFrame(rows, columns=["label", "seed", "dialect", *COMPARED])
    of_run = table.groupby(["label", "seed"])[list(COMPARED)]
    spread = of_run.max() - of_run.min()
    return table if bool((spread > DISAGREE).to_numpy().any()) else table.iloc[:0]


def rows_of(cell: CellResult, protocol: str) -> pd.DataFrame:
    """A cell's samples of one protocol."""
    return cell.samples[cell.samples["protocol"] == protocol]


def can_disagree(samples: pd.DataFrame) -> bool:
    """Whether there is anything that dialects see differently, judged without reading a mask."""
    if samples.empty or "mask_rle" not in samples:
        return False
    ids = samples["id"].astype(str)
    texts = ids.str.startswith(OF_SEVERAL_TEXTS) & ~ids.str.endswith("-0")
    if has_several(samples):
        return True
    ignored = samples["ignore_rle"].fillna("") != "" if "ignore_rle" in samples else texts & False
    return bool(texts.any() or ignored.any() or Examples(samples).no_target.any())


def moved(variants: Mapping[str, VariantResult], protocol: str) -> dict[str, pd.DataFrame]:
    """IoU of the first seed's masks by example id (rows) and dialect (columns), for each variant.

    NaN where an example does not count under a dialect. Variants of which nothing can be said are
    left out.
    """
    known = [d for d in dialects().values() if "r" not in d.scores]
    tables = {}
    for label, variant in variants.items():
        samples = rows_of(variant.finished[0], protocol)
        if not can_disagree(samples):
            continue
        try:
            frames = seen(samples, known)
        except DataError:
            continue
        by_id = {
            name: f.drop_duplicates("id").set_index("id")["iou"]
            for name, f in frames.items()
            if len(f)
        }
        tables[label] = pd.DataFrame(by_id)
    return tables
