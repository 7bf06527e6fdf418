"""What trainings that had not converged allow a report to say."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from keyseg.report import build
from keyseg.report.data import ReportData
from keyseg.report.figures import drawing, plotted
from keyseg.report.stats import scores
from keyseg.report.store import load
from keyseg.report.tables import contrasts
from keyseg.runs.run_directory import RunDirectory

RISES = [(0, 0.15), (20, 0.3), (40, 0.45), (60, 0.6), (80, 0.7)]
FLOOR = [(0, 0.15), (20, 0.12), (40, 0.14), (60, 0.13), (80, 0.16)]
FALLS = [(0, 0.15), (20, 0.6), (40, 0.6), (60, 0.2), (80, 0.16)]


def recurve(sweep: Path, label: str, curve: list[tuple[int, float]], *seeds: int) -> None:
    """Give the cells of a variant another curve on val."""
    design = json.loads((sweep / "sweep.json").read_text())
    for cell in design["cells"]:
        if cell["label"] == label and (not seeds or cell["seed"] in seeds):
            run = RunDirectory(sweep / cell["signature"])
            kept = [row for row in run.rows() if row.name != "val/giou"]
            rows = [kept[0]._replace(name="val/giou", value=v, step=s) for s, v in curve]
            run.metrics_file.unlink()
            run.log([*rows, *kept])


def held(sweep: Path) -> dict[str, dict[str, object]]:
    """Contrasts on gIoU by the label of their first side."""
    found = scores.contrasts(load(sweep), 0)
    own = found[(found["metric"] == "giou") & (found["protocol"] == "teacher_forced")]
    return {str(row["label"]): row for row in own.to_dict("records")}


def test_at_a_plateau_a_verdict_speaks_of_variants(store):
    row = held(store(seeds=(0, 1, 2)))["full"]
    assert row["training"] == "full: plateau; seg_only: plateau"
    assert row["at"] == ""
    assert str(row["sentence"]).startswith(f"{row['verdict']}: ")


def test_before_it_a_verdict_speaks_of_steps(store):
    sweep = store(seeds=(0, 1, 2))
    before = held(sweep)["full"]
    recurve(sweep, "full", RISES, 1)
    after = held(sweep)
    row = after["full"]
    assert row["training"] == "full: 2 plateau, 1 still rising; seg_only: plateau"
    assert row["at"] == "at 80 steps"
    assert row["verdict"] == before["verdict"]
    assert str(row["sentence"]).startswith(f"{row['verdict']} at 80 steps: ")
    assert row["difference"] == before["difference"]
    assert after["cross"]["at"] == ""
    loaded = load(sweep)
    answers = contrasts.answers(loaded, scores.contrasts(loaded, 0))
    answer = next(a for a in answers if a.contrast == "full − seg_only")
    assert answer.word == f"{row['verdict']} at 80 steps"
    assert not answer.text.startswith("at 80")


def test_seeds_that_rise_a_little_alone_are_judged_together(store):
    sweep = store(seeds=(0, 1, 2))
    slowly = [(0, 0.15), (20, 0.6), (40, 0.70), (60, 0.71), (80, 0.725)]
    recurve(sweep, "full", slowly, 1)
    row = held(sweep)["full"]
    told = "plateau on their mean (2 plateau, 1 still rising)"
    assert row["training"] == f"full: {told}; seg_only: plateau"
    assert row["at"] == ""
    variant = next(v for v in load(sweep).variants if v.label == "full")
    assert variant.training == told


def test_one_seed_before_its_plateau_is_not_told_how_to_judge_the_variant(store):
    sweep = store()
    assert "to judge the variant" in str(held(sweep)["full"]["sentence"])
    recurve(sweep, "seg_only", RISES)
    said = str(held(sweep)["full"]["sentence"])
    assert "at 80 steps" in said
    assert "variant" not in said


def test_different_budgets_are_both_told(store):
    sweep = store()
    for run in map(RunDirectory, sweep.glob("02*")):
        run.update(steps=400)
    recurve(sweep, "full", RISES)
    assert held(sweep)["full"]["at"] == "at 80 and 400 steps"


@pytest.mark.parametrize("label", ["seg_only", "full"])
def test_what_never_left_the_untrained_level_says_nothing(store, label):
    sweep = store(seeds=(0, 1))
    recurve(sweep, label, FLOOR)
    row = held(sweep)["full"]
    assert row["verdict"] == "says nothing"
    assert row["sentence"] == f"says nothing: {label} never left the untrained level"
    assert row["at"] == row["caveat"] == ""


def test_some_seeds_that_never_left_it_do_not_silence_the_others(store):
    sweep = store(seeds=(0, 1))
    recurve(sweep, "full", FLOOR, 1)
    row = held(sweep)["full"]
    assert row["verdict"] != "says nothing"
    assert row["at"] == "at 80 steps"
    assert "1 plateau, 1 never left the untrained level" in str(row["training"])


def test_an_untold_training_is_no_plateau(store):
    sweep = store()
    recurve(sweep, "full", RISES[1:])  # what it began from is not known
    assert held(sweep)["full"]["training"] == "full: not known; seg_only: plateau"
    assert held(sweep)["full"]["at"] == "at 80 steps"


def test_the_page_says_it_in_every_place(store, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    sweep = store(seeds=(0, 1))
    recurve(sweep, "cross", FLOOR)
    recurve(sweep, "full", FALLS)
    files = build(sweep, tmp_path / "report")
    for page in (files.html.read_text(), files.html.with_name("report.md").read_text()):
        assert "says nothing" in page
        assert "at 80 steps" in page
        assert "Not at a plateau." in page
    assert "(cross: never left the untrained level; full: collapsed)" in page
    results = pd.read_csv(next(f for f in files.tables if f.name == "results.csv"))
    words = dict(zip(results["variant"], results["training"], strict=True))
    floor = "never left the untrained level"
    assert words == {"seg_only": "plateau", "cross": floor, "full": "collapsed"}
    headline = next(f for f in files.tables if f.name == "headline.tex").read_text()
    assert all(word in headline for word in words.values())
    runs = pd.read_csv(next(f for f in files.tables if f.name == "runs.csv"))
    assert set(runs["training"]) == {"plateau", "never left the untrained level", "collapsed"}


def test_figures_are_drawn_of_a_contrast_that_says_nothing(store, tmp_path):
    sweep = store()
    recurve(sweep, "cross", FLOOR)
    loaded = load(sweep)
    held_ = scores.contrasts(loaded, 0)
    from keyseg.report.figures.style import figure_style

    with figure_style():
        makers = drawing.makers(ReportData(loaded, scores.scores(loaded, 0), held_, {}))
        figure = makers["forest"]()
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "says nothing" in texts
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert any("never left the" in label for label in labels)
    table = plotted.forest(ReportData(loaded, scores.scores(loaded, 0), held_, {}))
    known = table.set_index("verdict")[["difference", "low", "high_images", "holm_images"]].notna()
    assert not known.loc["says nothing"].any(axis=None)
    assert known.drop("says nothing").all(axis=None)


def test_where_every_contrast_says_nothing_there_are_words_and_no_empty_picture(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr(drawing, "FIGURES", {"forest": drawing.FIGURES["forest"]})
    sweep = store()
    recurve(sweep, "seg_only", FLOOR)
    files = build(sweep, tmp_path / "report")
    assert not [file.name for file in files.figures]
    page = files.html.read_text()
    screen = page[page.index("<main>") : page.index("</header>")]
    assert "No contrast has a difference to draw." in screen
    reason = "seg_only never left the untrained level"
    assert f"both contrasts say nothing of the variants ({reason})" in screen
