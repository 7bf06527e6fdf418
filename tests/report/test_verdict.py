"""Verdicts in words: what they claim, what they do not, and what more would cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyseg.report.measures import BY_NAME
from keyseg.report.verdict import WORDS, Evidence, caveat, seeds_needed, sentence, word

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
    shared=0.00001,
    hours=0.5,
)
OPEN = replace(CLEAR, difference=0.005, low=-0.03, high=0.04, p=0.6)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "better"),
        ({"difference": -0.03, "low": -0.05, "high": -0.01}, "worse"),
        ({"measure": BY_NAME["empty_rate"]}, "worse"),
        ({"p": 0.06}, "inconclusive"),  # Holm has the last word, not the single interval
        ({"p": 0.3, "low": -0.004, "high": 0.012, "difference": 0.004}, "no difference"),
        ({"n_seeds": 1, "seeds": NAN, "shared": NAN}, "one seed (better)"),
        ({"n_seeds": 1, "seeds": NAN, "shared": NAN, "p": 0.4}, "inconclusive"),
        ({"difference": NAN}, "no interval"),
        ({"difference": 0.0, "images": 0.0, "seeds": 0.0, "p": NAN}, "no difference"),
    ],
)
def test_word(changes: dict[str, object], wanted: str) -> None:
    evidence = replace(CLEAR, **changes)  # type: ignore[arg-type]
    assert word(evidence) == wanted
    assert wanted in WORDS
    assert sentence(evidence)


def test_few_seeds_say_what_they_cannot_show() -> None:
    assert caveat(CLEAR) == ""
    three = replace(CLEAR, n_seeds=3)
    assert sentence(three) == "better: +3.0 points [+1.0, +5.0], p = 0.010"
    assert "The signs of 3 seeds alone cannot reach p = 0.05 (at best 0.25)" in caveat(three)
    assert caveat(three).endswith("3 more seeds let them reach it.")
    one = replace(CLEAR, n_seeds=1, seeds=NAN, shared=NAN)
    assert sentence(one).startswith("these weights are better")
    assert "One seed cannot show" in caveat(one)
    assert sentence(one).endswith("takes 5 more seeds, 2.5 GPU-hours")


def test_no_difference_names_its_bound() -> None:
    said = sentence(replace(CLEAR, p=0.3, low=-0.004, high=0.012, difference=0.004))
    assert said.startswith("no difference larger than 1.2 points")


def test_inconclusive_says_what_it_takes() -> None:
    few = replace(OPEN, images=0.000002, seeds=0.0001, shared=0.0)
    need = seeds_needed(few)
    assert need is not None
    assert need > 6
    assert f"needs about {need - 6} more seeds, {(need - 6) * 0.5:.1f} GPU-hours" in sentence(few)
    assert (seeds_needed(few, gap=0.05) or 99) < need
    without = sentence(replace(few, hours=NAN))
    assert "hours" not in without


def test_too_few_images_are_said_to_be() -> None:
    said = sentence(replace(OPEN, images=0.0004, seeds=0.0001))
    assert seeds_needed(replace(OPEN, images=0.0004)) is None
    assert "no number of seeds detects 1 point on 400 test images" in said
