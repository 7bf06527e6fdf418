"""The part of the report on a tuning, from a trials.json as the tuner writes it."""

import json
from itertools import combinations

import numpy as np
import pytest

from keyseg.report.tuning import section as tuning
from keyseg.report.tuning.figures import expected_best, history, importances, pareto
from keyseg.report.tuning.figures import timeline as draw_timeline
from keyseg.report.tuning.space import contour, parallel, slices
from keyseg.report.tuning.timeline import timeline
from keyseg.report.tuning.trials import Study, load, parse

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
        begin = 1000.0 + 10 * (n // 2)
        rows.append(
            {
                "number": n,
                "state": state,
                "params": {"loss.a": a, "loss.b": b, "similarity": ["dot", "cosine"][n % 2]},
                "distributions": {k: json.dumps(d) for k, d in SPACE.items()},
                "values": values.get(state, [])[: len(objectives)] or None,
                "intermediate": {},
                "started": begin,
                "ended": None if state == "running" else begin + 9,
                "worked": [] if state == "running" else [[begin, begin + 9]],
                "cell": "c",
                "error": None,
                "from": None,
                "enqueued": n < 2,
            }
        )
    study = {"name": "t", "label": "", "fixed": [], "space": SPACE, "trials": rows}
    study["default"] = {"loss.a": 2.0, "similarity": "dot"}
    common = {"objectives": objectives, "sampler": "tpe", "pruner": "none"}
    calls = [[1000.0, 1000.0 + 5 * trials, 2]]
    return {
        **common,
        "n_trials": trials,
        "tune_per": None,
        "invocations": calls,
        "studies": [study],
    }


def study(*, trials: int = 20, objectives=None, change=lambda written: None) -> Study:
    written = content(trials, objectives)
    change(written["studies"][0])
    return parse("t", written).studies[0]


@pytest.fixture
def unsaved(monkeypatch):
    """Files of figures take most of the time; where their names are asked for they are not made."""
    monkeypatch.setattr(
        tuning, "save", lambda figure, folder, name, _: tuple(folder / f"{name}.{k}" for k in "abc")
    )


@pytest.fixture
def build(tmp_path):
    def build(written: dict) -> tuning.Section:
        (tmp_path / "trials.json").write_text(json.dumps(written))
        (found,) = tuning.sections([tmp_path], tmp_path / "figures")
        return found

    return build


def names(section: tuning.Section) -> list[str]:
    return [figure.files[0].stem.removeprefix("tuning_") for figure in section.figures]


def test_every_figure_is_drawn_and_the_best_is_named(build):
    section = build(content())
    assert names(section) == [
        "history",
        "importances",
        "slices",
        "contour",
        "parallel",
        "best_of_n",
        "timeline",
    ]
    assert all(file.stat().st_size for figure in section.figures for file in figure.files)
    best = study().best
    first = section.parts[0]
    assert f"best: trial {best.number}, val/giou" in first.summary
    assert "17 complete, 1 pruned, 1 fail, 1 running" in first.summary
    rows = {key: (default, value) for key, default, value in first.rows}
    assert rows["loss.a"] == ("2", f"{best.params['loss.a']:.4g}")
    assert rows["loss.b"][0] == "–"  # the config has none
    assert section.method == "Sampler tpe, pruner none, 2 at a time."


def test_two_objectives_and_two_studies(build, unsaved):
    written = content(objectives={"val/giou": "maximize", "seconds_per_step": "minimize"})
    first = written["studies"][0]
    written["studies"] = [{**first, "label": "cross"}, {**first, "label": "full"}]
    section = build(written)
    assert [part.label for part in section.parts] == [None, "cross", "full"]
    assert names(section)[:2] == ["best_of_n", "timeline"]  # what all studies share comes first
    assert {"pareto_cross", "history_full"} <= set(names(section))


def test_too_early_for_most_figures(build, unsaved):
    assert names(build(content(1))) == ["history", "slices", "timeline"]
    empty = build(content(0))
    assert names(empty) == []
    assert empty.parts[0].summary == "no trial yet; none has a value."


def test_nothing_tuned_nothing_written(tmp_path):
    assert tuning.sections([tmp_path], tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_read_says_which_and_what_to_do(tmp_path):
    (tmp_path / "trials.json").write_text("{}")
    with pytest.raises(ValueError, match=r"trials\.json cannot be read .*'objectives'.*again"):
        load(tmp_path)


def test_what_breaks_a_constraint_is_not_the_best(build, unsaved):
    written = content()
    (raw,) = written["studies"]
    done = [t for t in raw["trials"] if t["state"] == "complete"]
    best, second = sorted(done, key=lambda t: -t["values"][0])[:2]
    assert f"best: trial {best['number']}," in build(written).parts[0].summary
    best["beyond"], second["beyond"] = {"minutes": 0.1}, {"minutes": -0.1}
    assert f"best: trial {second['number']}," in build(written).parts[0].summary
    for trial in raw["trials"]:
        trial["beyond"] = {"minutes": 1.0}
    section = build(written)
    assert section.parts[0].summary.endswith("none has a value that keeps to the constraints.")
    assert "history" in [f.name for f in section.figures]


def test_a_study_of_any_label_has_files_of_its_own(build):
    written = content(1)  # few figures
    (raw,) = written["studies"]
    written["studies"] = [raw | {"label": label} for label in ("a/b", "a-b", "../c")]
    files = [f.files[0] for part in build(written).parts for f in part.figures]
    assert len({file.name for file in files}) == len(files)
    assert all(file.exists() for file in files)


def test_importances_name_the_parameter_that_matters():
    here = study(trials=60)
    found = here.importances
    assert found.keys() == {"fANOVA", "PED-ANOVA"}
    assert all(max(shares, key=shares.get) == "loss.a" for shares in found.values())
    assert here.by_importance()[0] == "loss.a"
    figure = importances(here)
    (ax,) = figure.axes
    figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    bars = [bar.get_window_extent() for group in ax.containers for bar in group]
    assert not any(box.overlaps(bar) for bar in bars)
    assert not box.overlaps(ax.get_window_extent().padded(-1))  # nor bars that are longer
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fANOVA", "PED-ANOVA"]
    widths = [bar.get_width() for bar in ax.containers[0]]
    assert widths == pytest.approx([found["fANOVA"][key] for key in here.by_importance()])


def test_expected_best_is_the_mean_over_all_subsets():
    values = [0.3, 0.9, 0.1, 0.5, 0.5]
    wanted = [np.mean([max(s) for s in combinations(values, n)]) for n in range(1, 6)]
    np.testing.assert_allclose(expected_best(values), wanted)


def test_every_parameter_has_its_points_on_the_scale_it_was_searched_on():
    figure = slices(study())
    shown = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert set(shown) == set(SPACE)
    assert {len(ax.collections[0].get_offsets()) for ax in shown.values()} == {17}
    assert shown["loss.a"].get_xscale() == "log"
    assert shown["loss.b"].get_xscale() == "linear"
    lines = {line.get_label(): line for line in shown["loss.a"].lines}
    assert lines["default"].get_xdata()[0] == 2.0
    assert lines["best"].get_xdata()[0] == study().best.params["loss.a"]
    assert "default" not in {line.get_label() for line in shown["loss.b"].lines}


def test_the_contour_is_over_the_two_numbers_that_matter_most_with_all_trials_in_it():
    here = study(change=lambda raw: raw["default"].update({"loss.b": 3.0}))
    ax = contour(here).axes[0]
    assert {ax.get_xlabel(), ax.get_ylabel()} == {"loss.a", "loss.b"}
    count = {line.get_label(): len(line.get_xdata()) for line in ax.lines}
    assert count == {"complete": 17, "pruned": 1, "failed": 1, "best": 1, "default": 1}
    place = {line.get_label(): line.get_xydata()[0] for line in ax.lines}
    x, y = (here.best.params[k] for k in (ax.get_xlabel(), ax.get_ylabel()))
    logs = [np.log10(v) if k == "loss.a" else v
            for k, v in ((ax.get_xlabel(), x), (ax.get_ylabel(), y))]  # fmt: skip
    np.testing.assert_allclose(place["best"], logs)
    ticks = [t.get_text() for t in (ax.get_xticklabels() if ax.get_xlabel() == "loss.a"
                                    else ax.get_yticklabels())]  # fmt: skip
    assert ticks == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p, n: p.update({"loss.a": 1.0}),  # a line
        lambda p, n: p.update({"loss.a": 1.0 + n % 2, "loss.b": 1.0 + n % 2}),  # twice two points
        lambda p, n: p.pop("loss.b"),  # a parameter that no trial has
    ],
)
def test_no_contour_where_the_trials_span_no_area(spoil):
    def change(raw: dict) -> None:
        for trial in raw["trials"]:
            spoil(trial["params"], trial["number"])
            trial["distributions"] = {k: trial["distributions"][k] for k in trial["params"]}

    assert contour(study(change=change)) is None


