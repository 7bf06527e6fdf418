"""What is measured: every metric as a ratio of two sums over examples.

Sums add up over images, slices and resamples, so one table of per-image sums serves the result
table, the slices and every bootstrap. Definitions are LISA's (gIoU, cIoU) and the discrepancy
rates of the paper's central claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from keyseg.metrics import RIGHT_MASK, THRESHOLDS, collisions, key_asked

WRONG_MASK = RIGHT_MASK
"""A mask with an IoU below this is wrong (discrepancy rates)."""


@dataclass(frozen=True)
class Measure:
    """`sum(numerator) / sum(denominator)` over examples; columns of `records`.

    `better`: +1 higher is better, -1 lower is better, 0 neither.
    """

    name: str
    title: str
    numerator: str
    denominator: str
    better: int
    explanation: str


MEASURES: tuple[Measure, ...] = (
    Measure("giou", "gIoU", "iou", "examples", 1, "mean IoU over examples"),
    Measure("ciou", "cIoU", "intersection", "union", 1, "summed intersection over summed union"),
    *(
        Measure(f"precision@{x}", f"P@{x}", f"above_{x}", "examples", 1, f"share with IoU > {x}")
        for x in THRESHOLDS
    ),
    Measure(
        "keyword_accuracy",
        "Keyword acc.",
        "keyword_right",
        "has_keyword",
        1,
        "KEY's top word is the keyword",
    ),
    Measure(
        "discrepancy_keyword_right_mask_wrong",
        "Key right, mask wrong",
        "right_wrong",
        "has_keyword",
        -1,
        f"share with the right keyword and IoU < {WRONG_MASK}",
    ),
    Measure(
        "discrepancy_keyword_wrong_mask_right",
        "Key wrong, mask right",
        "wrong_right",
        "has_keyword",
        -1,
        f"share with a wrong keyword and IoU ≥ {WRONG_MASK}",
    ),
    Measure("empty_rate", "Empty", "empty", "known_mask", -1, "share of empty predicted masks"),
    Measure("no_seg_rate", "No SEG", "no_seg", "examples", -1, "share of answers without SEG"),
    Measure("no_key_rate", "No KEY", "no_key", "key_asked", -1, "share of answers without KEY"),
    Measure("n_acc", "N-acc", "nothing_found", "no_target", 1, "no-target examples left empty"),
    Measure("t_acc", "T-acc", "something_found", "has_target", 1, "the others not left empty"),
)
NO_TARGET = ("n_acc", "t_acc")
"""Measures of data in which some expressions name nothing on purpose; absent elsewhere."""
OF_KEY = (
    *("keyword_accuracy", "discrepancy_keyword_right_mask_wrong"),
    *("discrepancy_keyword_wrong_mask_right", "no_key_rate"),
)
"""Measures of KEY and its keyword: not asked where answers hold no KEY."""
BY_NAME = {measure.name: measure for measure in MEASURES}
COLUMNS: tuple[str, ...] = tuple(
    dict.fromkeys(column for m in MEASURES for column in (m.numerator, m.denominator))
)
NUMERATORS = np.array([COLUMNS.index(m.numerator) for m in MEASURES])
DENOMINATORS = np.array([COLUMNS.index(m.denominator) for m in MEASURES])


NEEDED = (
    *("id", "image_id", "image", "query", "keyword", "protocol", "intersection", "union", "iou"),
    *("keyword_rank", "answer", "has_seg", "has_key", "height", "width"),
)
"""Columns that samples must have; stored masks and top words may be absent."""


def records(samples: pd.DataFrame) -> pd.DataFrame:
    """Per-example terms of every sum: `COLUMNS` (float), index as in `samples`.

    An example without a finite IoU counts in no sum; one without a keyword in no keyword sum, and
    one whose answer lacks KEY names no word, which is wrong; where no KEY is asked for, nothing of
    KEY is summed. Where the target was not stored, it
    is not known whether the prediction is empty. N-acc and T-acc (gRefCOCO) exist where some
    example of the table has no target.
    """
    iou = samples["iou"].astype(float)
    known = iou.notna() & np.isfinite(iou)
    asked = key_asked(samples)
    has_keyword = known & with_keyword(samples) & asked
    right = has_keyword & (samples["keyword_rank"].fillna(-1) == 0)
    # Predicted foreground outside of the ignored pixels, from the counts that are stored.
    target = target_area(samples)
    area = samples["intersection"] + samples["union"] - target
    no_target = target == 0
    has_target = (target > 0) & bool(no_target.any())
    columns: dict[str, Any] = {
        "examples": known,
        "iou": iou,
        "intersection": samples["intersection"],
        "union": samples["union"],
        **{f"above_{x}": iou > x for x in THRESHOLDS},
        "has_keyword": has_keyword,
        "keyword_right": right,
        "right_wrong": right & (iou < WRONG_MASK),
        "wrong_right": has_keyword & ~right & (iou >= WRONG_MASK),
        "known_mask": area.notna(),
        "empty": area == 0,
        "no_seg": ~samples["has_seg"].astype(bool),
        "no_key": ~samples["has_key"].astype(bool) & asked,
        "key_asked": known & asked,
        "no_target": no_target,
        "nothing_found": no_target & (area == 0),
        "has_target": has_target,
        "something_found": has_target & (area > 0),
    }
    frame = pd.DataFrame({name: columns[name].astype(float) for name in COLUMNS})
    return frame.where(known, 0.0)


def with_keyword(samples: pd.DataFrame) -> pd.Series[bool]:
    """Which examples have a keyword."""
    return samples["keyword"].notna() & (samples["keyword"] != "")


def target_area(samples: pd.DataFrame) -> pd.Series[float]:
    """Target foreground in pixels; NaN where no target is stored."""
    if "target_rle" not in samples:
        return pd.Series(np.nan, index=samples.index, dtype=float)
    stored = samples["target_rle"].fillna("").astype(str)
    sizes = zip(stored, samples["height"], samples["width"], strict=True)
    areas = [_area(counts, int(h), int(w)) if counts else np.nan for counts, h, w in sizes]
    return pd.Series(areas, index=samples.index, dtype=float)


@lru_cache(maxsize=2**16)
def _area(counts: str, height: int, width: int) -> float:
    """Every run of a sweep has the same targets: each is decoded once."""
    from pycocotools import mask as coco

    return float(coco.area([{"size": [height, width], "counts": counts.encode()}])[0])


def ratios(sums: np.ndarray) -> np.ndarray:
    """(..., len(COLUMNS)) sums -> (..., len(MEASURES)) values; NaN where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value: np.ndarray = sums[..., NUMERATORS] / sums[..., DENOMINATORS]
    return value


def majority(samples: pd.DataFrame) -> float:
    """Keyword accuracy of always naming the most frequent first token of these examples."""
    return _share_of(samples, "majority")


def colliding(samples: pd.DataFrame) -> float:
    """Share of keywords whose first token is another keyword's too; NaN where none was stored."""
    return _share_of(samples, "colliding") if "keyword_token" in samples else float("nan")


def _share_of(samples: pd.DataFrame, count: str) -> float:
    rows = samples[with_keyword(samples)]
    # Results from before first tokens were stored are told apart by whole keywords.
    tokens = rows["keyword_token" if "keyword_token" in rows else "keyword"]
    found = collisions(rows["keyword"], tokens)
    return getattr(found, count) / found.keywords if found.keywords else float("nan")
