"""The margin of every measure: declared in points, said in the report, with a default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from keyseg.report.stats import scores
from keyseg.report.stats.margin import counted, margins, sentence
from keyseg.report.store import load
from keyseg.report.tables.contrasts import answers, rule


def test_a_declared_margin_is_in_points_and_the_default_is_told() -> None:
    design = {"margin": {"giou": 1}, "metrics": ["giou", "ciou"]}
    found = margins(design)
    assert (found["giou"], found["ciou"], found["no_seg_rate"]) == (0.01, 0.02, 0.01)
    text = sentence(design, ["giou", "ciou"])
    assert text == "gIoU 1 point (declared), cIoU 2 points (by default)"
    assert counted(0.015) == "1.5 points"


@pytest.mark.parametrize("points", [None, 99.0])
def test_the_report_follows_the_declared_margin(
    store: Callable[..., Path], points: float | None
) -> None:
    """A margin of 99 points makes everything small; the default shows nothing on 24 images."""
    folder = store(("seg_only", "full"), seeds=(0, 1, 2, 3), steps=8)
    if points:
        file = folder / "sweep.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "margin": {"giou": points}}))
    sweep = load(folder)
    held = scores.contrasts(sweep, 0)
    row = held[(held["metric"] == "giou") & (held["protocol"] == sweep.headline)].iloc[0]
    assert row["margin"] == (points or 2) / 100
    assert (row["holm_equivalence"] <= 0.05) == bool(points)
    assert row["verdict"] == ("no difference" if points else "inconclusive")
    text = rule(sweep, answers(sweep, held))
    assert ("gIoU 99 points (declared)" in text) == bool(points)
    assert "cIoU 2 points (by default)" in text
