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
    both = of.merge(against[["id", "iou"]], on="id", suffixes=("", "_against"))
    if both.empty:
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    weight = dialect.weights(both)
    codes, names = pd.factorize(both["id"].map(images))
    gain = np.bincount(codes, weight * (both["iou"] - both["iou_against"]), len(names))
    whole = np.bincount(codes, weight, len(names))
    draws = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), _RESAMPLES
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = (draws @ gain) / (draws @ whole)
        value = float(gain.sum() / whole.sum())
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Difference(value, float(low), float(high), len(both))
