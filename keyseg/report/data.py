"""What the figures and sections of a report are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from keyseg.report.store import Sweep


@dataclass(frozen=True)
class ReportData:
    """A sweep and what was computed of it.

    scores: a row for each variant, protocol, slice and measure (`stats.scores.scores`). contrasts:
    a row for each contrast and measure (`stats.scores.contrasts`). slices: name -> its values.
    """

    sweep: Sweep
    scores: pd.DataFrame
    contrasts: pd.DataFrame
    slices: Mapping[str, Sequence[str]]
