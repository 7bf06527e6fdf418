"""The stored masks of runs under any dialect: samples.parquet in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pandas as pd

from keyseg.data.files import DataError
from keyseg.data.masks import decode_rle
from keyseg.dialects.dialect import Counted, Dialect, Masks

NEEDED = ("id", "height", "width", "mask_rle", "target_rle", "ignore_rle")


def dialects() -> dict[str, Dialect]:
    """Every dialect by name: the files of this folder that define one."""
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    modules = [import_module(f"keyseg.dialects.{name}") for name in names]
    found = [module.DIALECT for module in modules if hasattr(module, "DIALECT")]
    return {dialect.name: dialect for dialect in found}


def score(samples: pd.DataFrame, asked: Sequence[Dialect]) -> dict[str, dict[str, float]]:
    """Scores of one protocol's rows of samples.parquet under each dialect; masks are read once.

    Raises:
        DataError: a column of masks is missing, or a mask is damaged.
    """
    missing = [name for name in NEEDED if name not in samples]
    if missing:
        raise DataError(f"these samples hold no masks to score again: no {', '.join(missing)}")
    counted: dict[str, list[Counted]] = {dialect.name: [] for dialect in asked}
    for row in samples[list(NEEDED)].itertuples(index=False):
        masks = _decoded(row)
        for dialect in asked:
            if dialect.texts == "all" or str(row.id).endswith("-0"):
                counted[dialect.name].append(dialect.count(masks))
    return {dialect.name: dialect.summarise(counted[dialect.name]) for dialect in asked}


def _decoded(row: Any) -> Masks:
    """The masks of a row.

    Raises:
        DataError: run lengths are damaged; names the example.
    """
    codes = (row.mask_rle, row.target_rle, row.ignore_rle)
    try:
        return Masks(*(decode_rle(c or "", int(row.height), int(row.width)) == 1 for c in codes))
    except ValueError as error:
        raise DataError(f"masks of {row.id}: {error}") from error
