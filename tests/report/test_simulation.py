"""Intervals cover and verdicts hold on results whose truth is known; benchmarks/coverage.py is
the long version."""

from __future__ import annotations

import numpy as np
import pytest

from keyseg.report.synthetic import World, coverage, draw, false_claims, verdicts

SEEDS = pytest.mark.parametrize("seeds", [1, 3, 5, 10])


@SEEDS
def test_intervals_cover(seeds: int) -> None:
    found = coverage(seeds, 1500, drawn=700, resamples=399, seed=seeds)
    wanted = {"images"} if seeds == 1 else {"images", "seeds", "both"}
    assert {name.split()[0] for name in found} == wanted
    for name, share in found.items():
        # Two standard errors of 700 sweeps are 0.016: the true shares lie well inside.
        assert 0.93 <= share <= 0.97, (name, share)


@SEEDS
def test_alike_variants_are_seldom_called_better(seeds: int) -> None:
    repeats = 100 if seeds == 1 else 700
    assert false_claims(seeds, repeats, resamples=199, seed=seeds) <= 0.05


def test_a_large_difference_is_found() -> None:
    made = draw([0.4, 0.6, 0.4], 5, World(), np.random.default_rng(0))
    assert verdicts(made, 0, 199, 0)[0] == "better"
    one = draw([0.4, 0.6], 1, World(), np.random.default_rng(0))
    assert verdicts(one, 0, 199, 0) == ["one seed (better)"]


def test_drawing_seeds_does_not_cover() -> None:
    """Why the report does not use it: three seeds drawn with replacement are too alike."""
    found = coverage(3, 200, resamples=199, naive=True, world=World(tau=0.08))
    assert found["naive both giou"] < 0.9 < found["both giou"]
