"""The report of a tuning, from a trials.json as the tuner writes it."""

import json
from itertools import combinations

import numpy as np
import pytest

from keyseg.report import tuning
from keyseg.report.tuning_data import Trial, load
from keyseg.report.tuning_plots import expected_best, lanes, slices

FLOAT = {"name": "FloatDistribution", "attributes": {"step": None, "low": 0.1, "high": 10.0}}
LOG = {**FLOAT, "attributes": {**FLOAT["attributes"], "log": True}}
PLAIN = {**FLOAT, "attributes": {**FLOAT["attributes"], "log": False}}
CHOICE = {"name": "CategoricalDistribution", "attributes": {"choices": ["dot", "cosine"]}}
SPACE = {"loss.a": LOG, "loss.b": PLAIN, "similarity": CHOICE}


def content(trials: int = 20, objectives=None) -> dict:
    rng = np.random.default_rng(0)
    objectives = objectives or {"val/giou": "maximize"}
    rows = []
    for n in range(trials):
        a, b = 10 ** rng.uniform(-1, 1), rng.uniform(0.1, 10)
        state = ("pruned" if n == 5 else "fail" if n == 7 else "complete") if n != 9 else "running"
        values = {"complete": [float(-(np.log(a) ** 2) - 0.01 * b), b], "pruned": [-3.0, 1.0]}
        rows.append(
            {
                "number": n,
                "state": state,
                "params": {"loss.a": a, "loss.b": b, "similarity": ["dot", "cosine"][n % 2]},
                "distributions": {k: json.dumps(d) for k, d in SPACE.items()},
                "values": values.get(state, [])[: len(objectives)] or None,
                "intermediate": {},
                "started": 1000.0 + 10 * (n // 2),
                "ended": None if state == "running" else 1009.0 + 10 * (n // 2),
                "cell": "c",
                "error": None,
                "from": None,
                "enqueued": n < 2,
            }
        )
    study = {"name": "t", "label": "", "fixed": [], "space": SPACE, "trials": rows}
    common = {"objectives": objectives, "sampler": "tpe", "pruner": "none", "workers": 2}
    return {**common, "n_trials": trials, "tune_per": None, "studies": [study]}


@pytest.fixture
def build(tmp_path):
    def build(written: dict) -> str:
        (tmp_path / "trials.json").write_text(json.dumps(written))
        page = tuning.build(tmp_path, tmp_path / "out")
        assert page is not None
        return page.read_text()

    return build


def figures(page: str) -> list[str]:
    return [part.split('"')[0] for part in page.split('<figure class="plot" id="tuning_')[1:]]


def test_the_page_has_every_figure_and_the_best(build, tmp_path):
    page = build(content())
    names = ["best_of_n", "history", "slices", "parallel", "importances", "timeline"]
    assert figures(page) == names
    best = load(content())[0].best
    assert f"best: trial {best.number}" in page
    assert "17 complete, 1 pruned, 1 fail, 1 running" in page
    assert all((tmp_path / "out" / "figures" / f"tuning_{n}.png").exists() for n in names)


def test_two_objectives_and_two_studies(build):
    written = content(objectives={"val/giou": "maximize", "seconds_per_step": "minimize"})
    study = written["studies"][0]
    written["studies"] = [{**study, "label": "cross"}, {**study, "label": "full"}]
    page = build(written)
    assert "pareto_cross" in figures(page)
    assert "history_full" in figures(page)


def test_too_early_for_most_figures(build):
    assert figures(build(content(1))) == ["history", "slices", "timeline"]
    assert figures(build(content(0))) == []


def test_nothing_tuned_nothing_written(tmp_path):
    assert tuning.build(tmp_path, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def test_importances_name_the_parameter_that_matters():
    found = load(content(60))[0].importances()
    assert found.keys() == {"fANOVA", "PED-ANOVA"}
    assert all(max(shares, key=shares.get) == "loss.a" for shares in found.values())


def test_expected_best_is_the_mean_over_all_subsets():
    values = [0.3, 0.9, 0.1, 0.5, 0.5]
    wanted = [np.mean([max(s) for s in combinations(values, n)]) for n in range(1, 6)]
    np.testing.assert_allclose(expected_best(values), wanted)


def test_every_parameter_has_its_points_on_the_scale_it_was_searched_on():
    figure = slices(load(content())[0])
    shown = {ax.get_title(): ax for ax in figure.axes}
    assert list(shown) == list(SPACE)
    assert {len(ax.collections[0].get_offsets()) for ax in shown.values()} == {17}
    assert shown["loss.a"].get_xscale() == "log"
    assert shown["loss.b"].get_xscale() == "linear"


def test_trials_on_the_lines_of_their_workers():
    spans = [(0, 4), (0, 2), (2, 4), (4, 8)]
    trials = [Trial(n, "complete", {}, (1.0,), *s, False, False) for n, s in enumerate(spans)]
    placed, used = lanes(trials, 2)
    assert placed == [0, 1, 1, 0]
    assert used == pytest.approx(12 / 16)
