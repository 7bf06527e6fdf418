"""Samplers and pruners by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keyseg.config import ConfigError
from keyseg.sweep.tune.options import OptunaConfig

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def sampler(options: OptunaConfig, seed: int, asked: int) -> BaseSampler:
    """The sampler for the next trial of a study that has asked for `asked` so far.

    Those that hold random state get one that depends on seed and trial only, so that a study that
    was stopped goes on as it would have without. CMA-ES and QMC keep their state in the study.

    Raises:
        ConfigError: arguments that the sampler does not take.
    """
    import numpy as np
    from optuna import samplers

    own = int(np.random.SeedSequence([seed, asked]).generate_state(1)[0])
    args = dict(options.sampler_args)
    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(
            **{
                "multivariate": True,
                "constant_liar": True,
                "seed": own,
                **({"group": True} if options.space else {}),
                **args,
            }
        ),
        "gp": lambda: samplers.GPSampler(**({"seed": own} | args)),
        "cmaes": lambda: samplers.CmaEsSampler(**({"seed": seed} | args)),
        "nsga2": lambda: samplers.NSGAIISampler(**({"seed": own} | args)),
        "nsga3": lambda: samplers.NSGAIIISampler(**({"seed": own} | args)),
        "random": lambda: samplers.RandomSampler(**({"seed": own} | args)),
        # Points of a grid are enqueued one by one; a sampler is needed, and not asked.
        "grid": lambda: samplers.RandomSampler(seed=own),
        "qmc": lambda: samplers.QMCSampler(
            **({"scramble": True, "seed": seed, "warn_asynchronous_seeding": False} | args)
        ),
    }
    chosen: BaseSampler = _built("sampler", options.sampler, args, made[options.sampler])
    return chosen


def pruner(options: OptunaConfig, steps: int, rhythm: int) -> BasePruner:
    """The pruner of a study. `steps`: of a full run; `rhythm`: steps between evaluations.

    Raises:
        ConfigError: arguments that the pruner does not take.
    """
    from optuna import pruners

    args = dict(options.pruner_args)
    made: dict[str, Callable[[], BasePruner]] = {
        "none": pruners.NopPruner,
        "wilcoxon": pruners.NopPruner,  # asked by ourselves: see `prune`
        "median": lambda: pruners.MedianPruner(**({"n_startup_trials": 4} | args)),
        "hyperband": lambda: pruners.HyperbandPruner(
            **({"min_resource": rhythm, "max_resource": max(steps, rhythm)} | args)
        ),
    }
    chosen: BasePruner = _built("pruner", options.pruner, args, made[options.pruner])
    return chosen


def _built(kind: str, name: str, args: dict[str, Any], make: Callable[[], Any]) -> Any:
    from optuna.exceptions import ExperimentalWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return make()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"hydra.sweeper.{kind}_args={args}: {name}: {error}") from error
    except ImportError as error:
        raise ConfigError(f"hydra.sweeper.{kind}={name}: {error}") from error
