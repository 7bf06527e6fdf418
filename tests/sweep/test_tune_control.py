"""The controller, with real worker processes that are quick and a formula for a score."""

import json
import math

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf

from keyseg.config import ConfigError
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.tune import enqueue
from keyseg.sweep.tune.control import Controller, GivenUp
from keyseg.sweep.tune.objective import values
from keyseg.sweep.tune.studies import Question, load_hook, questions
from keyseg.sweep.tune.warm import warm_start

FAIL = optuna.trial.TrialState.FAIL
SPACE = ("loss.keyword.temperature=tag(log,interval(0.05,5))", "loss.bce=interval(0.5,8)")
GRID = ("loss.keyword.temperature=0.1,0.3,1", "loss.bce=range(1,4)")


def test_the_value_told_is_the_one_the_run_has(bench):
    for trial in bench(n_trials=3).run():
        t, b = trial.params["loss.keyword.temperature"], trial.params["loss.bce"]
        assert trial.value == math.exp(-(math.log(t / 0.3) ** 2) - math.log(b / 2) ** 2)


def test_all_workers_are_always_at_work_and_a_straggler_holds_nobody_back(bench, monkeypatch):
    monkeypatch.setenv("STRAGGLER", "1")  # works until it is let go
    seen = []
    here = bench(n_trials=9)

    def look(controller: Controller) -> None:
        seen.append((len(controller.flying), controller._left[id(controller.arms[0])]))
        if controller.ended_trials == 8:
            assert [t.number for f in controller.flying.values() for _, t in f.trials] == [1]
            (here.root / "go").touch()

    here.run(3, look)
    # While the budget lasts, as many cells as workers are in flight at every look.
    assert {flying for flying, left in seen if left > 0} == {3}


def test_a_grid_has_every_point_once_and_ends(bench):
    trials = bench(GRID, sampler="grid", n_trials=50).run(3)
    assert len(trials) == 9
    assert len({str(t.params) for t in trials}) == 9


def test_parameters_drawn_twice_are_run_once_and_told_twice(bench):
    here = bench(("loss.bce=1,2",), sampler="random", n_trials=10)
    trials = here.run(2)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 10
    assert list(here.starts().values()) == [1, 1]


def test_two_objectives_and_their_front(bench):
    objectives = {"val/giou": "maximize", "seconds_per_step": "minimize"}
    here = bench(objectives=objectives)
    trials = here.run(2)
    for trial in trials:
        assert trial.values[1] == trial.params["loss.bce"]
    front = here.arms()[0].study.best_trials
    assert 1 <= len(front) <= 8


def test_a_trial_is_worth_what_its_training_keeps(tmp_path):
    """Never the untrained model's score, which is the same in every trial."""
    run = RunDirectory(tmp_path)

    def worth(*rows: tuple[str, int, float], name: str = "val/giou") -> list[float]:
        text = [json.dumps({"name": n, "value": v, "step": s, "time": 0}) for n, s, v in rows]
        (tmp_path / "metrics.jsonl").write_text("\n".join(text) + "\n")
        return values(run, [name])

    g = [("val/giou", 0, 0.5), ("val/giou", 10, 0.3), ("val/giou", 20, 0.4), ("val/giou", 30, 0.4)]
    assert worth(*g) == [0.4]
    c = [("val/ciou", 0, 0.9), ("val/ciou", 10, 0.8), ("val/ciou", 20, 0.1), ("val/ciou", 30, 0.7)]
    assert worth(*g, *c, name="val/ciou") == [0.1]  # of the same weights
    assert worth(("val/giou", 0, 0.5)) == [0.5]  # nothing was trained


def test_what_breaks_a_constraint_is_never_the_best(bench):
    best = {"loss.keyword.temperature": 0.3, "loss.bce": 2.0}
    here = bench(
        constraints={"seconds_per_step": "<= 1.5"}, n_trials=12, sampler="nsga2", enqueue=[best]
    )
    trials = here.run(2)  # seconds_per_step is bce, and the best bce is 2
    assert {t.constraints["seconds_per_step"] for t in trials} == {
        t.params["loss.bce"] - 1.5 for t in trials
    }
    allowed = [t for t in trials if t.params["loss.bce"] <= 1.5]
    assert max(trials, key=lambda t: t.value) not in allowed
    assert here.arms()[0].best().number == max(allowed, key=lambda t: t.value).number
    none = bench(constraints={"seconds_per_step": ">= 99"}, n_trials=12)
    with pytest.raises(ConfigError, match=r"another constraints: .*<= 1\.5"):
        none.arms()


def test_too_many_failures_end_the_study(bench, monkeypatch):
    monkeypatch.setenv("CRASH_ABOVE", "2")
    points = [{"loss.bce": bce} for bce in (1, 3, 1.1, 4, 1.2, 5, 1.3)]
    here = bench(enqueue=points, n_trials=10, max_failure_rate=0.2)
    with pytest.raises(
        GivenUp, match=r"3 trials failed, more than .*max_failure_rate .* 10; the l"
    ):
        here.run()
    assert len(here.arms()[0].study.get_trials(states=(FAIL,))) == 3
    here.options.max_failure_rate = 1.0
    assert len(here.run()) == 10


