"""A variant without KEY: what was not asked is said so, and counts in no sum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keyseg.metrics import OF_KEY, SOME_DATA
from keyseg.report import build
from keyseg.report.figures import drawing, test_scores
from keyseg.report.figures.style import figure_style
from keyseg.report.stats import scores
from keyseg.report.store import Sweep, load
from keyseg.report.tables import contrasts, headline, printed, results
from keyseg.report.tables.table import NOT_ASKED
from keyseg.runs.run_directory import RunDirectory


@pytest.fixture
def sweep(store: Callable[..., Path]) -> Path:
    """no_key and full, two seeds; the samples of no_key as its runs write them."""
    made = store(("no_key", "full"), seeds=(0, 1), images=12)
    for cell in load(made).cells:
        if cell.label == "no_key":
            run = RunDirectory(cell.directory)
            unasked = {"has_key": False, "key_asked": False, "keyword_rank": -1}
            run.write_samples(run.samples().assign(**unasked, predicted_keyword="", top_words="[]"))
    return made


@pytest.fixture
def loaded(sweep: Path) -> Sweep:
    return load(sweep)


def test_measures_of_key_have_no_value_and_all_others_do(loaded: Sweep) -> None:
    found = scores.scores(loaded, seed=0)
    whole = found[found["slice"] == ""].set_index(["label", "metric"])["value"]
    here = OF_KEY.difference(*SOME_DATA)  # without what is measured of several targets only
    assert here
    for name in here:
        assert np.isnan(whole["no_key", name]).all(), name
        assert np.isfinite(whole["full", name]).all(), name
    assert np.isfinite(whole["no_key", "giou"]).all()


def test_the_tables_say_not_asked(loaded: Sweep) -> None:
    measured, held = scores.scores(loaded, seed=0), scores.contrasts(loaded, seed=0)
    nothing = printed.load(Path("no such folder"))
    tables = [
        headline.table(loaded, measured, nothing),
        *results.results(loaded, measured)[:2],
    ]
    titles = {"Keyword acc.", "Key right, mask wrong", "Key wrong, mask right", "No KEY"}
    for table in tables:
        for line in table.lines:
            for title, entry in zip(table.header, line.entries, strict=True):
                unasked = title in titles and line.label == "no_key"
                assert (entry.value == NOT_ASKED) == unasked, (table.name, title, line.label)
    both = contrasts.contrasts(loaded, held)
    assert both is not None
    values = [entry.value for line in both.lines for entry in line.entries]
    assert values.count(NOT_ASKED) == 2 * 3  # two protocols, three measures of KEY in brief
    said = held[held["metric"] == "keyword_accuracy"]["sentence"]
    assert said.str.contains("not asked").all()


def test_the_page_says_so_and_the_keyword_figure_leaves_it_out(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    files = build(sweep, tmp_path / "report", formats=("md",))
    assert NOT_ASKED in files.markdown.read_text()
    with figure_style():
        figure = test_scores.keyword(load(sweep))
    drawn = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert drawn == ["full"]
