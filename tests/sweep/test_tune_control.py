"""The controller, with real worker processes that are quick and a formula for a score."""

import functools
import math
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from keyseg.config import ConfigError, signature
from keyseg.rundir import RunDirectory
from keyseg.sweep.cells import Cell, frozen
from keyseg.sweep.design import Point
from keyseg.sweep.tune import enqueue, samplers, storage
from keyseg.sweep.tune.arms import Arm, Question, questions
from keyseg.sweep.tune.control import Controller, SameError
from keyseg.sweep.tune.options import SAMPLERS, OptunaConfig, options
from keyseg.sweep.tune.prune import Judge, WilcoxonTest
from keyseg.sweep.tune.space import split
from keyseg.sweep.tune.warm import warm_start
from keyseg.sweep.workers import LocalPool

STUB = Path(__file__).with_name("analytic_worker.py")
WORKER = (sys.executable, "-S", "-E", str(STUB))
SPACE = ("loss.keyword.temperature=tag(log,interval(0.05,5))", "loss.bce=interval(0.5,8)")
GRID = ("loss.keyword.temperature=0.1,0.3,1", "loss.bce=range(1,4)")


class Bench:
    """A study in a folder, and controllers of it that come and go."""

    def __init__(self, root: Path, base, texts=SPACE, **values) -> None:
        self.root = root
        self.base = OmegaConf.create(OmegaConf.to_container(base))
        self.options = options({"n_trials": 8, **values})
        space, fixed = split(OverridesParser.create().parse_overrides(list(texts)))
        self.questions = questions(space, fixed, self.options.tune_per)

    def arms(self) -> list[Arm]:
        self.root.mkdir(exist_ok=True)
        store = storage.open_storage(self.root, self.options.storage)
        found = []
        for q in self.questions:
            pruner = samplers.pruner(self.options, 4, 1)
            study = storage.open_study(store, f"t{q.label}", self.options, q.space, pruner, "base")
            found.append(Arm(q, study, self.options, 0, self.base))
            enqueue.enqueue(found[-1], self.options)
        return found

    def cell(self, arm: Arm, trial: optuna.Trial) -> Cell:
        overrides = arm.draw(trial)
        config = self.base.copy()
        for override in OverridesParser.create().parse_overrides(
            [o for o in [*arm.question.fixed, *overrides] if not o.startswith("fusion")]
        ):
            OmegaConf.update(config, override.key_or_group, override.value())
        checked = frozen(config)
        key = signature(checked)
        point = Point(f"{arm.label} {trial.number}", dict(trial.params), 0, overrides)
        return Cell(key, point.label, point, checked, self.root / arm.label / key)

    def controller(self, workers: int = 1) -> Controller:
        pool = LocalPool(workers, 1, worker=WORKER, grace=5)
        judge = Judge(self.options) if self.options.pruner != "none" else None
        return Controller(self.arms(), pool, self.cell, width=workers, judge=judge)

    def run(self, workers: int = 1, each=lambda controller: None) -> list[optuna.trial.FrozenTrial]:
        controller = self.controller(workers)
        controller.adopt()
        deadline = time.monotonic() + 120
        try:
            while controller.active:
                assert time.monotonic() < deadline, "waited too long"
                controller.step()
                each(controller)
                time.sleep(0.002)
        except BaseException:
            controller.supervisor.stop()
            raise
        return [t for arm in controller.arms for t in arm.study.trials]

    def starts(self) -> dict[str, int]:
        return {
            f.parent.name: len(f.read_text().splitlines()) for f in self.root.glob("**/starts.txt")
        }


@pytest.fixture
def bench(tmp_path, compose_run):
    return functools.partial(Bench, tmp_path / "s", OmegaConf.structured(compose_run()))


def params(trials):
    return [t.params for t in sorted(trials, key=lambda t: t.number)]


