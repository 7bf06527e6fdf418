"""Arms of a tuning, a study each: one for the whole, or one for each value of `tune_per`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from keyseg.config import ConfigError
from keyseg.sweep.tune.options import OptunaConfig
from keyseg.sweep.tune.samplers import sampler
from keyseg.sweep.tune.space import Dimension, overrides

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

WARM = "warm_start"
"""User attribute of a trial that another sweep has paid for; it holds the run's path."""

Hook = Callable[[DictConfig, "Trial"], None]


@dataclass(frozen=True)
class Question:
    """What one arm searches. `label`: "" or the value of `tune_per`; `fixed`: of every trial."""

    label: str
    space: tuple[Dimension, ...]
    fixed: tuple[str, ...]


@dataclass
class Arm:
    """A study with its budget. `base`: the config that its parameters are put into."""

    question: Question
    study: Study
    options: OptunaConfig
    seed: int
    base: DictConfig
    hook: Hook | None = None

    @property
    def label(self) -> str:
        """ "" where there is one arm only."""
        return self.question.label

    def used(self) -> int:
        """Trials that were asked for, here or before; what others have paid for does not count."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        return sum(t.state != TrialState.WAITING and WARM not in t.user_attrs for t in trials)

    def failed(self) -> int:
        """Trials that failed, here or before."""
        from optuna.trial import TrialState

        return len(self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))

    def budget(self) -> int:
        """Trials that may be asked for in all."""
        if self.options.sampler != "grid":
            return self.options.n_trials
        from optuna.trial import TrialState

        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return min(self.options.n_trials, self.used() + len(waiting))  # points that are left

    def ask(self) -> Trial:
        """The next trial; `draw` draws its parameters."""
        self.study.sampler = sampler(self.options, self.seed, self.used())
        return self.study.ask()

    def draw(self, trial: Trial) -> list[str]:
        """Parameters of a trial as overrides; those drawn before are drawn again the same."""
        for dimension in self.question.space:
            dimension.suggest(trial)
        if self.hook is not None:
            self.hook(self.base, trial)
        return overrides(trial.params, self.question.space)

    def running(self) -> Iterator[Trial]:
        """Trials that were asked for and not told yet; `draw` each before the next one is taken.

        Each with the sampler that it was asked with: with the next trial's, one that was left
        before its parameters were drawn would get those of the next trial.
        """
        import optuna
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        asked = [t for t in trials if t.state != TrialState.WAITING and WARM not in t.user_attrs]
        asked.sort(key=lambda t: (t.datetime_start, t.number))
        for before, trial in enumerate(asked):
            if trial.state == TrialState.RUNNING:
                self.study.sampler = sampler(self.options, self.seed, before)
                yield optuna.Trial(self.study, trial._trial_id)

    def best(self) -> FrozenTrial | None:
        """The best trial that keeps to the constraints; None: none yet.

        Of a Pareto front, the best in the first objective.
        """
        from optuna.trial import TrialState

        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        done = [t for t in done if all(beyond <= 0 for beyond in t.constraints.values())]
        if not done:
            return None
        sign = -1 if self.options.directions[0] == "minimize" else 1
        # The earliest of equals, so that a study that goes on does not change its mind.
        return max(done, key=lambda t: (sign * t.values[0], -t.number))


def questions(
    space: Sequence[Dimension], fixed: Sequence[str], tune_per: str | None
) -> list[Question]:
    """One question, or one per value of a swept key.

    Raises:
        ConfigError: `tune_per` is not swept, or not with a list of values; or nothing is searched.
    """
    per = next((d for d in space if d.key.lstrip("+") == tune_per), None)
    rest = tuple(d for d in space if d is not per)
    if tune_per is not None and (per is None or not per.texts):
        raise ConfigError(
            f"hydra.sweeper.tune_per={tune_per}: sweep it with values, like {tune_per}=cross,full"
        )
    if per is None:
        return [Question("", rest, tuple(fixed))]
    return [
        Question(str(value), rest, (*fixed, f"{per.key}={text}"))
        for value, text in per.texts.items()
    ]


def load_hook(name: str | None) -> Hook | None:
    """The function that "module:function" names.

    Raises:
        ConfigError: there is none.
    """
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        hook_function = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"hydra.sweeper.space={name}: {error}; give package.module:function"
        ) from error
    if not callable(hook_function):
        raise ConfigError(f"hydra.sweeper.space={name}: not a function")
    hook: Hook = hook_function
    return hook
