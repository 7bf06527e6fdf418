"""Intervals cover and verdicts hold on results whose truth is known; benchmarks/coverage.py is
the long version."""

from __future__ import annotations

import numpy as np
import pytest

from keyseg.report.synthetic import World, coverage, draw, false_claims, verdicts

SEEDS = pytest.mark.parametrize("seeds", [1, 3, 5, 10])


@SEEDS
def test_intervals_cover(seeds: int) -> None:
    """93-97 %, give or take two standard errors of this many sweeps."""
    repeats, drawn = 1000, 250
    found = coverage(seeds, repeats, drawn=drawn, resamples=399, seed=seeds)
    wanted = {"images"} if seeds == 1 else {"images", "seeds", "both"}
    assert {name.split()[0] for name in found} == wanted
    for name, share in found.items():
        noise = 2 * (0.05 * 0.95 / (drawn if name.startswith("images") else repeats)) ** 0.5
        assert 0.93 - noise <= share <= 0.97 + noise, (name, share)


@SEEDS
def test_alike_variants_are_seldom_called_better(seeds: int) -> None:
    """At most 5 %, give or take two standard errors."""
    repeats = 20 if seeds == 1 else 250
    found = false_claims(seeds, repeats, resamples=199, seed=seeds)
    assert found <= 0.05 + 2 * (0.05 * 0.95 / repeats) ** 0.5


def test_a_large_difference_is_found() -> None:
    made = draw([0.4, 0.6, 0.4], 5, World(), np.random.default_rng(0))
    assert verdicts(made, 0, 199, 0)[0] == "better"
    one = draw([0.4, 0.6], 1, World(), np.random.default_rng(0))
    assert verdicts(one, 0, 199, 0) == ["one seed (better)"]


def test_drawing_seeds_does_not_cover() -> None:
    """Why the report does not use it: three seeds drawn with replacement are too alike."""
    found = coverage(3, 120, resamples=199, naive=True, world=World(tau=0.08))
    assert found["naive both giou"] < 0.9 < found["both giou"]
