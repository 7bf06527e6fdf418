"""Figures of contrasts: what they show for two factors, one variant, and long names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keyseg.report import compare
from keyseg.report.checks import check
from keyseg.report.contrast_tables import verdicts
from keyseg.report.scores import contrasts, scores
from keyseg.report.store import load
from keyseg.report.style import figure_style


@pytest.fixture
def crossed(store: Callable[..., Path]) -> Path:
    """Two factors with two values each; one cell failed."""
    sweep = store([f"{f} · loss={w}" for f in ("cross", "full") for w in ("a", "b")], images=6,
                  status={("full · loss=b", 0): "failed"})  # fmt: skip
    design = json.loads((sweep / "sweep.json").read_text())
    for cell in design["cells"]:
        fusion, loss = cell["label"].split(" · loss=")
        cell["factors"] = {"fusion": fusion, "loss": loss}
    design |= {"factors": {"fusion": ["cross", "full"], "loss": ["a", "b"]}}
    design |= {"baseline": {"fusion": "cross", "loss": "a"}}
    design |= {"contrasts": [{"of": {"loss": "b"}, "against": {"loss": "a"}, "name": "loss"}]}
    (sweep / "sweep.json").write_text(json.dumps(design))
    return sweep


def test_two_factors_make_a_heat_map_with_its_hole(crossed: Path) -> None:
    sweep = load(crossed)
    assert compare.two_factors(sweep) == ["fusion", "loss"]
    table = scores(sweep, 0)
    with figure_style():
        axes = compare.interaction(sweep, table).axes
    texts = [t.get_text() for t in axes[0].texts]
    whole = table[(table["slice"] == "") & (table["metric"] == "giou")]
    whole = whole[whole["protocol"] == "teacher_forced"].set_index("label")["value"]
    assert texts == [f"{100 * value:.1f}" for value in whole]
    assert len(texts) == 3


def test_a_declared_contrast_of_a_failed_cell_is_left_out_of_the_forest(crossed: Path) -> None:
    sweep = load(crossed)
    held = contrasts(sweep, 0)
    assert set(held["contrast"]) == {"loss: cross · loss=b − cross · loss=a"}
    with figure_style():
        figure = compare.forest(sweep, held)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["gIoU", "cIoU"]
    row = held[(held["metric"] == "giou") & (held["protocol"] == "teacher_forced")].iloc[0]
    marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "|", None)]
    np.testing.assert_allclose(marks[-1].get_xdata(), [100 * row["difference"]])


def test_a_contrast_without_a_result_keeps_its_line(crossed: Path) -> None:
    sweep = load(crossed)
    line = verdicts(sweep, contrasts(sweep, 0))[0].lines[-1]
    assert line.label == "loss: full · loss=b − full · loss=a"
    assert line.hole == "full · loss=b: failed"
    assert {entry.value for entry in line.entries} == {"–"}


def test_runs_that_do_not_compare_are_flagged_first(crossed: Path) -> None:
    """One run of another commit and another protocol: both are named before all numbers."""
    plain = [notice.title for notice in check(load(crossed))]
    assert not {"Mixed commits.", "Mixed protocols."} & set(plain)
    file = next(crossed.glob("*/samples.parquet")).parent / "run.json"
    info = json.loads(file.read_text())
    info["git"] = {**info["git"], "commit": "f" * 40}
    info["protocol"] = {**(info.get("protocol") or {}), "split": "testB"}
    file.write_text(json.dumps(info))
    notices = {notice.title: notice for notice in check(load(crossed))}
    assert {"Mixed commits.", "Mixed protocols."} <= set(notices)
    assert "ffffffffff: " in notices["Mixed commits."].detail
    assert "testB" in notices["Mixed protocols."].detail


def test_long_names_stand_on_lines_of_their_own() -> None:
    name = "variant one with a long name · weight=1 − variant two with a long name · weight=2"
    first, *_, last = compare._two_lines(name).splitlines()
    assert first.startswith("variant one")
    assert last.startswith("− variant two") or "weight=2" in last
    assert "\n" not in compare._two_lines("full − cross")
