"""Boundaries over looks: levels that add up, against another implementation and against draws."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from keyseg.report.stats.inference import Sources
from keyseg.report.stats.sequential import chance, nominal, overall
from keyseg.runs.looks import FAMILIES, LOOKS

LEVEL = pytest.mark.parametrize("level", [0.025, 0.05, 0.05 / 12])
FAMILY = pytest.mark.parametrize("family", FAMILIES)
SWEEPS = 200_000


def walks(looks: tuple[int, ...], shared: float = 0.0) -> np.ndarray:
    """(sweeps, L) one-sided p of nested means of normal seeds, and of images that all share."""
    rng = np.random.default_rng(0)
    seeds = rng.standard_normal((SWEEPS, looks[-1]))
    images = np.sqrt(shared) * rng.standard_normal((SWEEPS, 1))
    means = np.stack([seeds[:, :n].mean(1) for n in looks], 1) + images
    return ndtr(-means / np.sqrt(1 / np.array(looks) + shared))


def test_edges_are_those_of_another_implementation() -> None:
    """SeqBounds.jl's README: bounds([0.25, 0.5, 0.75, 1.0], 0.05), one-sided, O'Brien-Fleming."""
    found = nominal("obrien_fleming", (1, 2, 3, 4), 0.05)
    np.testing.assert_allclose(-ndtri(found), [3.74955, 2.53993, 2.01604, 1.72014], atol=2e-4)


@FAMILY
@LEVEL
def test_no_more_is_spent_than_the_level(family: str, level: float) -> None:
    """All of it where looks are seeds alone, less where they share their images."""
    edges = nominal(family, LOOKS, level)
    error = 3 * (level / SWEEPS) ** 0.5
    spent = (walks(LOOKS) <= edges).any(1).mean()
    assert spent <= level + error
    if family != "predictive":
        assert spent >= level - error
    assert (walks(LOOKS, shared=0.2) <= edges).any(1).mean() < spent + error


@FAMILY
@pytest.mark.parametrize("looks", [(5,), (3, 10), LOOKS, tuple(range(2, 21))])
def test_a_higher_level_is_higher_at_every_look(family: str, looks: tuple[int, ...]) -> None:
    levels = [nominal(family, looks, x) for x in (1e-5, 0.001, 0.01, 0.025, 0.05, 0.2)]
    for low, high in pairwise(levels):
        assert (low <= high).all()
    assert (levels[3] <= 0.025 + 1e-9).all()


@pytest.mark.parametrize("family", FAMILIES[:2])
def test_a_single_look_is_an_ordinary_test(family: str) -> None:
    assert nominal(family, (5,), 0.03) == pytest.approx([0.03])


@FAMILY
@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_the_p_over_all_looks_is_a_p(family: str, shared: float) -> None:
    """Of truly alike variants it is at most u in at most a share u of the sweeps, at any look."""
    p = walks(LOOKS, shared).T
    for looks in (1, 3, len(LOOKS)):
        found = overall(p[:looks], family, LOOKS)
        for level in (0.001, 0.01, 0.025, 0.05, 0.3):
            assert (found <= level).mean() <= level + 3 * (level / SWEEPS) ** 0.5


@FAMILY
def test_it_rejects_exactly_where_a_look_does(family: str) -> None:
    p = walks(LOOKS).T[:, :2000]
    for level in (0.05, 0.025, 0.01):
        edges = nominal(family, LOOKS, level)[:, None]
        clear = (np.abs(np.log(p / np.maximum(edges, 1e-300))) > 1e-3).all(0)
        rejected = (p <= edges).any(0)
        assert ((overall(p, family, LOOKS) <= level) == rejected)[clear].all()


@FAMILY
def test_more_looks_never_raise_it_and_silence_changes_nothing(family: str) -> None:
    p = walks(LOOKS).T[:, :500]
    found = [overall(p[:k], family, LOOKS) for k in range(1, len(LOOKS) + 1)]
    for before, after in pairwise(found):
        assert (after <= before).all()
    silent = p.copy()
    silent[1] = np.nan
    np.testing.assert_array_equal(overall(silent[:2], family, LOOKS), overall(p[:1], family, LOOKS))


def sources(seeds: int, of_seed: float, images: float) -> Sources:
    one = np.ones(3)
    return Sources(images * one, of_seed / seeds * one, 0 * one, 400 * one, 400, seeds)


def test_a_chance_is_what_comes_of_it() -> None:
    """Drawn: a flat prior's truth, the seeds to come, and the test of the last look."""
    from scipy.stats import t

    rng = np.random.default_rng(1)
    seen, last, of_seed, images = 4, 10, 4e-4, 1e-5
    value, margin = np.array([0.0, 0.02, 0.03]), 0.02 * np.ones(3)
    found = chance(value, sources(seen, of_seed, images), margin, "pocock", LOOKS, 1)
    draws = 200_000
    truth = value + np.sqrt(of_seed / seen) * rng.standard_t(seen - 1, (draws, 1))
    rest = truth + np.sqrt(of_seed / (last - seen)) * rng.standard_normal((draws, 1))
    final = (seen * value + (last - seen) * rest) / last
    error = np.sqrt(images + of_seed / last)
    edge = [t.isf(nominal("pocock", LOOKS, x)[-1], last - 1) * error for x in (0.025, 0.05)]
    differs = (np.abs(final) >= edge[0]).mean(0)
    equivalent = (np.abs(final) <= margin - edge[1]).mean(0)
    np.testing.assert_allclose(found.differs, differs, atol=0.03)  # t and normal added are not t
    np.testing.assert_allclose(found.equivalent, equivalent, atol=0.03)
    assert (found.any <= 1).all()


def test_a_chance_rises_with_the_difference_and_falls_with_the_doubt() -> None:
    value, margin = np.array([0.0, 0.02, 0.06]), 0.02 * np.ones(3)
    calm, wild = (
        chance(value, sources(4, x, 1e-6), margin, "pocock", LOOKS, 12) for x in (1e-5, 4e-3)
    )
    assert (np.diff(wild.differs) > 0).all()
    assert calm.differs[2] > 0.999
    assert calm.equivalent[0] > 0.99
    assert wild.any[0] < 0.1
