"""Queries that may have several targets: their stored masks, matched with the targets again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from keyseg.data.assignment import assign
from keyseg.data.files import DataError
from keyseg.dialects.run_lengths import area, common

_LISTS = ("masks_rle", "targets_rle")


def has_several(samples: pd.DataFrame) -> bool:
    """Whether these samples have queries that may have several targets."""
    return set(_LISTS) <= set(samples) and bool(samples["targets_rle"].notna().any())


def matched(samples: pd.DataFrame) -> pd.DataFrame:
    """The queries that may have several targets, a row each, none where there are none.

    Returns:
        A frame with the columns id, target, iou (of matched masks, over `most`), intersection,
        union, has_target, predicts, `most` (masks or targets, whichever are more) and right_count.

    Raises:
        DataError: a mask is damaged; names the example.
    """
    columns = ["id", "target", "iou", "intersection", "union", "has_target", "predicts"]
    if not has_several(samples):
        return pd.DataFrame(columns=[*columns, "most", "right_count"])
    rows = samples[samples["targets_rle"].notna()]
    sums = [_matched(row) for row in rows.to_dict("records")]
    frame = pd.DataFrame(sums, index=rows.index)
    ids = rows["id"].astype(str)
    frame.insert(0, "id", ids)
    frame.insert(1, "target", ids.str.rpartition("-")[0])
    return frame


def _matched(row: Mapping[Any, Any]) -> dict[str, Any]:
    size = int(row["height"]), int(row["width"])
    void = str(row.get("ignore_rle") or "")
    try:
        masks, targets = (list(map(str, json.loads(row[name]))) for name in _LISTS)
        of_targets = [area(t, *size) for t in targets]
        of_masks = [area(m, *size) - common(m, void, *size) for m in masks]
        both = np.array([[common(m, t, *size) for t in targets] for m in masks], np.int64)
    except (ValueError, TypeError) as error:
        raise DataError(f"masks of {row['id']}: {error}") from error
    both = both.reshape(len(masks), len(targets))
    either = np.add.outer(of_masks, of_targets).reshape(both.shape) - both
    assignment = assign(both, either, of_masks, of_targets)
    most = max(len(masks), len(targets))
    return {
        "iou": assignment.iou / most if most else 0.0,
        "intersection": assignment.intersection,
        "union": assignment.union,
        "has_target": bool(targets),
        "predicts": bool(masks),
        "most": most,
        "right_count": len(masks) == len(targets),
    }
