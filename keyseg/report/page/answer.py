"""The first screen of a report: what was asked, the answer in a sentence, and what it cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from keyseg.metrics import BY_NAME
from keyseg.report.stats.looks import parts_by_looks, standing
from keyseg.report.stats.verdict import GIVEN_UP, INTERIM, NO_RESULT
from keyseg.report.store import Sweep
from keyseg.report.tables.contrasts import Conclusion
from keyseg.report.tables.table import Table
from keyseg.runs.convergence import SAYS_NOTHING
from keyseg.runs.provenance import cost_unit
from keyseg.runs.run_directory import DONE, FAILED, PRUNED

_NAMED = 3
"""Contrasts that the sentence names; of more it gives the number."""
_VALUES = 6
"""Values of a factor that the heading lists."""
_SHOWS = ("better", "worse", "higher", "lower", "smaller than")
_OTHERS = {
    "no difference": ("shows no difference", "show no difference"),
    "one seed": ("rests on one seed", "rest on one seed"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    SAYS_NOTHING: ("says nothing of the variant", "say nothing of the variants"),
    "no interval": ("has no interval", "have no interval"),
    NO_RESULT: ("has no result", "have no result"),
    INTERIM: ("is open between two looks", "are open between two looks"),
    GIVEN_UP: ("was given up", "were given up"),
}
"""Words of a verdict that shows no direction, as they are counted."""


@dataclass(frozen=True)
class FirstScreen:
    """What a reader gets who reads no further. `state`: done, failed, or interim while cells are
    open; `facts`: what stands beside it, by title.
    """

    name: str
    heading: str
    sentence: str
    state: str
    done: int
    cells: int
    facts: Mapping[str, str]

    @property
    def title(self) -> str:
        """The heading with the sweep's name, once: what was swept may begin with it."""
        named = self.heading == self.name or self.heading.startswith(f"{self.name}:")
        return self.heading if named else f"{self.name}: {self.heading}"


def answer(sweep: Sweep, conclusions: Sequence[Conclusion], headline: Table) -> FirstScreen:
    """The first screen of this sweep."""
    ended = sum(cell.status in (DONE, PRUNED, FAILED) for cell in sweep.cells)
    done = len(sweep.finished)
    state = "interim" if ended < len(sweep.cells) else DONE if done == ended else FAILED
    stands = [s for s in (standing(sweep), *parts_by_looks(sweep)) if s is not None]
    if any(s.interim for s in stands) and state == DONE:
        state = "interim"
    return FirstScreen(
        sweep.name,
        heading(sweep),
        _sentence(sweep, conclusions, headline),
        state,
        done,
        len(sweep.cells),
        {
            "Cells with results": f"{done} of {len(sweep.cells)}",
            "Training": _training(sweep),
            "Price so far" if state == "interim" else "Price": _price(sweep),
            "Seeds a variant": _seeds(sweep),
        },
    )


def heading(sweep: Sweep) -> str:
    """The question; where none was stated, what was swept."""
    if question := str(sweep.design.get("question") or ""):
        return question
    factors = sweep.design.get("factors")
    if not isinstance(factors, Mapping) or not factors:
        labels = [variant.label for variant in sweep.variants]
        return f"{sweep.name}: {_listed(labels)}" if labels else sweep.name
    values = [
        f"{key}: {_listed([str(value) for value in levels])}" for key, levels in factors.items()
    ]
    return " × ".join(values)


def _listed(values: Sequence[str], between: str = ", ") -> str:
    if len(values) <= _VALUES:
        return between.join(values)
    return f"{between.join(values[: _VALUES - 1])} and {len(values) - _VALUES + 1} more"


def _sentence(sweep: Sweep, conclusions: Sequence[Conclusion], headline: Table) -> str:
    if not sweep.finished:
        return "No cell has results yet."
    metric = BY_NAME[sweep.metrics[0]].title
    own = [c for c in conclusions if c.metric == metric]
    if not own:
        return _scores(headline)
    if len(own) == 1:
        return f"On {metric}, {_said(own[0])}."
    shown = [c for c in own if c.word.startswith(_SHOWS)]
    parts = [_said(c) for c in shown[:_NAMED]]
    if len(shown) > _NAMED:
        more = len(shown) - _NAMED
        parts.append(f"{more} more contrast{' shows' if more == 1 else 's show'} a difference")
    for start, (one, several) in _OTHERS.items():
        alike = [c for c in own if c not in shown and c.word.startswith(start)]
        for steps in dict.fromkeys(c.word.removeprefix(start) for c in alike):
            these = [c for c in alike if c.word == start + steps]
            count = len(these)
            every = count == len(own)
            number = ("both" if count == 2 else f"all {count}") if every else str(count)
            of = "" if parts else f" of {len(own)} contrasts"
            number += " contrasts" if every else of
            said = f"{one if count == 1 else several}{_bound(these)}{steps}"
            parts.append(f"{number} {said}{_why(these, start)}")
    return f"On {metric}: {'; '.join(parts)}."


def _bound(conclusions: Sequence[Conclusion]) -> str:
    """` larger than 2 points`, where they rule that out and no more; "" beside other words."""
    bounds = {c.bound for c in conclusions}
    bound = bounds.pop()
    return f" {bound}" if bound and not bounds else ""


def _why(conclusions: Sequence[Conclusion], start: str) -> str:
    """In brackets which trainings never began to learn; "" beside other words."""
    if start != SAYS_NOTHING:
        return ""
    reasons = dict.fromkeys(c.text for c in conclusions if c.word.startswith(start))
    return f" ({_listed(list(reasons), '; ')})"


def _said(conclusion: Conclusion) -> str:
    """`full − self: better, +2.1 points [0.5, 3.7]`: what comes after is left to the verdicts."""
    if conclusion.word.startswith((NO_RESULT, SAYS_NOTHING)):
        return f"{conclusion.contrast}: {conclusion.word} ({conclusion.text})"
    difference = re.split(", p |, equivalence p |;", conclusion.numbers)[0]
    return f"{conclusion.contrast}: {conclusion.claim}, {difference}"


def _scores(headline: Table) -> str:
    """Where nothing is compared: the first measure of each variant."""
    title = headline.header[0]
    parts = []
    for line in headline.lines[:_VALUES]:
        first = line.entries[0]
        numbers = " ".join(filter(None, (first.value, first.spread, first.interval)))
        parts.append(f"{line.label} {numbers}")
    more = len(headline.lines) - _VALUES
    return f"{title}, percent: {'; '.join(parts)}{f'; {more} more' if more > 0 else ''}."


def _training(sweep: Sweep) -> str:
    """Whether the finished variants had converged."""
    finished = [v for v in sweep.variants if v.finished]
    if not finished:
        return "none finished"
    reached = sum(v.at_plateau for v in finished)
    return f"at a plateau: {reached} of {len(finished)} variants"


def _price(sweep: Sweep) -> str:
    """Hours of all attempts of all cells, also of those that failed."""
    hours = [cell.hours for cell in sweep.cells if isfinite(cell.hours)]
    unit = cost_unit(cell.info for cell in sweep.cells)
    if not hours:
        return "not recorded"
    total = sum(hours)
    return f"{total:.{2 if total < 10 else 0}f} {unit}-hours"


def _seeds(sweep: Sweep) -> str:
    seeds = {len(variant.finished) for variant in sweep.variants if variant.finished}
    if not seeds:
        return f"{len(sweep.seeds)} asked"
    low, high = min(seeds), max(seeds)
    return str(high) if low == high else f"{low} to {high}"
