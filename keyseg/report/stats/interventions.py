"""Interventions on trained models against the same models untouched, paired by seed and example.

And one intervention against another, on the examples that have both. No training is added, so no
seed can have collapsed by what is done; all finished seeds count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from keyseg.metrics import MEASURES, OF_KEY, ratios
from keyseg.report.stats import inference
from keyseg.report.stats.parts import ProtocolSamples, images_of, on_common_examples, part_of
from keyseg.report.store import CellResult, Sweep, VariantResult
from keyseg.runs.interventions import REPLACED, REPLACEMENTS, Stored, read
from keyseg.runs.run_directory import RunDirectory

COMPARED = (
    ("oracle", "mean"),
    ("namesake_elsewhere", "swap"),
    ("namesake", "neighbour"),
    ("renamed", "swap"),
)
"""What the name is worth without a thing, with one elsewhere, with one beside the target; and what
the thing is worth under a wrong name."""

_UNTOUCHED = ""

INTERVENTION_COLUMNS = (
    "protocol",
    "label",
    "token",
    "kind",
    "against",
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
    """Whether a variant's interventions were read by several versions of the code.

    Of older results, that do not say theirs, nothing is known.
    """
    read_by = {s.of["code"] for cell in variant.finished for s in fresh(cell) if "code" in s.of}
    return len(read_by) > 1


def interventions(sweep: Sweep, seed: int) -> pd.DataFrame:
    """One row for each variant, intervention, protocol and measure; no rows without any.

    `against`: what it is held against, empty = the untouched model; `untouched` is the score under
    that. Intervals at 95 % over seeds and images, over images alone where there is one seed. Holm's
    correction runs over all interventions of a protocol and measure, and over all that are held
    against another.
    """
    rows = [row for variant in sweep.variants for row in _of(variant, seed)]
    frame = pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))
    if len(frame):
        families = [frame["protocol"], frame["metric"], frame["against"] == _UNTOUCHED]
        each = frame.groupby(families, sort=False)["p"]
        frame["holm"] = each.transform(lambda p: inference.holm(p.tolist()))
    return frame


def _of(variant: VariantResult, seed: int) -> Iterator[dict[str, object]]:
    protocols = dict.fromkeys(s.protocol for cell in variant.finished for s in fresh(cell))
    pairs = [*((kind, _UNTOUCHED) for kind in REPLACEMENTS), *COMPARED]
    for token in REPLACED:
        for protocol in protocols:
            parts = _parts(variant, token, protocol)
            for kind, against in pairs:
                seeds = sorted(parts[kind].keys() & parts[against].keys())
                if not seeds:
                    continue
                key = {"protocol": protocol, "label": variant.label, "token": token}
                each = [part for s in seeds for part in (parts[against][s], parts[kind][s])]
                for row in _rows(on_common_examples(each), seed):
                    if variant.key_asked or row["metric"] not in OF_KEY:
                        yield key | {"kind": kind, "against": against} | row


def _parts(
    variant: VariantResult, token: str, protocol: str
) -> Mapping[str, Mapping[int, ProtocolSamples]]:
    """What each kind gave, by seed; under `_UNTOUCHED` what the model gives by itself."""
    parts: dict[str, dict[int, ProtocolSamples]] = defaultdict(dict)
    for cell in variant.finished:
        parts[_UNTOUCHED][cell.seed] = part_of(cell, protocol)
        for stored in fresh(cell):
            if (stored.intervention.token, stored.protocol) == (token, protocol):
                changed = replace(cell, samples=stored.samples)
                parts[stored.intervention.kind][cell.seed] = part_of(changed, protocol)
    return parts


def _rows(each: Sequence[ProtocolSamples], seed: int) -> Iterator[dict[str, object]]:
    """`each`: by seed what it is held against and what was given, in turns; the same examples."""
    pairs = list(zip(each[::2], each[1::2], strict=True))
    images = images_of(each)

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
            "examples": len(each[0].samples),
            "images": len(images),
        }
