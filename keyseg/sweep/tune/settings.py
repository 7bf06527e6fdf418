"""From parameters to cells: those of trials, and of the default and the best settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from keyseg.sweep.cells import Cell, cell_of, frozen
from keyseg.sweep.compose import Compose, Composer
from keyseg.sweep.design import Point
from keyseg.sweep.tune.space import exact
from keyseg.sweep.tune.studies import Arm, Question

if TYPE_CHECKING:
    from optuna import Trial


class Settings:
    """Makes the cells of a sweep. `trial_overrides`: of trials, not of what is compared."""

    def __init__(self, compose: Compose, sweep: str, trial_overrides: Sequence[str]) -> None:
        self.compose = compose
        self.sweep = sweep
        self.trial_overrides = list(trial_overrides)
        self._composed = Composer(compose)

    def base(self, question: Question) -> DictConfig:
        """What the parameters of a question are put into."""
        return self.compose([*question.fixed, *self.trial_overrides])

    def probe(self, question: Question) -> Cell:
        """The trial that changes nothing: it is looked at, not run.

        Raises:
            ConfigError: the config is wrong before anything is searched.
        """
        return self._cell(question, [], "default", {})

    def of_trial(self, arm: Arm, trial: Trial) -> Cell:
        """The cell of a trial.

        Raises:
            ConfigError: parameters that make no valid config.
        """
        overrides = arm.draw(trial)
        label = f"{arm.label} · trial {trial.number}" if arm.label else f"trial {trial.number}"
        params = exact(trial.params, arm.question.space)
        return self._cell(arm.question, overrides, label, params)

    def compared(
        self, question: Question, overrides: Sequence[str], factors: Mapping[str, str]
    ) -> Cell:
        """A cell with all protocols, for the comparison at the end."""
        given = [*question.fixed, *overrides]
        config = frozen(self.compose(given))
        point = Point(" · ".join(factors.values()), dict(factors), config.seed, given)
        return cell_of(config, point, self.sweep)

    def _cell(
        self, question: Question, overrides: list[str], label: str, params: dict[str, Any]
    ) -> Cell:
        config = frozen(self._composed([*question.fixed, *self.trial_overrides, *overrides]))
        point = Point(label, params, config.seed, [*question.fixed, *overrides])
        return cell_of(config, point, self.sweep)
