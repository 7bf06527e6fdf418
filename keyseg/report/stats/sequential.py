"""Looking at a sweep while its seeds come in, with an error rate that holds over all looks.

Seeds are added look by look (3, 4, 6, 8, 10 of them, say), and a contrast that is decided gets no
more. Whoever looks five times at 5 % errs far more often than that, so each look has a share of it:
a *nominal* level, far below 5 % at first. Three ways to share, all one-sided:

- `obrien_fleming`, `pocock`: Lan and DeMets's (1983) spending functions that are like those
  boundaries. Nearly all of the level is kept for the last look, or it is shared about evenly.
- `predictive`: the probability, given what was seen and if there were no difference, that the last
  look rejects. It is a martingale there, so by Ville's inequality it exceeds `SURE` with a
  probability of at most the last look's level over `SURE` (Lan, Simon and Halperin 1982).

Means over nested seeds are a random walk: between looks of m < n seeds the correlation is
sqrt(m / n), and more where a part of the doubt is about images, which all looks share. The nominal
levels are those of sqrt(m / n): a higher correlation only makes fewer looks err.

`overall` turns the p values of the looks so far into one p that Holm's method, or anything else,
may take for the p of a single look. Shapes: L looks, K contrasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from keyseg.report.stats.inference import Sources, holm
from keyseg.report.stats.verdict import ALPHA
from keyseg.runs.looks import DIFFERS, EQUIVALENT, FUTILE, OPEN

SURE = 0.8
"""Predictive probability from which the last look is not waited for."""
FUTILE_CHANCE = 0.1
"""Probability of a verdict by the last look below which a contrast is given up."""

Spending = Callable[[np.ndarray, float], np.ndarray]
"""Shares of the seeds (L,) and a level -> how much of the level is spent by then (L,)."""


def obrien_fleming(share: np.ndarray, level: float) -> np.ndarray:
    """2 - 2 Phi(z / sqrt(share)), z the edge of half of the level."""
    from scipy.special import ndtr, ndtri

    spent: np.ndarray = 2 * ndtr(ndtri(level / 2) / np.sqrt(share))
    return spent


def pocock(share: np.ndarray, level: float) -> np.ndarray:
    """level log(1 + (e - 1) share)."""
    spent: np.ndarray = level * np.log1p((np.e - 1) * share)
    return spent


SPENDING: dict[str, Spending] = {"obrien_fleming": obrien_fleming, "pocock": pocock}


@lru_cache(maxsize=4096)
def nominal(family: str, looks: tuple[int, ...], level: float) -> np.ndarray:
    """(L,) one-sided p at which each look rejects, so that any does with at most `level`."""
    from scipy.special import ndtr, ndtri

    share = np.array(looks) / looks[-1]
    if family == "predictive":
        last = -ndtri(SURE * level)
        edge = (last - ndtri(1 - SURE) * np.sqrt(1 - share)) / np.sqrt(share)
    else:
        edge = _edges(share, SPENDING[family](share, level))
    levels: np.ndarray = ndtr(-edge)
    levels.flags.writeable = False
    return levels


NODES = 96
FAR = 8.0
"""Standard errors below 0 from which on a walk is not followed."""


def _edges(share: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """(L,) edges of z that a walk first crosses at each look with the increments of `spent`.

    Armitage, McPherson and Rowe's (1969) recursion: the density of the walks that have not crossed
    yet, on Gauss-Legendre nodes below the edge, is carried from look to look.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    edges = [float(-ndtri(spent[0]))]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)

    def below(edge: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
        half = (edge + FAR * scale) / 2
        return edge - half * (1 - nodes), half * weights

    scale = float(np.sqrt(share[0]))
    at, mass = below(edges[0] * scale, scale)
    mass = mass * _normal(at / scale) / scale
    for before, now, more in zip(share, share[1:], np.diff(spent), strict=False):
        step, scale = float(np.sqrt(now - before)), float(np.sqrt(now))

        def left(z: float, from_=at, mass=mass, step=step, scale=scale, more=more):  # type: ignore[no-untyped-def]
            return mass @ ndtr((from_ - z * scale) / step) - more

        edges.append(brentq(left, -FAR, 4 * FAR, xtol=1e-10) if more > 0 else np.inf)
        new, width = below(min(edges[-1] * scale, FAR * scale), scale)
        mass = width * (_normal((new[:, None] - at) / step) / step @ mass)
        at = new
    return np.array(edges)


def _normal(z: np.ndarray) -> np.ndarray:
    density: np.ndarray = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return density


LEVELS = np.geomspace(1e-7, 0.45, 120)


@lru_cache(maxsize=16)
def _levels(family: str, looks: tuple[int, ...]) -> np.ndarray:
    """(levels, L) nominal levels of a grid of levels; each column rises."""
    return np.maximum.accumulate([nominal(family, looks, float(x)) for x in LEVELS], axis=0)


def overall(p: np.ndarray, family: str, looks: tuple[int, ...]) -> np.ndarray:
    """(l, ...) one-sided p of the looks so far -> (...) one p over all of them.

    The smallest level at which one of them would have rejected ("sequential p", Liu and Anderson
    2008): as rarely below any level as a single p is. NaN: a look that says nothing. At least the
    smallest level that is tabled; 1 where even the largest does not reject.
    """
    table = np.log(np.maximum(_levels(family, looks), 1e-300))
    grid = np.log(LEVELS)
    out = np.ones(p.shape[1:])
    for column, of_look in zip(table.T, p, strict=False):
        at = np.log(np.maximum(np.where(np.isnan(of_look), 1.0, of_look), 1e-300))
        spent = np.exp(np.interp(at, column, grid))
        out = np.minimum(out, np.where(at > column[-1], 1.0, spent))
    return out


@dataclass(frozen=True)
class Corrected:
    """(K,) p values over all looks so far, two-sided and of equivalence, by Holm's method."""

    differs: np.ndarray
    equivalent: np.ndarray

    @property
    def words(self) -> np.ndarray:
        """(K,) what a single look says: differs, equivalent, or open."""
        words = np.full(self.differs.shape, OPEN, object)
        words[self.small] = EQUIVALENT
        words[self.differs <= ALPHA] = DIFFERS
        return words

    @property
    def small(self) -> np.ndarray:
        """(K,) which differences are shown to be smaller than the margin."""
        claims: np.ndarray = self.equivalent <= ALPHA
        return claims


def corrected(
    p: np.ndarray, equivalence: np.ndarray, family: str, looks: tuple[int, ...]
) -> Corrected:
    """One p a contrast over all looks so far, from (l, K), corrected; NaN: a look said nothing."""
    either = np.minimum(2 * overall(p / 2, family, looks), 1)
    small = overall(equivalence, family, looks)
    return Corrected(holm(either.tolist()), holm(small.tolist()))


def ruled(now: Corrected, hope: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(K,) words after a look: an open contrast is decided, given up or stays open; others stay.

    `hope`: of a verdict by the last look; a contrast with too little of it is given up.
    """
    words = np.where(before == OPEN, now.words, before)
    words[(words == OPEN) & (hope < FUTILE_CHANCE)] = FUTILE
    return words


@dataclass(frozen=True)
class Chance:
    """(K,) probabilities of a verdict at the last look, as things stand."""

    differs: np.ndarray
    equivalent: np.ndarray

    @property
    def any(self) -> np.ndarray:
        """(K,) of either."""
        both: np.ndarray = np.minimum(self.differs + self.equivalent, 1)
        return both


def chance(
    value: np.ndarray,
    by: Sources,
    margin: np.ndarray,
    family: str,
    looks: tuple[int, ...],
    contrasts: int,
    alpha: float = 0.05,
) -> Chance:
    """How probable a verdict is at the last look, from what this one shows (K,).

    Predictive: the seeds to come scatter about a truth that is itself known only as well as the
    seeds so far tell (a flat prior). The images stay the same. Each contrast is asked to pass at
    Holm's first step; a later one asks for less, so the chance is rather too low.
    """
    from scipy.stats import t

    seen, last = by.n_seeds, looks[-1]
    of_seed = by.seeds * seen
    images = np.maximum(by.images - by.interaction, 0)
    error = np.sqrt(images + of_seed / last)
    spread = np.sqrt(of_seed * max(1 / seen - 1 / last, 0)) + 1e-12
    level = alpha / contrasts
    reach, room = (
        t.isf(nominal(family, looks, one_sided)[-1], last - 1) * error
        for one_sided in (level / 2, level)
    )
    few = max(seen - 1, 1)
    beyond = t.sf((reach - value) / spread, few) + t.cdf((-reach - value) / spread, few)
    inner = margin - room
    within = t.cdf((inner - value) / spread, few) - t.cdf((-inner - value) / spread, few)
    return Chance(beyond, np.where(inner > 0, within, 0.0))
