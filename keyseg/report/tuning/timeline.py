"""When a tuning's workers were busy: lines for a timeline, and utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keyseg.report.tuning.trials import Invocation, Trial, TuningResults


@dataclass(frozen=True)
class Bar:
    """A worker's time with a trial: its line, and begin and end in seconds of tuning."""

    trial: Trial
    line: int
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """`seams`: where one invocation ends and the next begins.

    `used`: the share of all workers' time that trials took. `steady`: the same until the last
    trial was started; after that workers run out of trials, however well they are fed.
    """

    bars: list[Bar]
    seams: list[float]
    used: float
    steady: float


def timeline(tuning: TuningResults) -> Timeline | None:
    """The timeline of all studies; None where no worker has ended a trial yet.

    Time between invocations is left out: nobody was at work then, and nobody should have been.
    """
    spans = sorted(
        ((begin, end, trial) for s in tuning.studies for trial in s.trials
         for begin, end in trial.worked),
        key=lambda span: span[0],
    )  # fmt: skip
    if not spans or not tuning.invocations:
        return None
    calls = _whole(tuning.invocations, [(begin, end) for begin, end, _ in spans])
    bars, free = [], list[float]()
    for begin, end, trial in spans:
        start, stop = _clock(calls, begin), _clock(calls, end)
        line = next((i for i, since in enumerate(free) if since <= begin), len(free))
        free[line:] = [end, *free[line + 1 :]]
        bars.append(Bar(trial, line, start, stop))
    seams = [_clock(calls, call.end) for call in calls[:-1]]
    last = max(begin for begin, _, _ in spans)
    return Timeline(bars, seams, _used(calls, spans, None), _used(calls, spans, last))


def _whole(
    calls: Sequence[Invocation], spans: Sequence[tuple[float, float]]
) -> tuple[Invocation, ...]:
    """Invocations up to the end of the last work in them: workers outlive a controller killed."""
    bars = []
    for i, call in enumerate(calls):
        after = calls[i + 1].begin if i + 1 < len(calls) else float("inf")
        ends = [min(end, after) for begin, end in spans if call.begin <= begin < after]
        bars.append(Invocation(call.begin, max([call.end, *ends]), call.workers))
    return tuple(bars)


def _clock(calls: Sequence[Invocation], moment: float) -> float:
    """Seconds of tuning until a moment."""
    return sum(max(0.0, min(moment, call.end) - call.begin) for call in calls)


def _used(
    calls: Sequence[Invocation], spans: Sequence[tuple[float, float, Trial]], until: float | None
) -> float:
    stop = float("inf") if until is None else until
    there = sum(max(0.0, min(call.end, stop) - call.begin) * call.workers for call in calls)
    busy = sum(max(0.0, min(end, stop) - begin) for begin, end, _ in spans)
    return min(1.0, busy / there) if there else 1.0
