"""The controller: asks for trials, has their cells done, and tells each the moment it ends.

There is one controller per sweep. What it knows is in the study and in the run directories, so a
controller that is killed at any moment is followed by another that goes on: a trial that was asked
for and not told is drawn again (to the same parameters), its cell is found, waited for or started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from keyseg.config import ConfigError
from keyseg.runs.run_directory import DONE, FAILED, PRUNED, DamagedError
from keyseg.sweep.cells import Cell
from keyseg.sweep.pool import Pool
from keyseg.sweep.supervise import Outcome, Supervisor
from keyseg.sweep.tune.objective import NoValue, values, violations
from keyseg.sweep.tune.prune import Judge
from keyseg.sweep.tune.studies import Arm

if TYPE_CHECKING:
    from optuna import Trial

MakeCell = Callable[[Arm, "Trial"], Cell]


class GivenUp(RuntimeError):  # noqa: N818 (a verdict, not a mistake)
    """Trials fail so that the study would spend its budget on it: one error, or too many."""


@dataclass
class Flight:
    """A cell at work and the trials that wait for it (several, where parameters repeat)."""

    cell: Cell
    trials: list[tuple[Arm, Trial]] = field(default_factory=list)


class Controller:
    """Keeps `width` cells in flight until every arm has spent its budget."""

    def __init__(
        self,
        arms: Sequence[Arm],
        pool: Pool,
        make_cell: MakeCell,
        *,
        width: int,
        same_errors: int = 3,
        max_failure_rate: float | None = None,
        judge: Judge | None = None,
        max_attempts: int = 1,
    ) -> None:
        """`max_attempts`: how often a cell is started whose machine is lost each time."""
        self.arms = arms
        self.make_cell = make_cell
        self.width = width
        self.same_errors = same_errors
        self.judge = judge
        self.supervisor = Supervisor(pool, max_attempts=max_attempts)
        self.flying: dict[Path, Flight] = {}
        self.ended_trials = 0
        self._seen = 0
        self._left = {id(arm): arm.budget() - arm.used() for arm in arms}
        self._may_fail = inf
        if max_failure_rate is not None:
            self._may_fail = max_failure_rate * sum(arm.budget() for arm in arms)
        self._error: str | None = None
        self._in_a_row = 0

    def adopt(self) -> int:
        """Take over the trials that an earlier controller left; how many there were."""
        adopted = 0
        for arm in self.arms:
            for trial in arm.running():
                adopted += 1
                self._fly(arm, trial, fresh=False)
        return adopted

    @property
    def active(self) -> bool:
        """Whether a trial is in flight or may still be asked for."""
        return bool(self.flying) or any(left > 0 for left in self._left.values())

    def step(self) -> list[Outcome]:
        """Look once at all cells; tell those that ended and replace them at once.

        Raises:
            GivenUp: trials keep failing with the same error, or too many fail.
        """
        self.supervisor.step()
        self._look()
        outcomes = self._tell_ended()
        while self._fill():
            self.supervisor.step()  # what was just asked for starts now, not with the next look
            outcomes += self._tell_ended()
        return outcomes

    def _look(self) -> None:
        """Report the rows of all cells in flight."""
        if self.judge is not None:
            for flight in self.flying.values():
                self.judge.look(flight.cell.open(), flight.trials)

    def _fill(self) -> bool:
        asked = False
        while len(self.flying) < self.width:
            open_arms = [arm for arm in self.arms if self._left[id(arm)] > 0]
            if not open_arms:
                break
            # The one with most of its budget left, so that arms run side by side.
            arm = max(open_arms, key=lambda arm: self._left[id(arm)])
            self._left[id(arm)] -= 1
            self._fly(arm, arm.ask(), fresh=True)
            asked = True
            self._tell_ended()  # parameters that were tried before are told without a run
        return asked

    def _fly(self, arm: Arm, trial: Trial, *, fresh: bool) -> None:
        try:
            cell = self.make_cell(arm, trial)
        except ConfigError as error:
            self._fail(arm, trial, str(error))
            return
        trial.set_user_attr("cell", cell.signature)
        if cell.path in self.flying:
            self.flying[cell.path].trials.append((arm, trial))
            return
        self.flying[cell.path] = Flight(cell, [(arm, trial)])
        run = cell.create()
        if "trial" not in run.info:
            run.update(trial=trial.number, study=arm.study.study_name)
        if self.judge is not None:
            self.judge.prepare(run)
        if not fresh and run.status == FAILED and not run.busy:
            # It ended after the last controller did; a second attempt would be another trial.
            self.supervisor.outcomes.append(Outcome(cell, FAILED, before=True))
            return
        self.supervisor.add(cell)

    def _tell_ended(self) -> list[Outcome]:
        outcomes = self.supervisor.outcomes[self._seen :]
        self._seen += len(outcomes)
        for outcome in outcomes:
            flight = self.flying.pop(outcome.cell.path)
            if self.judge is not None:  # its last rows, or all of one that was found
                self.judge.look(outcome.cell.open(), flight.trials, ended=True)
            for arm, trial in flight.trials:
                self._tell(arm, trial, outcome)
        return outcomes

    def _tell(self, arm: Arm, trial: Trial, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        run = outcome.cell.open()
        if outcome.status == DONE:
            try:
                numbers = values(run, list(arm.options.objectives))
                beyond = violations(run, arm.options.constraints)
            except (NoValue, DamagedError) as error:
                self._fail(arm, trial, str(error))
                return
            for name, value in beyond.items():
                trial.set_constraint(name, value)
            arm.study.tell(trial.number, numbers)
        elif outcome.status == PRUNED:
            arm.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self._fail(arm, trial, str(run.info.get("error") or "no reason given"))
            return
        self.ended_trials += 1
        self._error, self._in_a_row = None, 0

    def _fail(self, arm: Arm, trial: Trial, reason: str) -> None:
        from optuna.trial import TrialState

        last = reason.strip().splitlines()[-1]
        trial.set_user_attr("error", last[:2000])
        arm.study.tell(trial.number, state=TrialState.FAIL)
        self.ended_trials += 1
        kind = re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", last)  # "... at step 30" is one error
        self._in_a_row = self._in_a_row + 1 if kind == self._error else 1
        self._error = kind
        if self._in_a_row >= self.same_errors:
            raise GivenUp(f"the last {self._in_a_row} trials failed with the same error: {last}")
        failed = sum(arm.failed() for arm in self.arms)
        if failed > self._may_fail:
            raise GivenUp(
                f"{failed} trials failed, more than hydra.sweeper.max_failure_rate allows of "
                f"{sum(arm.budget() for arm in self.arms)}; the last with: {last}"
            )
