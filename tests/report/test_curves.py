"""What a learning curve is drawn of: the mean over seeds, and a band from lowest to highest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keyseg.report.figures.curves import curve, learning_curves
from keyseg.report.figures.style import figure_style
from keyseg.report.store import CellResult, Sweep, variants_of

STEPS = [0, 10, 20]
GIOU = {0: [0.1, 0.4, 0.6], 1: [0.3, 0.4, 0.8]}
"""By seed."""


def made(values: dict[int, list[float]]) -> Sweep:
    cells = []
    for seed, column in values.items():
        rows = pd.DataFrame({"name": "val/giou", "value": column, "step": STEPS, "time": 0.0})
        loss = rows.assign(name="train/loss", value=[3.0, 2.0, 1.0])
        metrics = pd.concat([rows, loss], ignore_index=True)
        place = Path(f"outputs/x/full{seed}")
        cells.append(
            CellResult(
                f"full{seed}",
                "full",
                {"fusion": "full"},
                seed,
                place,
                status="running",
                info={},
                metrics=metrics,
                samples=pd.DataFrame(),
            )
        )
    design = {"name": "x", "baseline": {"fusion": "full"}, "factors": {"fusion": ["full"]}}
    return Sweep(Path("outputs/x"), design, tuple(variants_of(cells)))


def titles(ax) -> set[str]:
    return {ax.get_title(place) for place in ("left", "center", "right")}


def panel(sweep: Sweep, title: str):
    with figure_style():
        return next(ax for ax in learning_curves(sweep).axes if title in titles(ax))


def test_scores_in_percent_with_a_band_from_seed_to_seed():
    ax = panel(made(GIOU), "val gIoU (%)")
    (line,) = ax.lines
    assert line.get_xdata().tolist() == STEPS
    assert line.get_ydata() == pytest.approx([20, 40, 70])
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for step, low, high in zip(STEPS, (10, 40, 60), (30, 40, 80), strict=True):
        there = corners[corners[:, 0] == step][:, 1]
        assert (there.min(), there.max()) == pytest.approx((low, high))


def test_losses_as_they_are_and_one_seed_without_a_band():
    ax = panel(made({0: GIOU[0]}), "train loss, total")
    (line,) = ax.lines
    assert line.get_ydata() == pytest.approx([3, 2, 1])
    assert not ax.collections


def test_values_that_are_not_finite_are_left_out_and_many_steps_are_averaged():
    (variant,) = made({0: [0.1, np.nan, 0.6]}).variants
    assert curve(variant, "val/giou")["step"].tolist() == [0, 20]
    many = np.arange(200)
    rows = pd.DataFrame({"name": "train/loss", "value": many, "step": many, "time": 0.0})
    (cell,) = variant.cells
    noisy = replace(variant, cells=(replace(cell, metrics=rows),))
    points = curve(noisy, "train/loss")
    assert len(points) == 50
    assert points["mean"].tolist() == pytest.approx([1.5 + 4 * k for k in range(50)], abs=0.6)
