"""Samplers, their options, and the study in a file or a database."""

import optuna
import pytest
from omegaconf import OmegaConf

from keyseg.config import ConfigError
from keyseg.sweep.tune import samplers, storage
from keyseg.sweep.tune.options import SAMPLERS, OptunaConfig, options

STARTUP = {"tpe": {"n_startup_trials": 2}, "gp": {"n_startup_trials": 3}}


def params(trials):
    return [t.params for t in sorted(trials, key=lambda t: t.number)]


@pytest.mark.parametrize("name", [s for s in SAMPLERS if s != "grid"])
def test_a_seed_and_one_worker_give_the_same_trials_stopped_or_not(
    tmp_path, compose_run, make_bench, name
):
    base = OmegaConf.structured(compose_run())
    args = STARTUP.get(name, {})
    through = make_bench(tmp_path / "a", base, sampler=name, sampler_args=args, n_trials=5)
    trials = through.run()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 5
    assert len({str(p) for p in params(trials)}) == 5

    stopped = make_bench(tmp_path / "b", base, sampler=name, sampler_args=args, n_trials=3)
    stopped.run()
    stopped.options.n_trials = 5
    assert params(stopped.run()) == params(trials)
    assert [t.values for t in stopped.run()] == [t.values for t in trials]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_trial_left_before_its_parameters_were_drawn_gets_its_own(
    tmp_path, compose_run, make_bench, name
):
    """A controller killed between asking and drawing: the one after it must not draw for this trial
    what the next one gets, or two trials are one cell."""
    base = OmegaConf.structured(compose_run())

    def drawn(folder: str, left: int) -> list[dict[str, float]]:
        here = make_bench(tmp_path / folder, base, sampler=name, n_trials=4)
        arm = here.arms()[0]
        for number in range(4):
            trial = arm.ask()
            if number == left:
                arm = here.arms()[0]
                trial = next(iter(arm.running()))
            arm.draw(trial)
            arm.study.tell(trial, float(number))
        return params(arm.study.trials)

    assert drawn("left", 1) == drawn("through", -1)


def test_every_sampler_is_the_one_that_its_name_says():
    made = {s: samplers.sampler(options({"sampler": s}), 0, 5) for s in SAMPLERS}
    kinds = {name: type(found).__name__ for name, found in made.items()}
    assert kinds == {
        "tpe": "TPESampler",
        "gp": "GPSampler",
        "cmaes": "CmaEsSampler",
        "nsga2": "NSGAIISampler",
        "nsga3": "NSGAIIISampler",
        "random": "RandomSampler",
        "qmc": "QMCSampler",
        "grid": "RandomSampler",  # its points are enqueued
    }
    assert made["tpe"]._multivariate


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_samplers_that_learn_do_learn(name):
    """Their later trials are better than those of chance, on a plain bowl."""

    def means(sampler: str) -> float:
        study = optuna.create_study(direction="maximize")
        given = options({"sampler": sampler, "sampler_args": STARTUP.get(sampler, {})})
        for number in range(24):
            study.sampler = samplers.sampler(given, 0, number)
            trial = study.ask()
            x, y = (trial.suggest_float(key, -1, 1) for key in "xy")
            study.tell(trial, -((x - 0.3) ** 2) - (y + 0.2) ** 2)
        return sum(t.value for t in study.trials[-8:]) / 8

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert means(name) > means("random") / 2


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


def test_a_database_by_its_url_instead_of_the_journal(bench, tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    here = bench(storage=url, n_trials=2)
    here.run(2)
    here.options.n_trials = 4
    trials = here.run(2)
    assert not (here.root / storage.JOURNAL).exists()
    loaded = optuna.load_study(study_name="t", storage=url)  # as optuna-dashboard does
    assert [t.params for t in loaded.trials] == [t.params for t in trials]
    assert [t.state.name for t in loaded.trials] == ["COMPLETE"] * 4
    assert loaded.metric_names == ["val/giou"]


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "what://is.this"])
def test_a_storage_that_cannot_be_opened_is_one_line(bench, url):
    with pytest.raises(
        ConfigError, match=r"hydra.sweeper.storage=.*: cannot be opened: "
    ) as caught:
        bench(storage=url).arms()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sampler": "tpee"}, "Did you mean tpe?"),
        ({"objectives": {"val/giou": "max"}}, "one of maximize, minimize"),
        ({"n_trials": 0}, "must be 1 or more"),
        ({"objectives": "val/giou"}, "give a mapping"),
        ({"constraints": {"minutes": "< 3"}}, "give a bound in quotes, like '<= 2.5'"),
        ({"constraints": {"minutes": "<= 1.2.3"}}, "give a bound"),
        ({"constraints": {"minutes": "<= 3"}, "sampler": "cmaes"}, "knows no constraints"),
        ({"max_failure_rate": 1.5}, "from 0 to 1"),
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
