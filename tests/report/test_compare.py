"""Figures of contrasts: what they show for two factors, one variant, and long names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keyseg.report.data import ReportData
from keyseg.report.figures import contrasts as compare
from keyseg.report.figures import drawing, pathway
from keyseg.report.figures.style import figure_style
from keyseg.report.page.checks import check
from keyseg.report.stats.scores import contrasts, scores
from keyseg.report.store import load
from keyseg.report.tables.contrasts import answers, verdicts
from keyseg.report.tables.contrasts import contrasts as brief_contrasts


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


def test_a_difference_that_dwarfs_the_others_folds_the_axis(crossed: Path) -> None:
    sweep = load(crossed)
    held = contrasts(sweep, 0)
    held = pd.concat([held.assign(contrast=held["contrast"] + more) for more in ("", "'", "''")])
    with figure_style():
        assert compare.forest(sweep, held).axes[0].get_xscale() == "linear"
        far = held["contrast"] == held["contrast"].iloc[0]
        held.loc[~far, ["difference", "low", "high"]] = 0.001, -0.002, 0.004
        held.loc[far, ["difference", "low", "high"]] = 0.7, 0.6, 0.8
        figure = compare.forest(sweep, held)
    for ax in figure.axes:
        assert ax.get_xscale() == "symlog"
        assert "logarithmic beyond" in ax.get_xlabel()


def test_a_declared_contrast_of_a_failed_cell_keeps_its_line_in_the_forest(crossed: Path) -> None:
    sweep = load(crossed)
    held = contrasts(sweep, 0)
    with figure_style():
        figure = compare.forest(sweep, held)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["gIoU", "cIoU"]
    row = held[(held["metric"] == "giou") & (held["protocol"] == "teacher_forced")].iloc[0]
    marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "|", None)]
    np.testing.assert_allclose(marks[-1].get_xdata(), [100 * row["difference"]])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == 2
    assert labels[1].startswith("loss: full")
    assert labels[1].endswith("(no result: 1 cell failed)")
    assert "no result" not in labels[0]
    assert [[t.get_text() for t in ax.texts] for ax in figure.axes] == [["no result"]] * 2


def test_a_contrast_without_a_result_keeps_its_line(crossed: Path) -> None:
    sweep = load(crossed)
    held = contrasts(sweep, 0)
    line = verdicts(sweep, held)[0].lines[-1]
    assert line.label == "loss: full · loss=b − full · loss=a"
    assert line.hole == "1 cell failed"
    assert line.entries[-1].word == "no result"
    assert {entry.value for entry in line.entries[:-2]} == {"–"}
    brief = brief_contrasts(sweep, held)
    assert brief is not None
    assert [line.hole for line in brief.lines] == ["", "no result: 1 cell failed"] * 2
    last = answers(sweep, held)[1]
    assert (last.word, last.text, last.hole) == ("no result", "1 cell failed", "")


def test_a_contrast_of_a_part_of_the_seeds_says_so(store: Callable[..., Path]) -> None:
    status = {("b", 1): "failed", ("b", 2): "missing", ("c", 0): "queued"}
    status |= {("c", 1): "queued", ("c", 2): "queued"}
    sweep = load(store(["a", "b", "c"], seeds=(0, 1, 2), images=6, status=status))
    held = contrasts(sweep, 0)
    said = [(a.contrast, a.word, a.hole) for a in answers(sweep, held)[:2]]
    assert said[0][2] == "1 of 3 seeds: 1 cell failed, 1 missing"
    assert said[1] == ("c − a", "no result", "")
    assert answers(sweep, held)[1].text == "3 cells stopped"
    with figure_style():
        labels = compare.forest(sweep, held).axes[0].get_yticklabels()
    assert "1 of 3 seeds: 1 cell failed, 1" in labels[0].get_text().replace("\n", " ")


def test_a_contrast_without_a_common_seed_says_so(store: Callable[..., Path]) -> None:
    """Its pairs do not share their chance, so that the difference is one of seeds, too."""
    status = {("a", 1): "failed", ("b", 0): "missing"}
    sweep = load(store(["a", "b"], seeds=(0, 1), images=6, status=status))
    said = answers(sweep, contrasts(sweep, 0))[0]
    assert said.hole == "no seed in common, paired: 1 with 0; 1 cell failed, 1 missing"


def test_contrasts_without_results_count_in_holms_correction(store: Callable[..., Path]) -> None:
    """A verdict must not get easier by reading the report before the sweep is complete."""
    labels = ["a", "b", "c", "d"]
    missing = {(label, 0): "missing" for label in "cd"}
    held = contrasts(load(store(labels, images=6, status=missing)), 0)
    row = held[held["contrast"] == "b − a"].iloc[0]
    assert row["holm_images"] == pytest.approx(min(1, 3 * row["p_images"]))


def test_a_step_of_the_path_without_results_breaks_its_line(store: Callable[..., Path]) -> None:
    made = load(store(["a", "b", "c"], images=6, status={("b", 0): "missing"}))
    steps = [{"fusion": "b"}, {"fusion": "c"}]
    sweep = replace(made, design={**made.design, "path": steps})
    with figure_style():
        ax = pathway.figure(sweep, scores(sweep, 0), contrasts(sweep, 0)).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b\n(no result)", "c"]
    np.testing.assert_array_equal(np.isnan(ax.lines[0].get_ydata()), [False, True, False])
    assert not ax.texts


def test_cells_that_wait_are_named_once_a_variant(store: Callable[..., Path]) -> None:
    status = {("b", seed): "missing" for seed in (0, 2)} | {("b", 1): "failed"}
    status |= {("c", seed): "queued" for seed in (0, 1, 2)}
    sweep = load(store(["a", "b", "c"], seeds=(0, 1, 2), images=4, status=status))
    assert [notice.title for notice in check(sweep)][:3] == [
        "Failed: b, seed 1.",
        "Missing: b, seeds 0, 2.",
        "Not finished: c, seeds 0, 1, 2.",
    ]


def test_nothing_finished_still_names_every_contrast(store: Callable[..., Path]) -> None:
    states = {(label, 0): "missing" for label in "abc"}
    sweep = load(store(["a", "b", "c"], images=4, status=states))
    held = contrasts(sweep, 0)
    assert [a.text for a in answers(sweep, held)] == ["2 cells missing"] * 4
    assert [line.hole for line in verdicts(sweep, held)[0].lines] == ["2 cells missing"] * 2
    assert "forest" not in drawing.makers(ReportData(sweep, scores(sweep, 0), held, {}))


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
