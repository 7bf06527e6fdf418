"""What the figures and sections of a report are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from keyseg.report.store import Sweep

if TYPE_CHECKING:
    from keyseg.report.stats.evaluations import OnTestSet


@dataclass(frozen=True)
class ReportData:
    """A sweep and what was computed of it.

    scores: a row for each variant, protocol, slice and measure (`stats.scores.scores`). contrasts:
    a row for each contrast and measure (`stats.scores.contrasts`). slices: name -> its values.
    evaluated: the same by test set, where runs were read on other data. published: numbers in print
    (`tables.printed`). replaced: interventions (`stats.interventions`).
    """

    sweep: Sweep
    scores: pd.DataFrame
    contrasts: pd.DataFrame
    slices: Mapping[str, Sequence[str]]
    evaluated: Sequence[OnTestSet] = ()
    published: pd.DataFrame = field(default_factory=pd.DataFrame)
    replaced: pd.DataFrame = field(default_factory=pd.DataFrame)
