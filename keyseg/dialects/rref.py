"""`rref`: R-RefCOCO's rules, in which a target is scored with all that is said of it.

Some expressions of a target are true of it, the others (its negatives) name nothing. rIoU: mean
over targets of I / U, both summed over the true expressions, U with what is predicted for the
negatives. r: mean over targets of the share of negatives left empty. P@X there compares the running
sum of a target's IoUs with X, so that a second expression nearly always reaches it: as printed.
"""

import operator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from keyseg.dialects.dialect import (
    PRECISION_AT,
    PRECISIONS,
    Dialect,
    mean,
    ratio,
    with_no_target,
)


def by_target(dialect: Dialect, examples: pd.DataFrame) -> dict[str, float]:
    """Scores in which every target weighs the same; expressions stand in the order of the data."""
    true = examples[examples["has_target"]]
    negatives = examples[~examples["has_target"]]
    targets = true.groupby("target", sort=False)
    both, either = targets["intersection"].sum(), targets["union"].sum()
    surplus = negatives.groupby("target")["union"].sum().reindex(either.index).fillna(0)
    left_empty = (~negatives["predicts"].astype(bool)).groupby(negatives["target"]).mean()
    running = targets["iou"].cumsum()
    return {
        "giou": mean(targets["iou"].mean()),
        "ciou": ratio(both.sum(), either.sum()),
        "riou": mean(both / (either + surplus)),
        "r": mean(left_empty),
        **{f"precision@{x}": mean(dialect.reaches(running, x)) for x in PRECISION_AT},
    }


def weights(examples: pd.DataFrame) -> NDArray[np.float64]:
    """In gIoU: a target's true expressions share its weight, negatives have none."""
    of_target = examples.groupby("target")["has_target"].transform("sum").to_numpy(float)
    return np.where(examples["has_target"], 1 / np.maximum(of_target, 1), 0.0)


DIALECT = Dialect(
    name="rref",
    used_by="R-RefCOCO, R-RefCOCO+, R-RefCOCOg (RefSegformer)",
    source="the public validation of https://github.com/jianzongwu/robust-ref-seg",
    count=with_no_target,
    reaches=operator.ge,
    scores=("giou", "ciou", *PRECISIONS, "riou", "r"),
    summary=by_target,
    weights=weights,
    limits="there a classifier may empty a mask, and pixels that are predicted for negatives are "
    "counted at the network's size; here at the image's",
)
