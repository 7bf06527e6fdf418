"""Hydra's sweep syntax as search spaces, and the values drawn as overrides again."""

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from keyseg.config import ConfigError
from keyseg.sweep import ranges
from keyseg.sweep.tune.space import dimension, overrides, points, split, text_of

F, N, C = FloatDistribution, IntDistribution, CategoricalDistribution

SPACES = {
    "interval(0.01,1)": F(0.01, 1.0),
    "interval(1,5)": F(1.0, 5.0),
    "interval(-1,1)": F(-1.0, 1.0),
    "interval(start=0.5,end=2)": F(0.5, 2.0),
    "tag(log, interval(0.01,1))": F(0.01, 1.0, log=True),
    "tag(log,interval(1e-4,1))": F(1e-4, 1.0, log=True),
    "int(interval(1,5))": N(1, 5),
    "float(interval(1,5))": F(1.0, 5.0),
    "tag(log, int(interval(1,64)))": N(1, 64, log=True),
    "range(5)": N(0, 4),
    "range(1,5)": N(1, 4),
    "range(1,10,3)": N(1, 7, step=3),
    "range(10,1,-3)": N(4, 10, step=3),
    "range(0,1,0.25)": F(0.0, 0.75, step=0.25),
    "range(0.1,0.5,0.1)": F(0.1, 0.4, step=0.1),
    "range(0.1,0.4,0.1)": F(0.1, 0.3, step=0.1),
    "range(1.5,4)": F(1.5, 3.5, step=1.0),
    "float(range(1,4))": F(1.0, 3.0, step=1.0),
    "tag(log, range(1,9))": N(1, 8, log=True),
    "shuffle(range(1,5))": N(1, 4),
    "choice(a,b,c)": C(["a", "b", "c"]),
    "a,b": C(["a", "b"]),
    "1,2.5,x": C([1, 2.5, "x"]),
    "true,null": C([True, None]),
    "choice('a b','c,d')": C(["a b", "c,d"]),
    "shuffle(a,b,c)": C(["a", "b", "c"]),
    "sort(3,1,2)": C([1, 2, 3]),
    "str(choice(1,2))": C(["1", "2"]),
    "choice([1,2],[3])": C(["[1,2]", "[3]"]),
    "1,1.0": C(["1", "1.0"]),
    "choice(only)": C(["only"]),
}


def parse(text: str, key: str = "x"):
    return OverridesParser.create().parse_override(f"{key}={text}")


@pytest.mark.parametrize("text", SPACES)
def test_every_form_of_the_grammar(text):
    assert dimension(parse(text)).distribution == SPACES[text]


@pytest.mark.parametrize("text", [t for t in SPACES if "interval" not in t and "log" not in t])
def test_a_discrete_space_has_the_values_that_a_grid_has(text):
    override = parse(text)
    drawn = [p["x"] for p in points([dimension(override)])]
    texts = [overrides({"x": value}, [dimension(override)])[0] for value in drawn]
    (of_grid,) = ranges.parse(OverridesParser.create(), [f"x={text}"])
    assert sorted(texts) == sorted({f"x={v}" for v in of_grid.sweep_string_iterator()})


@pytest.mark.parametrize("text", SPACES)
def test_values_survive_the_way_into_an_override_and_back(text):
    space = dimension(parse(text))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(5):
        trial = study.ask()
        value = space.suggest(trial)
        assert space.contains(value)
        (override,) = overrides(trial.params, [space])
        back = OverridesParser.create().parse_override(override).value()
        assert back == space.exact(value) or text in (
            "choice([1,2],[3])",
            "1,1.0",
            "str(choice(1,2))",
        )


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("range(0.1,0.4,0.1)", ["0.1", "0.2", "0.3"]),
        ("range(1,0,-0.25)", ["1.0", "0.75", "0.5", "0.25"]),
        ("range(1e-4,4e-4,1e-4)", ["0.0001", "0.0002", "0.0003"]),
        ("range(0,0.35,0.1)", ["0.0", "0.1", "0.2", "0.3"]),
        ("range(1,4)", ["1", "2", "3"]),
    ],
)
def test_a_range_has_the_values_one_would_write_and_not_its_end(text, values):
    (of_grid,) = ranges.parse(OverridesParser.create(), [f"x={text}"])
    assert list(of_grid.sweep_string_iterator()) == values


def test_a_trial_has_the_values_that_a_grid_has():
    """Optuna's own third value is 0.30000000000000004, which is the signature of another cell."""
    space = dimension(parse("range(0.1,0.8,0.1)"))
    texts = {space.text(v) for v in map(space.exact, (0.1, 0.1 + 2 * 0.1, 0.1 + 5 * 0.1))}
    assert texts == {"0.1", "0.3", "0.6"}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = set()
    for _ in range(60):
        trial = study.ask()
        space.suggest(trial)
        drawn |= set(overrides(trial.params, [space]))
    assert drawn == {f"x={i / 10}" for i in range(1, 8)}


WRONG = {
    "range(1,5,0)": "step of a range must not be 0",
    "tag(log, interval(0,1))": "above 0",
    "interval(2,1)": "lower end first",
    "range(5,1)": "range is empty",
    "tag(log, range(1,9,2))": "step 1",
    "tag(log, choice(1,2))": "no log scale",
    "tag(lin, interval(1,2))": "not lin",
    "a,a": "given twice",
    "tag(log, range(1.0,4.0))": "no log scale",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_space_says_why(text):
    with pytest.raises(ConfigError, match=WRONG[text]) as caught:
        dimension(parse(text))
    assert "x=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fixed_and_searched_apart_and_the_last_of_a_key_wins():
    given = ["a.b=1", "c=x,y", "+d=interval(0,1)", "c=z", "a.b=2,3"]
    space, fixed = split(OverridesParser.create().parse_overrides(given))
    assert [d.key for d in space] == ["a.b", "+d"]
    assert fixed == ["c=z"]


def test_a_seed_is_not_tuned():
    with pytest.raises(ConfigError, match="seed is no hyperparameter; give one value, like seed=0"):
        split(OverridesParser.create().parse_overrides(["seed=0,1"]))


@pytest.mark.parametrize("value", [None, True, 3, -1e-05, 0.1, "word", "two words", "it's", "a,b"])
def test_plain_values_as_text(value):
    assert parse(text_of(value)).value() == value


def test_membership():
    space = dimension(parse("tag(log, interval(0.1,1))"))
    assert space.contains(0.1)
    assert space.contains(1)
    assert not space.contains(2.0)
    assert not space.contains("0.5")
    assert not space.contains(True)
    assert dimension(parse("range(0,10,5)")).contains(5)
    assert not dimension(parse("range(0,10,5)")).contains(3)
    assert not dimension(parse("1,2")).contains("1")
    with pytest.raises(ConfigError, match=r"x=7: .* 0.1 to 1.0 on a log scale"):
        space.check(7)