def test_parameters_of_a_hook_are_found_in_the_trials_and_a_missing_one_is_a_gap():
    def change(raw: dict) -> None:
        raw["space"] = {}
        for trial in raw["trials"][::2]:  # "dot" has no b
            del trial["params"]["loss.b"], trial["distributions"]["loss.b"]

    here = study(change=change)
    assert set(here.space) == set(SPACE)
    ax = parallel(here).axes[0]
    lines = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 3]
    column = list(here.space).index("loss.b")
    assert sum(np.isnan(line[column]) for line in lines) == 10
    assert len(slices(here).axes) == 3


def test_history_tells_drawn_known_and_pruned_trials_apart():
    (ax,) = history(study()).axes
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["best so far", "drawn", "known point", "pruned", "failed"]
    assert len(ax.collections[0].get_offsets()) == 18
    best = ax.lines[0].get_ydata()
    assert list(best) == sorted(best)


def test_the_front_is_what_no_other_beats():
    here = study(objectives={"val/giou": "maximize", "seconds_per_step": "minimize"})
    (ax,) = pareto(here).axes
    front = ax.lines[0].get_xydata()
    for trial in here.done:
        on_it = any(np.allclose(trial.values, point) for point in front)
        beaten = any(a >= trial.values[0] and b <= trial.values[1]
                     and (a, b) != trial.values for a, b in map(tuple, front))  # fmt: skip
        assert on_it != beaten


