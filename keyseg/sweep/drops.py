"""Budget after budget: variants that are plainly behind at a small one are not trained longer.

    ablation: {drop_behind: 20}      points of the first metric; with optim.steps=100,200,800 and
                                     optim.schedule=wsd, whose trunk the budgets share

All cells of a budget are done before the next begins. Curves may cross: docs/sequential.md says how
often the variant that is best in the end is lost by that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from keyseg.config import ConfigError
from keyseg.runs import drops
from keyseg.runs.drops import JudgeBudget, JudgedBudget
from keyseg.runs.run_directory import DONE
from keyseg.sweep.cells import Cell, Say
from keyseg.sweep.supervise import Outcome


def budgets(cells: Sequence[Cell]) -> list[int]:
    """The budgets of a sweep, the smallest first."""
    return sorted({cell.config.optim.steps for cell in cells})


def check_schedule(cells: Sequence[Cell]) -> None:
    """Refuse all schedules but wsd: in it alone a longer training begins as a shorter one does.

    Raises:
        ConfigError: another schedule than wsd: a cell at a small budget says nothing of that.
    """
    for cell in cells:
        if cell.config.optim.schedule != "wsd":
            raise ConfigError(
                f"ablation.drop_behind: {cell.title} has optim.schedule="
                f"{cell.config.optim.schedule}; budgets are compared with optim.schedule=wsd"
            )


def asked_for(cells: Sequence[Cell], judged: Sequence[JudgedBudget]) -> list[Cell]:
    """The cells of all budgets that were judged, and of the next, less what was dropped."""
    every = budgets(cells)
    now = every[min(len(judged), len(every) - 1)]
    longest = {drop.variant: each.steps for each in judged for drop in each.drops}
    return [
        cell
        for cell in cells
        if cell.config.optim.steps <= min(now, longest.get(drops.variant(cell.point.factors), now))
    ]


def run(
    sweep_dir: Path,
    cells: Sequence[Cell],
    *,
    work: Callable[[list[Cell]], list[Outcome]],
    judge: JudgeBudget,
    say: Say,
) -> list[Outcome]:
    """Budget after budget, until the last or until a cell fails: outcomes of all cells asked for.

    Args as in `looks.run`; `judge` compares the variants at a budget.
    """
    every, known = budgets(cells), dict[str, Outcome]()
    while True:
        judged = drops.read(sweep_dir)
        for outcome in work(asked_for(cells, judged)):
            known.setdefault(outcome.cell.signature, outcome)
        outcomes = list(known.values())
        if len(judged) >= len(every) - 1:
            return outcomes
        steps = every[len(judged)]
        if any(outcome.status != DONE for outcome in outcomes):
            say(f"variants are not compared at {steps} steps: that needs all of its cells")
            return outcomes
        now = drops.judge(sweep_dir, steps, judge)
        for drop in now.drops:
            say(f"at {steps} steps: {in_words(drop)}")
        if not now.drops:
            say(f"at {steps} steps no variant is {100 * now.margin:g} points behind another")


def in_words(drop: drops.Drop) -> str:
    """ "cross is dropped, 45.1 points behind full (p = 0.0012)"."""
    return (
        f"{drop.variant} is dropped, {-100 * drop.difference:.1f} points behind {drop.behind} "
        f"(p = {drop.p:.2g})"
    )
