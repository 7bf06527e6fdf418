"""Variants that are plainly behind at a small budget: which cells come, and that it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyseg.config import ConfigError
from keyseg.runs import drops
from keyseg.runs.drops import Drop, JudgedBudget
from keyseg.sweep import drops as budget_after_budget
from keyseg.sweep.design import read_design
from keyseg.sweep.supervise import Outcome

STEPS = (100, 200, 800)


def cells() -> list[Any]:
    return [
        SimpleNamespace(
            signature=f"{fusion}{steps}",
            title=f"{fusion} · steps={steps} · seed 0",
            config=SimpleNamespace(optim=SimpleNamespace(steps=steps, schedule="wsd")),
            point=SimpleNamespace(factors={"fusion": fusion, "optim.steps": steps}),
        )
        for fusion in ("no_key", "cross", "full")
        for steps in STEPS
    ]


def judged(steps: int, *variants: str) -> JudgedBudget:
    some = tuple(Drop(name, "full", -0.4, 0.001) for name in variants)
    return JudgedBudget(steps, "giou", 0.2, some, {})


def names(found: Sequence[Any]) -> set[str]:
    return {cell.signature for cell in found}


def test_a_dropped_variant_has_no_larger_budget() -> None:
    every = cells()

    def asked(*before: JudgedBudget) -> set[str]:
        return names(budget_after_budget.asked_for(every, before))

    first = {"no_key100", "cross100", "full100"}
    second = {*first, "no_key200", "full200"}
    assert asked() == first
    assert asked(judged(100, "cross")) == second
    assert asked(judged(100, "cross"), judged(200)) == {*second, "no_key800", "full800"}


def test_budget_after_budget_and_what_was_judged_is_kept(tmp_path: Path) -> None:
    said: list[str] = []

    def work(asked: list[Any]) -> list[Outcome]:
        return [Outcome(cell, "done") for cell in asked]

    def judge(folder: Path, steps: int) -> JudgedBudget:
        return judged(steps, *(["cross"] if steps == 100 else []))

    def run(judge: Any) -> list[Outcome]:
        return budget_after_budget.run(tmp_path, cells(), work=work, judge=judge, say=said.append)

    assert len(run(judge)) == 3 + 2 + 2
    assert said == [
        "at 100 steps: cross is dropped, 40.0 points behind full (p = 0.001)",
        "at 200 steps no variant is 20 points behind another",
    ]
    again = run(lambda folder, steps: pytest.fail("judged twice"))
    assert len(again) == 7
    (tmp_path / drops.DROPS_FILE).write_text("[]")
    with pytest.raises(ConfigError, match=r"drops\.json cannot be read"):
        drops.read(tmp_path)


def test_a_cell_that_failed_stops_the_comparison(tmp_path: Path) -> None:
    said: list[str] = []
    budget_after_budget.run(
        tmp_path,
        cells(),
        work=lambda asked: [Outcome(cell, "failed") for cell in asked],
        judge=lambda folder, steps: pytest.fail("judged"),
        say=said.append,
    )
    assert said == ["variants are not compared at 100 steps: that needs all of its cells"]


@pytest.mark.parametrize(
    ("block", "until", "said"),
    [
        ({"drop_behind": 20}, None, r"needs several budgets, like optim\.steps=100,200,800"),
        ({"drop_behind": "much"}, None, "give points of 100"),
        ({"drop_behind": True}, None, "give points of 100"),
        ({"drop_behind": 20, "factors": ["fusion", "optim.steps"]}, "verdict", "does not go with"),
    ],
)
def test_what_does_not_fit_is_one_line(block: Any, until: str | None, said: str) -> None:
    steps = (100, 200) if "factors" in block else (100,)
    rows = [[f"fusion={f}", f"optim.steps={s}"] for f in ("full", "cross") for s in steps]
    with pytest.raises(ConfigError, match=said):
        read_design(rows, block, until=until)


def test_other_schedules_say_nothing_of_a_longer_training() -> None:
    every = cells()
    budget_after_budget.check_schedule(every)
    every[0].config.optim.schedule = "linear"
    with pytest.raises(
        ConfigError, match=r"no_key · steps=100 · seed 0 has optim\.schedule=linear"
    ):
        budget_after_budget.check_schedule(every)
