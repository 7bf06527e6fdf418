"""Points that are tried first: the ones a user knows, and all of a grid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keyseg.config import ConfigError
from keyseg.sweep.tune.options import OptunaConfig
from keyseg.sweep.tune.space import points
from keyseg.sweep.tune.studies import Arm, Question


def check(question: Question, wanted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points in the words of the space; keys that are left out are drawn by the sampler.

    Raises:
        ConfigError: a key that is not searched, or a value outside of its range.
    """
    known = {d.key.lstrip("+"): d for d in question.space}
    points = []
    for point in wanted:
        for key, value in point.items():
            if key not in known:
                raise ConfigError(
                    f"hydra.sweeper.enqueue: {key} is not searched; searched: "
                    f"{', '.join(known) or 'nothing'}"
                )
            try:
                known[key].check(value)
            except ConfigError as error:
                raise ConfigError(f"hydra.sweeper.enqueue: {error}") from error
        points.append({known[key].key: value for key, value in point.items()})
    return points


def enqueue(arm: Arm, options: OptunaConfig) -> None:
    """Put the wanted points, then those of a grid, before all others; each once and for all."""
    todo = check(arm.question, options.enqueue)
    if options.sampler == "grid":
        todo += points(arm.question.space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for point in todo:
            arm.study.enqueue_trial(point, skip_if_exists=True)
