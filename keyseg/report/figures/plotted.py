"""The data of each figure as a table, for those who draw it anew: scores as fractions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keyseg.metrics import THRESHOLDS
from keyseg.report.data import ReportData
from keyseg.report.figures import contrasts, pathway, test_scores
from keyseg.report.figures.curves import curve, panels
from keyseg.report.stats.budgets import curves as budget_curves

_FOREST = [
    "contrast",
    "metric",
    "difference",
    "low",
    "high",
    "low_images",
    "high_images",
    "low_seeds",
    "high_seeds",
    "holm_images",
    "holm_both",
    "verdict",
]
_SCORE = ["label", "metric", "value", "low", "high"]


def forest(data: ReportData) -> pd.DataFrame:
    """A row a contrast and metric."""
    rows = data.contrasts[data.contrasts["protocol"] == data.sweep.headline]
    kept: pd.DataFrame = rows.loc[rows["metric"].isin(data.sweep.metrics), _FOREST]
    return kept


def path(data: ReportData) -> pd.DataFrame:
    """A row a variant of the path and metric, in the order of the path."""
    order = [variant.label for variant in pathway.steps(data.sweep)]
    rows = _whole(data)
    rows = rows[rows["label"].isin(order) & rows["metric"].isin(data.sweep.metrics)]
    places = rows["label"].map(order.index)
    kept: pd.DataFrame = rows.assign(step=places).sort_values(["metric", "step"])
    return kept[["step", *_SCORE]]


def paired(data: ReportData) -> pd.DataFrame:
    """A row an example and contrast: mean IoU of both over common seeds."""
    parts = [
        both.rename_axis("id").reset_index().assign(contrast=contrast.name)
        for contrast, both in contrasts.pairs(data.sweep)
    ]
    return pd.concat(parts)[["contrast", "id", "of", "against"]]


def interaction(data: ReportData) -> pd.DataFrame:
    """A row a combination of both factors."""
    rows, columns = contrasts.two_factors(data.sweep)
    grid = contrasts.combinations(data.sweep, data.scores)
    named = grid.rename(columns={"row": rows, "column": columns})
    return named.assign(giou=named["giou"] / 100)


def by_slice(data: ReportData) -> pd.DataFrame:
    """A row a variant and value of a slice."""
    rows = data.scores[data.scores["protocol"] == data.sweep.headline]
    rows = rows[(rows["metric"] == "giou") & rows["slice"].isin(list(data.slices))]
    kept: pd.DataFrame = rows[["slice", "group", *_SCORE, "examples"]]
    return kept


def learning_curves(data: ReportData) -> pd.DataFrame:
    """A row a variant, curve and step: mean, lowest and highest seed."""
    parts = [
        curve(variant, name).assign(variant=variant.label, name=name)
        for name, _ in panels(data.sweep)
        for variant in data.sweep.variants
    ]
    kept = [part for part in parts if len(part)]
    return pd.concat(kept)[["variant", "name", "step", "mean", "low", "high"]]


def budget(data: ReportData) -> pd.DataFrame:
    """A row a variant and budget."""
    metric = data.sweep.metrics[0]
    rows = [
        (c.label, metric, b.steps, b.hours, b.value, b.low, b.high, b.plateau)
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
                shares = test_scores.shares_above(variant, protocol)
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
            values = np.array([*accuracy, *shares]) / 100
            rows.append({"variant": variant.label, **dict(zip(names, values, strict=True))})
    return pd.DataFrame(rows)


def cost(data: ReportData) -> pd.DataFrame:
    """A row a variant: hours of a run, trained parameters, gIoU with its interval."""
    rows = _whole(data)
    rows = rows[rows["metric"] == "giou"].set_index("label")
    found = [v for v in data.sweep.variants if v.finished]
    frame = rows.loc[[v.label for v in found], ["value", "low", "high"]].reset_index()
    return frame.assign(
        hours=[v.hours for v in found],
        trained_parameters=[v.mean("trainable_parameters") for v in found],
    )


def _whole(data: ReportData) -> pd.DataFrame:
    """Scores of the whole test split under the headline protocol."""
    scores = data.scores
    kept: pd.DataFrame = scores[
        (scores["slice"] == "") & (scores["protocol"] == data.sweep.headline)
    ]
    return kept