@pytest.mark.parametrize("name", [s for s in SAMPLERS if s not in ("grid", "gp")])
def test_a_seed_and_one_worker_give_the_same_trials_stopped_or_not(tmp_path, compose_run, name):
    base = OmegaConf.structured(compose_run())
    args = {"n_startup_trials": 2} if name == "tpe" else {}
    through = Bench(tmp_path / "a", base, sampler=name, sampler_args=args, n_trials=5)
    trials = through.run()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 5
    assert len({str(p) for p in params(trials)}) == 5

    stopped = Bench(tmp_path / "b", base, sampler=name, sampler_args=args, n_trials=3)
    stopped.run()
    stopped.options.n_trials = 5
    assert params(stopped.run()) == params(trials)
    assert [t.values for t in stopped.run()] == [t.values for t in trials]


def test_the_value_told_is_the_one_the_run_has(bench):
    for trial in bench(n_trials=3).run():
        t, b = trial.params["loss.keyword.temperature"], trial.params["loss.bce"]
        assert trial.value == math.exp(-(math.log(t / 0.3) ** 2) - math.log(b / 2) ** 2)


def test_all_workers_are_always_at_work_and_a_straggler_holds_nobody_back(bench):
    seen = []
    here = bench(n_trials=9)
    here.run(3, lambda c: seen.append((len(c.flying), c._left[id(c.arms[0])])))
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


def test_tune_per_gives_each_value_a_budget_of_its_own(bench):
    here = bench((*SPACE, "fusion=cross,full"), tune_per="fusion", n_trials=4)
    here.run(2)
    assert [(arm.label, arm.used()) for arm in here.arms()] == [("cross", 4), ("full", 4)]
    assert "fusion" not in here.arms()[0].study.trials[0].params


def test_failed_cells_are_told_with_their_reason_and_three_alike_end_the_study(bench, monkeypatch):
    monkeypatch.setenv("CRASH", "1")
    here = bench()
    with pytest.raises(SameError, match=r"last 3 trials failed .* RuntimeError: no luck at step"):
        here.run()
    trials = here.arms()[0].study.trials
    assert [t.state.name for t in trials] == ["FAIL"] * 3
    assert trials[0].user_attrs["error"].startswith("RuntimeError: no luck at step")
    monkeypatch.delenv("CRASH")
    states = [t.state.name for t in here.run()]  # goes on; what failed has been counted
    assert states == ["FAIL"] * 3 + ["COMPLETE"] * 5


def test_parameters_that_make_no_config_fail_the_trial(bench):
    with pytest.raises(SameError, match="must be 0 or more"):
        bench(("loss.bce=interval(-2,-1)",)).run()


def test_a_run_without_the_value_fails_the_trial(bench):
    with pytest.raises(SameError, match="the run has no row 'val/nothing'; rows: val/giou"):
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


def test_finished_cells_of_others_are_taken_over_once_and_cost_no_budget(tmp_path, compose_run):
    base = OmegaConf.structured(compose_run())
    Bench(tmp_path / "other", base, n_trials=3).run()
    Bench(tmp_path / "far", OmegaConf.structured(compose_run("seed=7")), n_trials=1).run()
    here = Bench(tmp_path / "here", base, n_trials=2)
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
    narrow = Bench(tmp_path / "narrow", base, ("loss.bce=interval(7.9,8)",))
    assert warm_start(narrow.arms()[0], tmp_path, narrow.root, ["other"]) == 0
    with pytest.raises(ConfigError, match="there is no sweep 'none'"):
        warm_start(arm, tmp_path, here.root, "none")


def test_another_space_under_the_same_name_is_refused(bench):
    bench(n_trials=1).run()
    with pytest.raises(ConfigError, match="was started with another space"):
        bench(("loss.bce=interval(0,1)",)).arms()


def test_a_torn_line_of_the_journal_costs_nothing(bench):
    here = bench(n_trials=2)
    here.run()
    journal = here.root / storage.JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
    here.options.n_trials = 3
    assert [t.state.name for t in here.run()] == ["COMPLETE"] * 3


