"""Two runs under one dialect, paired by example: whose masks have the higher gIoU?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from keyseg.dialects.dialect import Dialect

_RESAMPLES = 2000


class Difference(NamedTuple):
    """Of gIoU, with its 95 % interval over images (bootstrap), and on how many examples."""

    value: float
    low: float
    high: float
    examples: int


def difference(
    dialect: Dialect, of: pd.DataFrame, against: pd.DataFrame, images: pd.Series[str]
) -> Difference:
    """gIoU of one run less that of another on the examples that both have.

    Args:
        of, against: of each run what the dialect sees (`score.seen`).
        images: the image of each example, by its id; resampled as a whole.
    """
    both = set(of["id"]) & set(against["id"])
    if not both:
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    kept = [frame[frame["id"].isin(both)].drop_duplicates("id") for frame in (of, against)]
    names = pd.unique(kept[0]["id"].map(images))
    draws = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), _RESAMPLES
    )
    scores = []
    for frame in kept:  # a query may weigh otherwise in the other run: by how many masks it has
        codes = pd.Categorical(frame["id"].map(images), categories=names).codes
        weight = dialect.weights(frame)
        gain = np.bincount(codes, weight * frame["iou"], len(names))
        whole = np.bincount(codes, weight, len(names))
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append((gain.sum() / whole.sum(), (draws @ gain) / (draws @ whole)))
    (value, resampled), (other, other_resampled) = scores
    low, high = np.nanquantile(resampled - other_resampled, [0.025, 0.975])
    return Difference(float(value - other), float(low), float(high), len(both))
