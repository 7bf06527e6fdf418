"""Interventions on trained models against the same models untouched, paired by seed and example.

No training is added, so no seed can have collapsed by what is done; all finished seeds count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from keyseg.metrics import MEASURES, OF_KEY, ratios
from keyseg.report.stats import inference
from keyseg.report.stats.parts import ProtocolSamples, images_of, on_common_examples, part_of
from keyseg.report.store import CellResult, Sweep, VariantResult
from keyseg.runs.interventions import REPLACED, REPLACEMENTS, Intervention, Stored, read
from keyseg.runs.run_directory import RunDirectory

INTERVENTION_COLUMNS = (
    "protocol",
    "label",
    "token",
    "kind",
    "metric",
    "untouched",
    "replaced",
    "difference",
    "low",
    "high",
    "p",
    "holm",
    "seeds",
    "examples",
    "images",
)


def fresh(cell: CellResult) -> list[Stored]:
    """Interventions on the weights that a cell has now; those on earlier ones are left out."""
    weights = str(cell.info.get("checkpoint_fingerprint"))
    return [s for s in read(RunDirectory(cell.directory)) if s.of.get("checkpoint") == weights]


def stale(cell: CellResult) -> int:
    """How many are of other weights."""
    return len(list(read(RunDirectory(cell.directory)))) - len(fresh(cell))


def mixed_code(variant: VariantResult) -> bool:
    """Whether seeds of one kind and protocol were read by several versions of the code.

    Of older results, that do not say theirs, nothing is known.
    """
    code: dict[tuple[Intervention, str], set[str]] = defaultdict(set)
    for cell in variant.finished:
        for stored in fresh(cell):
            if "code" in stored.of:
                code[stored.intervention, stored.protocol].add(stored.of["code"])
    return any(len(versions) > 1 for versions in code.values())


def interventions(sweep: Sweep, seed: int) -> pd.DataFrame:
    """One row for each variant, intervention, protocol and measure; no rows without any.

    Intervals at 95 % over seeds and images, over images alone where there is one seed. Holm's
    correction runs over all interventions of a protocol and measure.
    """
    rows = [row for variant in sweep.variants for row in _of(variant, seed)]
    frame = pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))
    if len(frame):
        groups = frame.groupby(["protocol", "metric"], sort=False)["p"]
        frame["holm"] = groups.transform(lambda p: inference.holm(p.tolist()))
    return frame


def _of(variant: VariantResult, seed: int) -> Iterator[dict[str, object]]:
    stored = [(cell, fresh(cell)) for cell in variant.finished]
    present = [(s.intervention, s.protocol) for _, stored_of in stored for s in stored_of]
    for token in REPLACED:
        for kind in REPLACEMENTS:
            for protocol in dict.fromkeys(p for i, p in present if i == Intervention(token, kind)):
                pairs = [
                    _pair(cell, s)
                    for cell, stored_of in stored
                    for s in stored_of
                    if (s.intervention, s.protocol) == (Intervention(token, kind), protocol)
                ]
                key = {"protocol": protocol, "label": variant.label, "token": token, "kind": kind}
                for row in _rows(pairs, seed):
                    if variant.key_asked or row["metric"] not in OF_KEY:
                        yield key | row


def _pair(cell: CellResult, stored: Stored) -> tuple[ProtocolSamples, ...]:
    changed = replace(cell, samples=stored.samples)
    return on_common_examples([part_of(c, stored.protocol) for c in (cell, changed)])


def _rows(pairs: Sequence[tuple[ProtocolSamples, ...]], seed: int) -> Iterator[dict[str, object]]:
    images = images_of([part for pair in pairs for part in pair])

    def sums(part: ProtocolSamples) -> np.ndarray:
        return part.sums(len(images), images.get_indexer(part.image_ids))

    table = np.stack([np.stack([sums(part) for part in pair], 1) for pair in pairs], 1)
    value = inference.differences(table).mean(0)
    sides = ratios(table.sum(0)).mean(0)
    if len(pairs) > 1:
        spread = inference.sources(table)
        bounds = inference.student(value, spread.both, spread.freedom)
        p = inference.both_p(value, spread)
    else:
        bounds = inference.bootstrap(table, seed=seed)
        p = inference.swap_images(table, seed=seed)
    for m, measure in enumerate(MEASURES):
        yield {
            "metric": measure.name,
            "untouched": float(sides[0, m]),
            "replaced": float(sides[1, m]),
            "difference": float(value[m]),
            "low": float(bounds.low[m]),
            "high": float(bounds.high[m]),
            "p": float(p[m]),
            "seeds": len(pairs),
            "examples": len(pairs[0][0].samples),
            "images": len(images),
        }
