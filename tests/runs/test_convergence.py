"""One word for every training: synthetic curves, and curves of real trainings."""

import math

import numpy as np
import pytest

from keyseg.runs.convergence import (
    COLLAPSED,
    DIVERGED,
    PLATEAU,
    RISING,
    UNTRAINED,
    Convergence,
    flat_together,
    high_rate_until,
    in_words,
    judge,
    of_rows,
    rise,
)
from keyseg.runs.run_directory import Row

STEPS = 400
EVERY = 25
GRID = range(0, STEPS + 1, EVERY)


def learnt(speed: float, top: float = 0.85, start: float = 0.15, wait: int = 0):
    """A score that approaches `top`; `speed`: e-foldings in the whole training."""
    return lambda step: start + (top - start) * (1 - math.exp(-speed * max(step - wait, 0) / STEPS))


def curve(score, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [(step, score(step) + noise * float(rng.normal())) for step in GRID]


def rates(kind: str, steps: int = STEPS):
    """As they are logged, every 10 steps after a warm-up of 10."""
    done = {step: max(0.0, (step - 10) / (steps - 10)) for step in range(10, steps + 1, 10)}
    factor = {
        "constant": lambda x: 1.0,
        "linear": lambda x: 1 - x,
        "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
        "wsd": lambda x: min(1.0, (1 - x) / 0.2),
    }[kind]
    return [(step, 2e-3 * factor(x)) for step, x in done.items()]


@pytest.mark.parametrize(
    ("score", "wanted"),
    [
        (learnt(20), PLATEAU),
        (learnt(2), RISING),
        (learnt(40, wait=240), RISING),  # late, and not seen flat for a doubling
        (lambda step: 0.15, UNTRAINED),
        (learnt(20, top=0.13), UNTRAINED),  # below where it began
        (learnt(20, top=0.19), UNTRAINED),  # four points: what noise can do
        (lambda step: 0.85 if 0 < step <= 250 else 0.15, COLLAPSED),
        (lambda step: 0.85 if 0 < step < STEPS else 0.3, COLLAPSED),
        (lambda step: 0.15 if step == 0 else 0.85 - 0.02 * step / STEPS, PLATEAU),  # overfits
        (lambda step: math.nan if step == 200 else 0.85, DIVERGED),
        (lambda step: math.inf if step == STEPS else 0.85, DIVERGED),
    ],
)
def test_words_at_a_constant_rate(score, wanted):
    assert judge(curve(score), rates("constant")).word == wanted
    assert judge(curve(score)).word == wanted  # no rates: as if constant


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_rate_that_falls_to_nothing_is_no_plateau(schedule):
    """Progress in proportion to the rate: flat at the end, and it would go on if the rate did."""
    fallen = rates(schedule)
    total = sum(rate for _, rate in fallen)

    def score(step):
        return 0.15 + 0.6 * sum(rate for at, rate in fallen if at <= step) / total

    flat = curve(score)
    assert flat[-1][1] - flat[-3][1] < 0.02  # the last 50 steps
    assert judge(flat).word == RISING  # over a doubling it rises all the same
    assert judge(flat, fallen).word == RISING
    slow = curve(learnt(9))  # flat over its second half, not over what the full rate has seen
    assert judge(slow).word == PLATEAU
    assert judge(slow, fallen).word == RISING
    assert judge(curve(learnt(30)), fallen).word == PLATEAU


def test_the_decay_may_lift_a_plateau_but_not_make_it():
    """Flat at the full rate; the decay of wsd then adds what it usually does, or far more."""

    def lifted(gain):
        return lambda step: learnt(30)(step) + (gain * max(0, step - 325) / 75)

    assert judge(curve(lifted(0.03)), rates("wsd")).word == PLATEAU
    assert judge(curve(lifted(0.15)), rates("wsd")).word == RISING


@pytest.mark.parametrize(
    ("score", "wanted"),
    [(learnt(20), PLATEAU), (learnt(1.5), RISING), (lambda step: 0.15, UNTRAINED)],
)
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_noise_of_a_point_seldom_changes_the_word(score, wanted, schedule):
    score = learnt(40) if wanted == PLATEAU and schedule == "cosine" else score
    words = [judge(curve(score, 0.01, seed), rates(schedule)).word for seed in range(300)]
    assert words.count(wanted) >= 270


def slow(points: float):
    """A score that has left its start, and gains so many points a doubling of the steps."""
    return lambda step: 0.6 + points / 100 * math.log2(step / STEPS) if step else 0.1


def share_flat(score, together):
    """Of 200 variants, five seeds, a point of noise: those that are said to have flattened."""
    said = []
    for n in range(0, 1000, 5):
        curves = [curve(score, 0.01, seed) for seed in range(n, n + 5)]
        words = [judge(c, rates("wsd")).word for c in curves]
        flat = flat_together(words, curves, rates("wsd")) if together else set(words) == {PLATEAU}
        said.append(flat)
    return sum(said) / len(said)


def test_five_seeds_are_judged_by_their_mean():
    """Noise makes one of five rise often; their mean tells half a point from four."""
    assert share_flat(slow(0.5), together=False) < 0.8
    assert share_flat(slow(0.5), together=True) > 0.95
    assert share_flat(slow(4), together=True) < 0.05


def test_only_trainings_that_may_still_rise_are_judged_together():
    flat, late = curve(learnt(20)), curve(learnt(40, wait=240))
    assert flat_together([PLATEAU], [flat])
    assert flat_together([PLATEAU, PLATEAU], [flat, flat])
    assert not flat_together([PLATEAU, RISING], [flat, late])  # it pulls the mean along
    barely = curve(lambda step: flat[step // EVERY][1] + 0.021 * math.log2(max(step, 1)))
    assert judge(barely).word == RISING
    assert flat_together([PLATEAU, RISING], [flat, barely])
    assert not flat_together([RISING], [barely])
    for word in (UNTRAINED, COLLAPSED, DIVERGED, None):
        assert not flat_together([PLATEAU, word], [flat, flat])
    assert not flat_together([], [])
    apart = [(step + 5 if step else 0, score) for step, score in barely]
    assert not flat_together([PLATEAU, RISING], [flat, apart])  # no step in common but the first


def test_what_a_training_that_ended_early_says():
    assert judge([(0, 0.15), (25, 0.6)], diverged=True).word == DIVERGED
    assert judge([(0, 0.15)]).word == UNTRAINED  # optim.steps=0: nothing was trained
    assert judge([]).word is None
    assert judge([(100, 0.85)]).word is None  # what it began from is not known
    assert judge([(50, 0.85), (100, 0.85)]).word is None
    assert judge([(0, 0.15), (100, 0.85)]).word == RISING  # nothing shows that it stopped
    assert judge([(0, 0.15), (100, 0.16)]).word == UNTRAINED


def test_real_trainings_of_the_embedded_default():
    """fusion=cross and full, cosine; docs/findings.md has where the numbers are from."""
    steps = (0, 25, 50, 75, 100)
    scores = (0.182, 0.681, 0.828, 0.852, 0.854)
    full = judge(list(zip(steps, scores, strict=True)), rates("cosine", 100))
    assert full.word == RISING  # another 2 points by 800 steps
    assert full.high_rate_until == 50
    assert full.rise == pytest.approx(0.147)
    short = judge([(0, 0.16), (100, 0.13)], rates("cosine", 100))
    assert short.word == UNTRAINED
    longer = [(0, 0.16), (100, 0.13), (200, 0.38), (300, 0.75), (400, 0.82), (600, 0.86)]
    assert judge([*longer, (800, 0.87)], rates("cosine", 800)).word == RISING


def test_where_the_rate_was_high():
    assert high_rate_until(rates("constant"), STEPS) == STEPS
    assert high_rate_until(rates("linear"), STEPS) == 200
    assert high_rate_until(rates("wsd"), STEPS) == 360
    assert high_rate_until([], 70) == 70
    assert high_rate_until([(10, 1.0), (20, 1.0), (30, 1.0)], 35) == 35  # rows come every ten steps
    assert high_rate_until([(10, 0.0), (20, 0.0)], 20) == 20


def test_the_rise_is_that_of_a_doubling():
    assert rise([(100, 0.5), (200, 0.6)]) == pytest.approx(0.1)
    assert rise([(25, 0.1), (100, 0.5), (150, 0.5), (200, 0.5)]) == pytest.approx(0)
    assert rise([(150, 0.5), (200, 0.6)]) is None  # nothing at half of the steps
    assert rise([]) is None


def test_from_the_rows_of_a_run():
    rows = [Row("val/giou", value, step, 0.0) for step, value in curve(learnt(20))]
    rows += [Row("val/ciou", 0.1, step, 0.0) for step in GRID]
    rows += [Row("train/lr", value, step, 0.0) for step, value in rates("constant")]
    found = of_rows(rows, {})
    assert found == judge(curve(learnt(20)), rates("constant"))
    assert found.to_json()["word"] == PLATEAU
    failed = {"error": "keyseg.train.trainer.DivergedError: loss is nan at step 61"}
    assert of_rows(rows[:2], failed).word == DIVERGED
    assert of_rows(rows, {"error": "OutOfMemoryError: no memory"}).word == PLATEAU
    assert of_rows([], {}) == Convergence(None)


def test_several_trainings_in_words():
    assert in_words([PLATEAU, PLATEAU]) == "plateau"
    assert in_words([COLLAPSED, PLATEAU, PLATEAU, None]) == "2 plateau, 1 collapsed, 1 not known"
    assert in_words([None]) == "not known"
    assert in_words([]) == ""