def used(worked: list, invocations: list) -> tuple[list[int], float, float]:
    written = content(len(worked))
    for trial, spans in zip(written["studies"][0]["trials"], worked, strict=True):
        trial["worked"] = spans
    written["invocations"] = invocations
    found = timeline(parse("t", written))
    return [bar.line for bar in found.bars], found.used, found.steady


def test_trials_stand_on_the_lines_of_their_workers():
    worked = [[[0, 4]], [[0, 2]], [[2, 4]], [[4, 8]]]
    lines, share, steady = used(worked, [[0, 8, 2]])
    assert lines == [0, 1, 1, 0]
    assert share == pytest.approx(12 / 16)
    assert steady == 1.0  # until the last trial was started, at 4


def test_the_night_between_two_invocations_is_nobodys_idleness():
    worked = [[[0, 4]], [[0, 4]], [[1000, 1004]], [[1002, 1004]]]
    _, share, _ = used(worked, [[0, 4, 2], [1000, 1004, 2]])
    assert share == pytest.approx(14 / 16)


def test_what_workers_did_after_their_controller_was_killed_counts():
    _, share, _ = used([[[0, 4]], [[0, 4]]], [[0, 2, 2]])
    assert share == 1.0


def test_a_title_says_both_utilisations():
    (ax,) = draw_timeline(parse("t", content())).axes
    assert ax.get_title(loc="left").startswith("utilisation ")
    assert "until the last trial was started" in ax.get_title(loc="left")


def test_the_page_shows_the_section_with_its_figures(build, unsaved):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from keyseg.report.page.render import HERE

    section = build(content())

    class Parts:
        tunings = [section]  # noqa: RUF012

    svg = {f.files[1].stem: f"data:{f.name}" for f in section.figures}
    page = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    html = page.get_template("tuning.html.j2").render(parts=Parts, svg=svg, figure_data={})
    assert html.count('<figure class="plot" id="tuning_') == len(section.figures) == 7
    assert "data:contour" in html
