"""Verdicts in words: what they claim, what they do not, and what more would cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyseg.metrics import BY_NAME, MEASURES, Measure
from keyseg.report.stats.verdict import WORDS, Evidence, caveat, seeds_needed, sentence, word

NAN = float("nan")
CLEAR = Evidence(
    measure=BY_NAME["giou"],
    difference=0.03,
    low=0.01,
    high=0.05,
    p=0.01,
    n_seeds=6,
    n_images=400,
    images=0.00002,
    seeds=0.00004,
    interaction=0.00001,
    hours=0.5,
)
SMALL = {"difference": 0.004, "low": -0.004, "high": 0.012, "p": 0.3, "equivalence": 0.01}
OPEN = replace(CLEAR, difference=0.005, low=-0.03, high=0.04, p=0.6)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "better"),
        ({"difference": -0.03, "low": -0.05, "high": -0.01}, "worse"),
        ({"measure": BY_NAME["empty_rate"]}, "worse"),
        ({"p": 0.06}, "inconclusive"),  # Holm has the last word, not the single interval
        ({**SMALL, "equivalence": 0.06}, "inconclusive"),  # and so it has of equivalence
        (SMALL, "no difference"),
        ({**SMALL, "n_seeds": 1}, "inconclusive"),
        ({**SMALL, "low": 0.001}, "smaller than"),
        ({**SMALL, "low": 0.001, "p": 0.01}, "better"),
        ({"n_seeds": 1, "seeds": NAN, "interaction": NAN}, "one seed (better)"),
        ({"n_seeds": 1, "seeds": NAN, "interaction": NAN, "p": 0.4}, "inconclusive"),
        ({"difference": NAN}, "no interval"),
        ({"difference": 0.0, "images": 0.0, "seeds": 0.0, "p": NAN}, "no difference"),
    ],
)
def test_word(changes: dict[str, object], wanted: str) -> None:
    evidence = replace(CLEAR, **changes)  # type: ignore[arg-type]
    assert word(evidence) == wanted
    assert wanted in WORDS
    assert sentence(evidence)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
@pytest.mark.parametrize("seeds", [1, 6])
def test_words_follow_the_sense_of_the_measure(measure: Measure, seeds: int) -> None:
    """More is better of scores, less is better of rates of failure; one seed says whose."""
    more = replace(CLEAR, measure=measure, n_seeds=seeds)
    less = replace(more, difference=-0.03, low=-0.05, high=-0.01)
    failures = ("_rate", "_mask_wrong", "_mask_right")
    failing = measure.name.endswith(failures) or measure.name.startswith("discrepancy")
    wanted = ("worse", "better") if failing else ("better", "worse")
    for evidence, claim, size in zip((more, less), wanted, ("+3.0", "−3.0"), strict=True):
        assert word(evidence) == (claim if seeds > 1 else f"one seed ({claim})")
        said = sentence(evidence)
        assert said.startswith(claim if seeds > 1 else f"these weights are {claim}: ")
        assert f": {size} points [" in said
        assert ("(lower is better)" in said) == failing


def test_one_seed_speaks_of_its_weights_only() -> None:
    one = replace(
        CLEAR, n_seeds=1, seeds=NAN, interaction=NAN, difference=-0.03, low=-0.05, high=-0.01
    )
    assert word(one) == "one seed (worse)"
    assert sentence(one) == (
        "these weights are worse: −3.0 points [−5.0, −1.0], p = 0.010 over test images; to judge "
        "the variant takes at least 2 more seeds, 1.0 GPU-hours"
    )
    unclear = replace(one, p=0.2, high=0.01)
    assert word(unclear) == "inconclusive"
    assert sentence(unclear) == (
        "inconclusive: −3.0 points [−5.0, +1.0], p = 0.200 over test images; to judge the variant "
        "takes at least 2 more seeds, 1.0 GPU-hours"
    )
    assert "One seed cannot show" in caveat(one)


def test_few_seeds_say_what_they_cannot_show() -> None:
    assert caveat(CLEAR) == ""
    three = replace(CLEAR, n_seeds=3)
    assert sentence(three) == "better: +3.0 points [+1.0, +5.0], p = 0.010"
    assert "The signs of 3 seeds alone cannot reach p = 0.05 (at best 0.25)" in caveat(three)
    assert caveat(three).endswith("3 more seeds let them reach it.")
    assert "first look" not in caveat(three)
    assert "Two seeds are too few for more than a first look" in caveat(replace(CLEAR, n_seeds=2))


def test_what_is_small_names_the_margin_it_keeps() -> None:
    small = replace(CLEAR, **SMALL)
    assert sentence(small) == (
        "no difference larger than 2 points: +0.4 points [−0.4, +1.2], equivalence p = 0.010"
    )
    assert "larger than 1.5 points: " in sentence(replace(small, margin=0.015))
    beside = replace(small, low=0.001)
    assert sentence(beside) == (
        "smaller than 2 points either way: +0.4 points [+0.1, +1.2], equivalence p = 0.010; "
        "whether there is any is open (p = 0.300)"
    )
    assert sentence(replace(beside, p=0.02)) == (
        "better, by less than 2 points: +0.4 points [+0.1, +1.2], p = 0.020"
    )
    same = replace(CLEAR, difference=0.0, low=NAN, high=NAN, images=0.0, seeds=0.0, p=NAN)
    assert sentence(same) == "no difference: both are the same on every example and seed"


@pytest.mark.parametrize("low", [-0.004, 0.0, 0.0001, 0.004])
@pytest.mark.parametrize("p", [0.001, 0.2])
@pytest.mark.parametrize("equivalence", [0.001, 0.2])
def test_an_interval_without_0_is_never_no_difference(
    low: float, p: float, equivalence: float
) -> None:
    evidence = replace(CLEAR, **{**SMALL, "low": low, "p": p, "equivalence": equivalence})
    if low > 0:
        assert word(evidence) != "no difference"
        assert not sentence(evidence).startswith("no difference")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"difference": NAN}, "nothing was counted"),
        ({"difference": 0.0}, "no example differs"),
        ({"difference": 0.01}, "every image gives the same difference"),
    ],
)
def test_no_interval_says_why(changes: dict[str, float], reason: str) -> None:
    flat = replace(CLEAR, n_seeds=1, images=0.0, low=NAN, high=NAN, p=NAN, **changes)
    assert sentence(flat) == f"no interval: {reason}"


def test_inconclusive_says_what_it_takes() -> None:
    few = replace(OPEN, images=0.000002, seeds=0.0001, interaction=0.0)
    need = seeds_needed(few)
    assert need is not None
    assert need > 6
    assert f"needs about {need - 6} more seeds, {(need - 6) * 0.5:.1f} GPU-hours" in sentence(few)
    assert (seeds_needed(few, gap=0.05) or 99) < need
    without = sentence(replace(few, hours=NAN))
    assert "hours" not in without


def test_more_contrasts_need_more_seeds() -> None:
    """Holm's first step asks for a smaller p, and power is counted at that level."""
    few = replace(OPEN, images=0.000002, seeds=0.0001, interaction=0.0)
    one, eleven = seeds_needed(few), seeds_needed(replace(few, contrasts=11))
    assert one is not None
    assert eleven is not None
    assert eleven > 1.4 * one


def test_two_seeds_only_guess_at_what_it_takes() -> None:
    two = replace(OPEN, n_seeds=2, images=0.000002, seeds=0.0001, interaction=0.0)
    assert sentence(two).endswith("(a guess: 2 seeds hardly show their spread)")
    assert "guess" not in sentence(replace(two, n_seeds=3))


def test_an_interval_that_leaves_out_0_and_is_inconclusive_shows_its_p() -> None:
    said = sentence(replace(CLEAR, p=0.06))
    assert said.startswith("inconclusive: +3.0 points [+1.0, +5.0], p = 0.060; ")


def test_too_few_images_are_said_to_be() -> None:
    few = replace(OPEN, images=0.0004, seeds=0.0001)
    assert seeds_needed(few) is None
    assert "400 test images leave ±3.9 points whatever the number of seeds" in sentence(few)
    # (1.96 + 0.84)^2 x 0.00039 / 0.01^2 = 30.6, and half of the room for the seeds.
    assert sentence(few).endswith("detecting 1 point needs about 32 times as many images")
    two = replace(few, n_seeds=2)
    assert "whatever the number of seeds" in sentence(two)
