"""Sweeps that stop when the answer is in, in short; benchmarks/sequential.py is the long one."""

from __future__ import annotations

import numpy as np
import pytest

from keyseg.report.stats.sequential import nominal
from keyseg.report.stats.sequential_simulation import READ, Read, fixed, read, stopped
from keyseg.report.stats.simulation import PLAIN
from keyseg.report.stats.synthetic import MU, World, draw, gap
from keyseg.runs.looks import DIFFERS, EQUIVALENT, FAMILIES, FUTILE, LOOKS, OPEN

FAMILY = pytest.mark.parametrize("family", FAMILIES)
SMALL = World(images=50)
REPEATS = 200
WIDE = 0.25
"""Of the score: 10 points of gIoU."""
NOISE = (0.05 * 0.95 / REPEATS) ** 0.5


@pytest.fixture(scope="module")
def alike() -> Read:
    """Four variants like the first."""
    return read([MU] * 5, [0.05] * 4, SMALL, REPEATS, 0)


@pytest.fixture(scope="module")
def at_the_margin() -> Read:
    truth = gap(draw([MU, MU + WIDE], 1, SMALL, np.random.default_rng(0)).both, PLAIN)[0]
    return read([MU, *[MU + WIDE] * 4], [truth] * 4, SMALL, REPEATS, 1)


@FAMILY
def test_false_claims_over_all_looks(family: str, alike: Read, at_the_margin: Read) -> None:
    assert stopped(alike, family).some(DIFFERS, range(4)) <= 0.05 + 2 * NOISE
    assert stopped(at_the_margin, family).small.any(1).mean() <= 0.05 + 2 * NOISE


def test_looking_at_5_percent_each_time_would_err_far_more_often() -> None:
    """What the boundaries are for: one contrast, five looks, an ordinary test at each."""
    repeats = 600
    seen = read([MU, MU], [0.05], World(images=50, tau=0.15), repeats, 2)
    at = [READ.index(n) for n in LOOKS]
    peeking = (seen.p[at, :, 0] <= 0.05).any(0).mean()
    assert peeking > 0.1
    assert stopped(seen, "pocock").some(DIFFERS, [0]) <= 0.05 + 3 * (0.05 * 0.95 / repeats) ** 0.5


@FAMILY
def test_it_stops_early_and_finds_what_ten_seeds_find(family: str, at_the_margin: Read) -> None:
    ended, whole = stopped(at_the_margin, family), fixed(at_the_margin, 10)
    assert ended.cells < 0.9 * whole.cells == 0.9 * 50
    assert ended.each(DIFFERS, range(4)) > 0.8 * whole.each(DIFFERS, range(4))


def scripted(p: list[list[float]], equivalence: list[list[float]], hope: list[list[float]]) -> Read:
    """One sweep of two contrasts; a row for each of `LOOKS`."""
    rows = {n: i for i, n in enumerate(LOOKS)}

    def each(values: list[list[float]]) -> np.ndarray:
        return np.array([values[rows.get(n, 1)] for n in READ])[:, None]

    return Read(READ, each(p), each(equivalence), {f: each(hope) for f in FAMILIES})


@FAMILY
def test_a_decided_contrast_gets_no_more_seeds(family: str) -> None:
    sure = float(nominal(family, LOOKS, 0.0125)[1])  # half of 5 %, and Holm's first step of two
    p = [[0.9, 0.9], [sure, 0.9], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9]]
    never, hope = [[0.9, 0.9]] * 5, [[0.5, 0.5]] * 5
    ended = stopped(scripted(p, never, hope), family)
    assert ended.words.tolist() == [[DIFFERS, OPEN]]
    assert ended.seeds.tolist() == [[10, 4, 10]]
    given_up = stopped(scripted(p, never, [*hope[:2], [0.5, 0.05], *hope[3:]]), family)
    assert given_up.words.tolist() == [[DIFFERS, FUTILE]]
    assert given_up.seeds.tolist() == [[6, 4, 6]]


@FAMILY
def test_what_comes_after_a_decision_changes_it_no_more(family: str) -> None:
    """A contrast that was called equivalent is not called different by seeds it never got."""
    sure = float(nominal(family, LOOKS, 0.02)[0])
    p = [[0.9, 0.9], [1e-9, 0.9], *[[0.9, 0.9]] * 3]
    equivalence = [[sure, 0.9], *[[0.9, 0.9]] * 4]
    ended = stopped(scripted(p, equivalence, [[0.5, 0.5]] * 5), family)
    assert ended.words.tolist() == [[EQUIVALENT, OPEN]]
    assert ended.seeds.tolist() == [[10, 3, 10]]


def test_a_fixed_design_is_an_ordinary_test() -> None:
    seen = scripted([[0.01, 0.04]] * 5, [[0.9, 0.9]] * 5, [[0.5, 0.5]] * 5)
    assert fixed(seen, 5).words.tolist() == [[DIFFERS, DIFFERS]]
    assert fixed(seen, 5).seeds.tolist() == [[5, 5, 5]]
