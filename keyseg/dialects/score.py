"""The stored masks of runs under any dialect: samples.parquet in, scores out.

Masks are compared as run lengths, without drawing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pandas as pd
from pycocotools import mask as coco

from keyseg.data.files import DataError
from keyseg.data.masks import check_run_lengths
from keyseg.data.pictures import check_size
from keyseg.dialects.dialect import Areas, Dialect

NEEDED = ("id", "height", "width", "mask_rle", "target_rle", "ignore_rle")

OF_SEVERAL_TEXTS = "ReasonSeg/"
"""What ids begin with where dialects differ in the queries that count: refer sets count all."""


def dialects() -> dict[str, Dialect]:
    """Every dialect by name: the files of this folder that define one."""
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    modules = [import_module(f"keyseg.dialects.{name}") for name in names]
    found = [module.DIALECT for module in modules if hasattr(module, "DIALECT")]
    return {dialect.name: dialect for dialect in found}


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
        expression is of), iou, intersection, union, has_target and predicts.

    Raises:
        DataError: a column of masks is missing, or a mask is damaged.
    """
    counted = areas(samples)
    ids = samples["id"].astype(str)
    other_texts = ids.str.startswith(OF_SEVERAL_TEXTS) & ~ids.str.endswith("-0")
    frames = {}
    for dialect in asked:
        columns = dialect.count(counted)._asdict()
        frame = pd.DataFrame(columns, index=samples.index)
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
    both = _common(mask, target, *size), _common(mask, ignored, *size)
    return _area(mask, *size), _area(target, *size), _area(ignored, *size), *both


@lru_cache(maxsize=2**16)
def _area(code: str, height: int, width: int) -> int:
    """Pixels of a mask. Every run of a sweep has the same targets: each is read once.

    Raises:
        ValueError: the run lengths are damaged or of another size.
    """
    check_size(height, width)
    if not code:
        return 0
    check_run_lengths(code, height, width)
    return int(coco.area({"size": [height, width], "counts": code.encode()}))


def _common(first: str, second: str, height: int, width: int) -> int:
    """Pixels in both masks, which must be whole (`_area`)."""
    if not (_area(first, height, width) and _area(second, height, width)):
        return 0
    runs = [{"size": [height, width], "counts": code.encode()} for code in (first, second)]
    return int(coco.area(coco.merge(runs, intersect=True)))
