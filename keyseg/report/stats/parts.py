"""What a run said of one protocol, ready to be summed by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from keyseg.report.stats import inference
from keyseg.report.store import CellResult

SLICE = "slice_"
"""What names of columns begin with that tell examples apart."""
Group = tuple[str, str]
"""A slice and a value of it; two empty texts are the whole test split."""
WHOLE_SPLIT: Sequence[Group] = [("", "")]


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


def part_of(cell: CellResult, protocol: str) -> ProtocolSamples:
    """The part of a cell under a protocol; without rows where it was not read so."""
    kept = (cell.samples["protocol"] == protocol).to_numpy()
    return ProtocolSamples(cell, cell.samples[kept], inference.columns_of(cell.terms)[kept])


def images_of(parts: Sequence[ProtocolSamples]) -> pd.Index[str]:
    """Every image of some parts, in one order."""
    return pd.Index(sorted(set().union(*(p.image_ids.unique() for p in parts))))


def on_common_examples(parts: Sequence[ProtocolSamples]) -> tuple[ProtocolSamples, ...]:
    """The parts without the examples that some of them lack."""
    first = parts[0].samples["id"].array
    if all(part.samples["id"].array.equals(first) for part in parts[1:]):
        return tuple(parts)
    common = set.intersection(*(set(part.samples["id"]) for part in parts))
    return tuple(_only(part, part.samples["id"].isin(common).to_numpy()) for part in parts)


def _only(part: ProtocolSamples, kept: np.ndarray) -> ProtocolSamples:
    return part if kept.all() else ProtocolSamples(part.cell, part.samples[kept], part.terms[kept])
