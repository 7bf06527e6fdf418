"""The stored masks of runs under any dialect: samples.parquet in, scores out.

Masks are compared as run lengths, without drawing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pandas as pd

from keyseg.data.files import DataError
from keyseg.dialects.dialect import Areas, Dialect
from keyseg.dialects.matched import matched
from keyseg.dialects.run_lengths import area, common

NEEDED = ("id", "height", "width", "mask_rle", "target_rle", "ignore_rle")

OF_SEVERAL_TEXTS = "ReasonSeg/"
"""What ids begin with where dialects differ in the queries that count: refer sets count all."""


def dialects() -> dict[str, Dialect]:
    """Every dialect by name: the files of this folder that define one."""
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    modules = [import_module(f"keyseg.dialects.{name}") for name in names]
    known = [module.DIALECT for module in modules if hasattr(module, "DIALECT")]
    return {dialect.name: dialect for dialect in known}


def score(samples: pd.DataFrame, asked: Sequence[Dialect]) -> dict[str, dict[str, float]]:
    """Scores of one protocol's rows of samples.parquet under each dialect.

    Raises:
        DataError: a column of masks is missing, or a mask is damaged.
    """
    by_dialect = seen(samples, asked)
    return {dialect.name: dialect.summarise(by_dialect[dialect.name]) for dialect in asked}


def seen(samples: pd.DataFrame, asked: Iterable[Dialect]) -> dict[str, pd.DataFrame]:
    """The examples that count under each dialect, as it sees them; masks are read once.

    Returns:
        For each dialect a frame with the index of `samples` and the columns id, target (what the
        expression is of), iou, intersection, union, has_target and predicts. Under a dialect of
        queries that may have several targets: those alone, with the columns of `matched`.

    Raises:
        DataError: a column of masks is missing, or a mask is damaged.
    """
    counted = areas(samples)
    ids = samples["id"].astype(str)
    other_texts = ids.str.startswith(OF_SEVERAL_TEXTS) & ~ids.str.endswith("-0")
    frames = {}
    for dialect in asked:
        if dialect.several:
            frames[dialect.name] = matched(samples)
            continue
        columns = dialect.count(counted)._asdict()
        frame = pd.DataFrame(columns, index=samples.index)
        if dialect.by_token and "rejected" in samples:
            said = samples["rejected"].fillna(False).astype(bool)
            frame["predicts"] = ~said
            frame.loc[~frame["has_target"] & frame["predicts"], "iou"] = 0.0
        frame.insert(0, "id", ids)
        frame.insert(1, "target", ids.str.rpartition("-")[0])
        frames[dialect.name] = frame if dialect.texts == "all" else frame[~other_texts]
    return frames


def areas(samples: pd.DataFrame) -> Areas:
    """Pixels of the stored masks.

    Raises:
        DataError: a column of masks is missing, or a mask is damaged; names the example.
    """
    missing = [name for name in NEEDED if name not in samples]
    if missing:
        raise DataError(f"these samples hold no masks to score again: no {', '.join(missing)}")
    if "intersection" in samples and (samples["intersection"].gt(0) & _absent(samples)).any():
        raise DataError("these samples hold no masks to score again: targets were not stored")
    rows = []
    for name, height, width, *codes in samples[list(NEEDED)].to_numpy(object).tolist():
        mask, target, ignored = map(_text, codes)
        try:
            rows.append(_areas(mask, target, ignored, int(height), int(width)))
        except ValueError as error:
            raise DataError(f"masks of {name}: {error}") from error
    columns = np.array(rows, np.int64).reshape(-1, len(Areas._fields)).T
    return Areas(*columns)


def _absent(samples: pd.DataFrame) -> pd.Series[bool]:
    return samples["target_rle"].fillna("").eq("")


def _text(code: object) -> str:
    """Run lengths as stored; of what was not stored, those of the empty mask."""
    return code if isinstance(code, str) else ""


def _areas(mask: str, target: str, ignored: str, height: int, width: int) -> tuple[int, ...]:
    size = height, width
    both = common(mask, target, *size), common(mask, ignored, *size)
    return area(mask, *size), area(target, *size), area(ignored, *size), *both