def test_tune_per_gives_each_value_a_budget_of_its_own(bench):
    here = bench((*SPACE, "fusion=cross,full"), tune_per="fusion", n_trials=4)
    here.run(2)
    assert [(arm.label, arm.used()) for arm in here.arms()] == [("cross", 4), ("full", 4)]
    assert "fusion" not in here.arms()[0].study.trials[0].params


def test_failed_cells_are_told_with_their_reason_and_three_alike_end_the_study(bench, monkeypatch):
    monkeypatch.setenv("CRASH", "1")
    here = bench()
    with pytest.raises(GivenUp, match=r"last 3 trials failed .* RuntimeError: no luck at step"):
        here.run()
    trials = here.arms()[0].study.trials
    assert [t.state.name for t in trials] == ["FAIL"] * 3
    assert trials[0].user_attrs["error"].startswith("RuntimeError: no luck at step")
    monkeypatch.delenv("CRASH")
    states = [t.state.name for t in here.run()]  # goes on; what failed has been counted
    assert states == ["FAIL"] * 3 + ["COMPLETE"] * 5


def test_parameters_that_make_no_config_fail_the_trial(bench):
    with pytest.raises(GivenUp, match="must be 0 or more"):
        bench(("loss.bce=interval(-2,-1)",)).run()


def test_a_run_without_the_value_fails_the_trial(bench):
    with pytest.raises(GivenUp, match="the run has no row 'val/nothing'; rows: val/giou"):
        bench(objectives={"val/nothing": "maximize"}).run()


def test_points_are_tried_first_and_only_once(bench):
    point = {"loss.keyword.temperature": 0.3, "loss.bce": 2.0}
    here = bench(enqueue=[point, {"loss.bce": 4.0}], n_trials=3)
    first = here.run()
    assert first[0].params == point
    assert first[0].value == 1.0
    assert first[1].params["loss.bce"] == 4.0
    here.options.n_trials = 4
    assert len(here.run()) == 4
    for wrong, said in (({"loss.bce": 9}, "loss.bce=9: outside"), ({"loss.dice": 1}, "loss.bce")):
        with pytest.raises(ConfigError, match=said):
            enqueue.check(here.questions[0], [wrong])


def test_finished_cells_of_others_are_taken_over_once_and_cost_no_budget(
    tmp_path, compose_run, make_bench
):
    base = OmegaConf.structured(compose_run())
    make_bench(tmp_path / "other", base, n_trials=3).run()
    make_bench(tmp_path / "far", OmegaConf.structured(compose_run("seed=7")), n_trials=1).run()
    here = make_bench(tmp_path / "here", base, n_trials=2)
    (arm,) = here.arms()
    assert warm_start(arm, tmp_path, here.root, True) == 3
    assert warm_start(arm, tmp_path, here.root, "other") == 0
    assert arm.used() == 0
    trials = here.run()
    assert len(trials) == 5
    assert arm.used() == 2
    for trial in trials[:3]:
        run = RunDirectory(trial.user_attrs["warm_start"])
        assert trial.params["loss.bce"] == run.config.loss.bce
        assert trial.value == run.rows()[-1].value
    narrow = make_bench(tmp_path / "narrow", base, ("loss.bce=interval(7.9,8)",))
    assert warm_start(narrow.arms()[0], tmp_path, narrow.root, ["other"]) == 0
    with pytest.raises(ConfigError, match="there is no sweep 'none'"):
        warm_start(arm, tmp_path, here.root, "none")


def test_nothing_to_choose_from_for_tune_per():
    with pytest.raises(ConfigError, match="sweep it with values"):
        questions([], [], "fusion")
    assert questions([], ["a=1"], None) == [Question("", (), ("a=1",))]


def conditional(cfg: DictConfig, trial: optuna.Trial) -> None:
    """A space that depends on a value drawn before, and on the config."""
    if trial.suggest_categorical("loss.keyword.similarity", ["dot", "cosine"]) == "cosine":
        trial.suggest_float("loss.keyword.temperature", 0.1 * cfg.loss.keyword.temperature, 0.5)


def test_a_hook_draws_what_depends_on_what_was_drawn(bench):
    assert load_hook(None) is None
    here = bench(("loss.bce=interval(0.5,8)",), hook=conditional, space="a:b", n_trials=14)
    trials = here.run()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 14
    seen = set()
    for trial in trials:
        cosine = trial.params["loss.keyword.similarity"] == "cosine"
        assert ("loss.keyword.temperature" in trial.params) == cosine
        config = RunDirectory(here.root / trial.user_attrs["cell"]).config
        assert config.loss.keyword.similarity == trial.params["loss.keyword.similarity"]
        temperature = trial.params.get("loss.keyword.temperature", 1.0)
        assert config.loss.keyword.temperature == temperature
        seen.add(cosine)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:f", "No module named 'nowhere'"),
        ("math:nothing", "has no attribute 'nothing'"),
        ("math", "give package.module:function"),
        ("math:pi", "not a function"),
    ],
)
def test_a_hook_that_is_none_says_so(name, said):
    with pytest.raises(ConfigError, match=f"hydra.sweeper.space={name}: .*{said}"):
        load_hook(name)
