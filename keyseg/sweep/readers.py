"""Finished runs read on other data by workers of their own: processes here, or jobs on a cluster.

A worker is `keyseg evaluate` itself, on one run or a few; what is there already it does not read
again, so that a worker that is started twice costs a start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from keyseg.config import PROJECT, ConfigError
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep import overrides
from keyseg.sweep.evaluation import Task
from keyseg.sweep.pool import Ended

_MOMENT = 0.2
"""Seconds between two looks at workers."""


class Readers(Protocol):
    """What works on runs; the part of `keyseg.sweep.pool.Pool` that is needed here."""

    def free(self) -> int:
        """How many more runs can be started now."""

    def start(self, run: RunDirectory) -> None:
        """Begin to work on a run."""

    def poll(self) -> list[Ended]:
        """Workers that ended since the last call; returns at once."""

    def stop(self) -> list[Path]:
        """End all workers, or let go of them; their run directories."""


def chosen(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words in two: those of the launcher, which say where the work is done, come second."""
    these = [w for w in words if w.lstrip("+").startswith(("hydra/launcher=", "hydra.launcher."))]
    return [word for word in words if word not in these], these


def launcher(given: Sequence[str], *, detach: bool) -> Any:
    """The launcher that overrides name; None: the work is done in this process.

    Raises:
        ConfigError: there is no such launcher or option, or it cannot do what is asked.
    """
    if not any(word.startswith("hydra/launcher=") for word in given):
        if given or detach:
            raise ConfigError(
                f"{given[0] if given else '--detach'}: of which launcher? give "
                "hydra/launcher=slurm or local, too"
            )
        return None
    from hydra import compose, initialize_config_dir  # late: most commands need none of it
    from hydra.utils import instantiate

    given = overrides.whole_mappings(given)
    overrides.check(given)
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        made = instantiate(compose("config", given, return_hydra_config=True).hydra.launcher)
    if detach and not made.can_detach:
        raise ConfigError(
            "--detach: processes on this machine end with the command; hydra/launcher=slurm has "
            "jobs that go on"
        )
    return made if hasattr(made, "readers") else None


def read(
    todo: Sequence[Task],
    pool: Readers,
    said: Callable[[Task, Ended], bool],
    *,
    detach: bool,
) -> bool:
    """Have every run of the tasks read; whether the results of all are there.

    Args:
        said: tells of a task whose worker ended; whether its results are there.
        detach: end once all are started.
    """
    by_run: dict[Path, list[Task]] = {}
    for task in todo:
        by_run.setdefault(task.run.path, []).append(task)
    waiting = [tasks[0].run for tasks in by_run.values()]
    at_work, good = 0, True
    while waiting or at_work:
        while waiting and pool.free() > 0:
            pool.start(waiting.pop(0))
            at_work += 1
        for ended in pool.poll():
            at_work -= 1
            results = [said(task, ended) for task in by_run[ended.path]]
            good &= all(results)
        if detach and not waiting:
            break
        time.sleep(_MOMENT)
    return good
