"""Seeds until the answer is in: which cells come at each look, and the way from look to look.

A look is taken when all cells are done that were asked for; then only variants of contrasts that
are still open get the next seeds. Who judges is handed in: docs/sequential.md has the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any

from keyseg.config import ConfigError
from keyseg.runs import declaration, looks, provenance
from keyseg.runs.looks import LookPlan, TakenLook
from keyseg.runs.run_directory import DONE
from keyseg.sweep.cells import Cell, Say
from keyseg.sweep.design import Design
from keyseg.sweep.supervise import Outcome


def asked_for(
    cells: Sequence[Cell], plan: LookPlan | None, taken: Sequence[TakenLook]
) -> list[Cell]:
    """The cells that have been asked for, those of the look that comes next among them.

    All of them where seeds do not come by looks.
    """
    if plan is None:
        return list(cells)
    counts = looks.wanted(plan, taken, {cell.label for cell in cells})
    place = {seed: i for i, seed in enumerate(plan.seeds)}
    return [cell for cell in cells if place[cell.config.seed] < counts[cell.label]]


def check_rerun(name: str, asked: Sequence[Cell], taken: Sequence[TakenLook]) -> None:
    """Whether what was decided stands on the results that it was decided by.

    Raises:
        ConfigError: a cell is to run again that a look was taken of.
    """
    known = {signature for look in taken for signature in look.samples}
    again = [cell.title for cell in asked if cell.rerun and cell.signature in known]
    if again:
        raise ConfigError(
            f"{again[0]} is not run again: what look {len(taken)} of {name} decided rests on it, "
            "and no look is taken twice; stale=keep takes it as it is, name=OTHER begins anew"
        )


def check_design(sweep_dir: Path, sweep: Mapping[str, Any]) -> None:
    """Whether the looks that were taken are those of this design (a sweep.json).

    Raises:
        ConfigError: they are of another: its contrasts, margins, seeds or looks were others.
    """
    taken = looks.read(sweep_dir)
    if taken and taken[-1].design != declaration.tested(declaration.of(sweep)):
        raise ConfigError(
            f"{len(taken)} looks of {sweep_dir.name} were taken by another design (contrasts, "
            "margins, variants, seeds or looks): name=OTHER begins one that decides anew"
        )


def run(
    sweep_dir: Path,
    cells: Sequence[Cell],
    plan: LookPlan,
    *,
    work: Callable[[list[Cell]], list[Outcome]],
    decide: looks.Decide,
    say: Say,
) -> list[Outcome]:
    """Look after look until nothing is open, or a cell fails: outcomes of all cells asked for.

    Args:
        sweep_dir: where the looks are kept.
        cells: all that may come.
        plan: which seeds come when.
        work: gets these cells done; those that are done already are found.
        decide: takes a look.
        say: hears what was decided.
    """
    known: dict[str, Outcome] = {}
    while True:
        taken = looks.read(sweep_dir)
        for outcome in work(asked_for(cells, plan, taken)):
            # a later look finds what an earlier one of this command has done
            known.setdefault(outcome.cell.signature, outcome)
        outcomes = list(known.values())
        if looks.ended(plan, taken):
            return outcomes
        number = len(taken) + 1
        if any(outcome.status != DONE for outcome in outcomes):
            say(f"look {number} is not taken: it needs all of its cells")
            return outcomes
        look, _ = looks.take(sweep_dir, number, decide)
        for line in lines(plan, look):
            say(line)
        if looks.ended(plan, [*taken, look]):
            return outcomes


def lines(plan: LookPlan, look: TakenLook) -> list[str]:
    """What a look decided, and what comes next."""
    head = f"look {look.number} of {len(plan.at)} ({look.seeds} seeds)"
    said = [f"{r.contrast}: {r.word}" for r in look.decided]
    out = [f"{head}: {'; '.join(said) or 'nothing is decided'}"]
    if not look.open:
        return [*out, "every contrast has its answer: no more seeds are needed"]
    names = ", ".join(r.contrast for r in look.open)
    if look.number == len(plan.at):
        return [*out, f"open after {plan.at[-1]} seeds: {names}"]
    labels = sorted({label for r in look.open for label in r.labels})
    more = plan.at[look.number] - look.seeds
    return [
        *out,
        f"open: {names}; {more} more {'seed' if more == 1 else 'seeds'} for {', '.join(labels)}",
    ]


def forecast(
    design: Design,
    cells: Sequence[Cell],
    taken: Sequence[TakenLook],
    expected_share: Callable[[Design], float],
) -> list[str]:
    """The looks of a design, and what they cost at most and as expected; [] without looks."""
    plan = design.looks
    if plan is None:
        return []
    asked = asked_for(cells, plan, taken)
    at = ", ".join(map(str, plan.at))
    share = expected_share(design)
    known = [cost for cell in cells if isfinite(cost := provenance.hours(cell.open().info))]
    each = fmean(known) if known else nan

    def cost_of(count: float) -> str:
        cost = f", {count * each:.2f} hours" if known else ""
        return f"{count:.0f} cells{cost}"

    return [
        f"looks at {at} seeds ({plan.family}); {design.metrics[0]} decides; {len(taken)} taken",
        f"asked for now: {cost_of(len(asked))}; at most: {cost_of(len(cells))}; expected: about "
        f"{cost_of(share * len(cells))} ({100 * share:.0f} %, simulated: half of the contrasts "
        "alike, a quarter 2.5 points apart, a quarter 10)",
    ]
