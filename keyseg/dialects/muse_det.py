"""`muse_det`: MUSE's scores, but masks and targets are matched without chance.

PixelLM's evaluation matches by BCE and Dice at random points, unseeded, and its printed numbers
come of a further step with GPT that is not public. Here the sum of IoUs at the images' own sizes is
highest, so the same masks have the same number; it is another dialect than the one in print.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from keyseg.dialects.dialect import Dialect, mean, ratio, without_ignored


def by_match(_: Dialect, queries: pd.DataFrame) -> dict[str, float]:
    """Scores over matched masks; n_acc and t_acc by whether an answer has a mask at all."""
    there = queries["has_target"].to_numpy(bool)
    says = queries["predicts"].to_numpy(bool)
    return {
        "giou": ratio((queries["iou"] * queries["most"]).sum(), queries["most"].sum()),
        "ciou": ratio(queries["intersection"].sum(), queries["union"].sum()),
        "count": mean(queries["right_count"].to_numpy(bool)),
        "n_acc": mean(~says[~there]),
        "t_acc": mean(says[there]),
    }


def weights(queries: pd.DataFrame) -> NDArray[np.float64]:
    """In gIoU: a query weighs as much as it has masks or targets, whichever are more."""
    return queries["most"].to_numpy(float)


DIALECT = Dialect(
    name="muse_det",
    used_by="this project, for MUSE and MMR (data.targets=each)",
    source="PixelLM's public evaluation of MUSE, but for its random matching",
    count=without_ignored,
    several=True,
    scores=("giou", "ciou", "count", "n_acc", "t_acc"),
    summary=by_match,
    weights=weights,
    limits="masks and targets are matched so that the sum of IoUs is highest; numbers of MUSE in "
    "print are matched at random points and go through GPT, and do not stand beside these",
)
