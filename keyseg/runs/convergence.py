"""Did a training converge? One word from its curve of gIoU on val; docs/convergence.md has the why.

A schedule that lets the learning rate fall to 0 makes every curve flat at its end, so the end
proves nothing. Whether a curve has flattened is judged where the rate is still at least half of
its peak, over the last doubling of the steps there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, log2
from typing import Any

from keyseg.runs.run_directory import Row

PLATEAU = "plateau"
RISING = "still rising"
UNTRAINED = "never left the untrained level"
COLLAPSED = "collapsed"
DIVERGED = "diverged"
SAYS_NOTHING = "says nothing"
"""The verdict on a contrast with a variant that is `UNTRAINED`: its numbers are of no variant."""
_WORDS = (PLATEAU, RISING, UNTRAINED, COLLAPSED, DIVERGED)

LEFT = 0.05
"""Gain over the untrained model from which a training has left its level."""
FLAT = 0.02
"""A curve is flat that rises by less than this when the steps are doubled."""
DECAY_GAIN = 0.05
"""What a falling learning rate may add to a flat curve; more is learning that was not over."""
HIGH_RATE = 0.5
"""Share of the peak rate from which a flat curve is the variant's doing, not the schedule's."""

_FEWEST = 4
"""Evaluations in the last doubling of the steps before a training may end early (`settled`)."""

SCORE, RATE = "val/giou", "train/lr"
"""The rows that are read."""

Point = tuple[int, float]
"""A step, and a value there."""


@dataclass(frozen=True)
class Convergence:
    """The word, and what it rests on.

    `word`: one of `_WORDS`; None where the curve is too short for any. `steps`: of the last
    evaluation. `untrained`, `end`: gIoU on val before the first step and at the last one.
    `high_rate_until`: last step with at least half of the peak rate; `rise`: gIoU a doubling of the
    steps brought up to there, None where fewer than two evaluations tell.
    """

    word: str | None
    steps: int = 0
    untrained: float | None = None
    end: float | None = None
    high_rate_until: int | None = None
    rise: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return asdict(self)


def judge(
    curve: Sequence[Point], rates: Sequence[Point] = (), *, diverged: bool = False
) -> Convergence:
    """Judge a training.

    Args:
        curve: (step, gIoU on val) by rising step; step 0 is the untrained model.
        rates: (step, learning rate) by rising step; none = it was constant.
        diverged: whether the training ended because its loss was no number.
    """
    steps = curve[-1][0] if curve else 0
    if diverged or not all(isfinite(score) for _, score in curve):
        return Convergence(DIVERGED, steps)
    if not curve or curve[0][0] != 0:  # the untrained level is not known
        return Convergence(None, steps)
    untrained, end = curve[0][1], curve[-1][1]
    until = high_rate_until(rates, steps)
    slope = rise([point for point in curve if point[0] <= until])
    best = max(score for _, score in curve)
    if best - untrained < LEFT:
        word = UNTRAINED
    elif best - end > max((best - untrained) / 2, LEFT):
        word = COLLAPSED
    elif slope is not None and slope < FLAT and _holds(curve, until):
        word = PLATEAU
    else:
        word = RISING
    return Convergence(word, steps, untrained, end, until, slope)


def high_rate_until(rates: Sequence[Point], steps: int) -> int:
    """The last step at which the rate was at least `HIGH_RATE` of its peak; `steps` without any."""
    peak = max((rate for _, rate in rates), default=0.0)
    if peak <= 0:
        return steps
    last = max(step for step, rate in rates if rate >= HIGH_RATE * peak)
    return steps if last == rates[-1][0] else last


def rise(curve: Sequence[Point]) -> float | None:
    """What doubling the steps brings: slope of a line over log2(step), on the last doubling.

    The evaluation at or before half of the steps is the first that counts. None: there are fewer
    than two evaluations, or none early enough.
    """
    trained = [(step, score) for step, score in curve if step > 0]
    if not trained:
        return None
    half = trained[-1][0] / 2
    first = max((step for step, _ in trained if step <= half), default=None)
    if first is None:
        return None
    last = [(log2(step), score) for step, score in trained if step >= first]
    x, y = (sum(column) / len(last) for column in zip(*last, strict=True))
    slope: float = sum((a - x) * (b - y) for a, b in last) / sum((a - x) ** 2 for a, _ in last)
    return slope


def settled(curve: Sequence[Point]) -> bool:
    """Whether a training at a constant rate has reached its plateau, so far.

    It is asked after every evaluation, and noise would say yes sooner or later: it takes
    `_FEWEST` evaluations in the last doubling of the steps.
    """
    half = curve[-1][0] / 2 if curve else 0
    enough = sum(step >= half for step, _ in curve) >= _FEWEST
    return enough and judge(curve).word == PLATEAU


def out_of_patience(curve: Sequence[Point], patience: int) -> bool:
    """Whether the last `patience` evaluations were no better than the best trained one before."""
    scores = [score for step, score in curve if step > 0]
    before, last = scores[:-patience], scores[-patience:]
    return bool(before) and max(last) <= max(before)


def _holds(curve: Sequence[Point], until: int) -> bool:
    """Whether the falling rate brought no more than it usually does to a curve that was flat."""
    before = [score for step, score in curve if 0 < step <= until][-2:]
    return curve[-1][1] - sum(before) / len(before) <= DECAY_GAIN


def flat_together(
    words: Iterable[str | None], curves: Sequence[Sequence[Point]], rates: Sequence[Point] = ()
) -> bool:
    """Whether trainings of one variant that differ in their seeds are at a plateau.

    All are, each by itself; or some are still rising by their own curves, and the mean of all
    curves is at one. The rise of one curve is known to about a point where the last doubling has
    eight evaluations of some hundred pictures, so among five that have flattened one is often
    taken for rising; the rise of their mean is known twice as well.

    Args:
        words: of each training alone.
        curves: of each; the mean is over the steps that all of them were evaluated at.
        rates: of one, as in `judge`.
    """
    alone = set(words)
    if alone == {PLATEAU}:
        return True
    if not alone or not alone <= {PLATEAU, RISING} or len(curves) < 2:
        return False
    scores = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*map(set, scores)))
    mean = [(step, sum(each[step] for each in scores) / len(scores)) for step in shared]
    return judge(mean, rates).word == PLATEAU


def curves_of(rows: Iterable[Row]) -> tuple[list[Point], list[Point]]:
    """Of a run: gIoU on val, and the learning rate."""
    curves: dict[str, dict[int, float]] = {SCORE: {}, RATE: {}}
    for row in rows:
        if row.name in curves:
            curves[row.name][row.step] = row.value
    curve, rates = (sorted(curves[name].items()) for name in (SCORE, RATE))
    return curve, rates


def of_rows(rows: Iterable[Row], info: Mapping[str, Any]) -> Convergence:
    """`judge` from the rows of a run and its run.json."""
    return judge(*curves_of(rows), diverged=is_divergence(info.get("error")))


def is_divergence(error: object) -> bool:
    """Whether the error of a run.json says that the loss was no number."""
    return "DivergedError" in str(error or "")


def in_words(words: Iterable[str | None]) -> str:
    """The words of several trainings: `plateau`, or `4 plateau, 1 collapsed`; "" without any."""
    counts = Counter(word or "not known" for word in words)
    if len(counts) <= 1:
        return next(iter(counts), "")
    order = [*_WORDS, "not known"]
    return ", ".join(f"{counts[word]} {word}" for word in order if counts[word])