def test_controllers_killed_at_random_moments_lose_no_trial_and_count_none_twice(
    bench, monkeypatch
):
    """`KEYSEG_KILLS=20` for a longer go."""
    monkeypatch.setenv("SLOW", "0.05")
    kills = int(os.environ.get("KEYSEG_KILLS", "6"))
    here = bench(n_trials=6 * kills)
    here.arms()  # the imports, once
    rng = random.Random(0)
    for _ in range(kills):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
            child = os.fork()
        if child == 0:
            try:
                here.run(3)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    trials = here.run(3)
    assert len(trials) == 6 * kills
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert len({t.user_attrs["cell"] for t in trials}) == 6 * kills
    assert set(here.starts().values()) == {1}
    assert here.arms()[0].used() == 6 * kills


def test_workers_killed_are_failed_trials_and_the_others_go_on(bench, monkeypatch):
    monkeypatch.setenv("SLOW", "0.2")
    here, killed = bench(n_trials=6), set()

    def kill_one(controller: Controller) -> None:
        for path, flight in controller.flying.items():
            starts = path / "starts.txt"
            if flight.trials[0][1].number in (1, 4) and starts.exists() and path not in killed:
                if not starts.read_text().endswith("\n"):
                    continue
                os.kill(int(starts.read_text()), signal.SIGKILL)
                killed.add(path)

    trials = here.run(2, kill_one)
    states = [t.state.name for t in trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert trials[1].user_attrs["error"] == "the worker was killed by SIGKILL (out of memory?)"


@pytest.mark.parametrize("name", ["median", "wilcoxon"])
def test_a_lost_cause_is_asked_to_end_and_is_told_as_pruned(bench, monkeypatch, name):
    monkeypatch.setenv("ROWS", "4")
    monkeypatch.setenv("PATIENCE", "60")
    best = {"loss.keyword.temperature": 0.3, "loss.bce": 2.0}
    bad = {"loss.keyword.temperature": 4.0, "loss.bce": 0.6}
    here = bench(
        sampler="random",
        pruner=name,
        pruner_args={"n_startup_trials": 1} if name == "median" else {},
        enqueue=[best, bad],
        n_trials=2,
    )
    trials = here.run()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED"]
    assert trials[0].intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}
    assert list(trials[1].intermediate_values) == [1, 2]
    assert trials[1].value == trials[1].intermediate_values[2]
    assert RunDirectory(here.root / trials[1].user_attrs["cell"]).status == "pruned"
    assert here.arms()[0].best().number == 0
    assert here.run() == trials  # pruned trials count, and are not run again


def test_hyperband_knows_the_length_of_a_run():
    hyperband = samplers.pruner(options({"pruner": "hyperband"}), 150, 25)
    assert (hyperband._min_resource, hyperband._max_resource) == (25, 150)


def test_the_paired_test_needs_examples_and_a_difference():
    test = WilcoxonTest()
    best = {str(i): 0.5 + 0.01 * i for i in range(20)}
    assert test.worse({k: v - 0.1 for k, v in best.items()}, best)
    assert not test.worse({k: v + 0.1 for k, v in best.items()}, best)
    assert not test.worse(best, best)
    assert not test.worse({k: v - 0.1 for k, v in list(best.items())[:7]}, best)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sampler": "tpee"}, "Did you mean tpe?"),
        ({"objectives": {"val/giou": "max"}}, "one of maximize, minimize"),
        ({"n_trials": 0}, "must be 1 or more"),
        (
            {"objectives": {"a/b": "maximize", "c": "minimize"}, "pruner": "median"},
            "nothing can be pruned",
        ),
        ({"objectives": {"minutes": "minimize"}, "pruner": "median"}, "known at the end only"),
        ({"objectives": {"val/ciou": "maximize"}, "pruner": "wilcoxon"}, "example by example"),
    ],
)
def test_wrong_options_say_what_is_possible(wrong, said):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        options(wrong)


def test_arguments_that_a_sampler_does_not_take():
    with pytest.raises(ConfigError, match=r"sampler_args=.*luck"):
        samplers.sampler(OptunaConfig(sampler_args={"luck": 1}), 0, 0)


def test_nothing_to_choose_from_for_tune_per():
    with pytest.raises(ConfigError, match="sweep it with values"):
        questions([], [], "fusion")
    assert questions([], ["a=1"], None) == [Question("", (), ("a=1",))]
