"""The data of each figure as a table, for those who draw it anew, in the units of its axes.

So scores are in percent and differences in points, where tables/*.csv have fractions.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from keyseg.metrics import THRESHOLDS
from keyseg.report.data import ReportData
from keyseg.report.figures import contrasts, pathway, test_scores
from keyseg.report.figures.curves import curve, panels
from keyseg.report.figures.interventions import shown as shown_interventions
from keyseg.report.stats.budgets import curves as budget_curves

_ENDS = [f"{end}{of}" for of in ("", "_images", "_seeds") for end in ("low", "high")]
_DRAWN = ["difference", *_ENDS]
_P = ["holm_images", "holm_both"]
_INTERVAL = ["value", "low", "high"]
_SCORE = ["label", "metric", *_INTERVAL]
_BAND = ["mean", "low", "high"]


def forest(data: ReportData) -> pd.DataFrame:
    """A row a contrast and metric; no number where the plot has a word: "says nothing"."""
    rows = data.contrasts[data.contrasts["protocol"] == data.sweep.headline]
    rows = rows[rows["metric"].isin(data.sweep.metrics)]
    said = (rows["verdict"] + " " + rows["at"].fillna("")).str.strip()
    shown = _percent(rows, _DRAWN).assign(verdict=said)
    shown = shown[["contrast", "metric", *_DRAWN, *_P, "verdict"]]
    silent = rows.index.difference(contrasts.speaking(data.sweep, data.contrasts).index)
    shown.loc[silent, [*_DRAWN, *_P]] = np.nan
    return shown


def path(data: ReportData) -> pd.DataFrame:
    """A row a variant of the path and metric, in the order of the path."""
    order = [variant.label for variant in pathway.steps(data.sweep)]
    rows = _whole(data)
    rows = rows[rows["label"].isin(order) & rows["metric"].isin(data.sweep.metrics)]
    places = rows["label"].map(order.index)
    kept: pd.DataFrame = rows.assign(step=places).sort_values(["metric", "step"])
    return _percent(kept, _INTERVAL)[["step", *_SCORE]]


def paired(data: ReportData) -> pd.DataFrame:
    """A row an example and contrast: mean IoU of both over common seeds."""
    parts = [
        both.rename_axis("id").reset_index().assign(contrast=contrast.name)
        for contrast, both in contrasts.pairs(data.sweep)
    ]
    return pd.concat(parts)[["contrast", "id", "of", "against"]]


def interventions(data: ReportData) -> pd.DataFrame:
    """A row a variant, token, kind and measure: replaced minus untouched."""
    drawn = ["difference", "low", "high"]
    rows = _percent(shown_interventions(data), drawn)
    return rows[["label", "token", "kind", "metric", *drawn, "holm", "examples"]]


def interaction(data: ReportData) -> pd.DataFrame:
    """A row a combination of both factors."""
    rows, columns = contrasts.two_factors(data.sweep)
    grid = contrasts.combinations(data.sweep, data.scores)
    return grid.rename(columns={"row": rows, "column": columns})


def by_slice(data: ReportData) -> pd.DataFrame:
    """A row a variant and value of a slice."""
    rows = data.scores[data.scores["protocol"] == data.sweep.headline]
    rows = rows[(rows["metric"] == "giou") & rows["slice"].isin(list(data.slices))]
    return _percent(rows, _INTERVAL)[["slice", "group", *_SCORE, "examples"]]


def learning_curves(data: ReportData) -> pd.DataFrame:
    """A row a variant, curve and step: mean, lowest and highest seed."""
    parts = []
    for name, title in panels(data.sweep):
        scores = _BAND if title.endswith("(%)") else []
        curves = [curve(v, name).assign(variant=v.label, name=name) for v in data.sweep.variants]
        parts += [_percent(part, scores) for part in curves if len(part)]
    return pd.concat(parts)[["variant", "name", "step", *_BAND]]


def budget(data: ReportData) -> pd.DataFrame:
    """A row a variant and budget."""
    metric = data.sweep.metrics[0]
    rows = [
        (c.label, metric, b.steps, b.hours, 100 * b.value, 100 * b.low, 100 * b.high, b.plateau)
        for c in budget_curves(data.sweep, data.scores, metric)
        for b in c.budgets
    ]
    names = ["variant", "metric", "steps", "hours", "value", "low", "high", "plateau"]
    return pd.DataFrame(rows, columns=names)


def precision(data: ReportData) -> pd.DataFrame:
    """A row a protocol, variant and threshold: share of examples above, over seeds."""
    parts = []
    for protocol in data.sweep.protocols:
        for variant in data.sweep.variants:
            if variant.finished:
                shares = 100 * test_scores.shares_above(variant, protocol)
                columns = {"mean": shares.mean(0), "low": shares.min(0), "high": shares.max(0)}
                frame = pd.DataFrame({"iou_above": test_scores.IOU_GRID, **columns})
                parts.append(frame.assign(protocol=protocol, variant=variant.label))
    every = pd.concat(parts)[["protocol", "variant", "iou_above", "mean", "low", "high"]]
    return every[every["iou_above"].round(2).isin([0.0, *np.round(THRESHOLDS, 2), 1.0])]


def keyword(data: ReportData) -> pd.DataFrame:
    """A row a variant: keyword accuracy by fifth of IoU, and the share of each outcome."""
    rows = []
    for variant in data.sweep.variants:
        if variant.finished and variant.key_asked:
            accuracy, shares = test_scores.keyword_and_mask(variant, data.sweep.headline)
            names = [f"accuracy, IoU {i / 5:.1f} to {(i + 1) / 5:.1f}" for i in range(5)]
            names += [title for title, _, _ in test_scores.OUTCOMES]
            values = dict(zip(names, [*accuracy, *shares], strict=True))
            rows.append({"variant": variant.label, **values})
    return pd.DataFrame(rows)


def cost(data: ReportData) -> pd.DataFrame:
    """A row a variant: hours of a run, trained parameters, gIoU with its interval."""
    rows = _whole(data)
    rows = rows[rows["metric"] == "giou"].set_index("label")
    finished = [v for v in data.sweep.variants if v.finished]
    frame = rows.loc[[v.label for v in finished], _INTERVAL].reset_index()
    return _percent(frame, _INTERVAL).assign(
        hours=[v.hours for v in finished],
        trained_parameters=[v.mean("trainable_parameters") for v in finished],
    )


def _whole(data: ReportData) -> pd.DataFrame:
    """Scores of the whole test split under the headline protocol."""
    scores = data.scores
    kept: pd.DataFrame = scores[
        (scores["slice"] == "") & (scores["protocol"] == data.sweep.headline)
    ]
    return kept


def _percent(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows whose fractions in these columns are percent, or points."""
    return rows.assign(**{name: 100 * rows[name].astype(float) for name in columns})
