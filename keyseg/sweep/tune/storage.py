"""The study: Optuna's journal file in the sweep's folder, or whatever a storage URL names."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from keyseg.config import ConfigError
from keyseg.runs.private_files import without_passwords
from keyseg.sweep.tune.options import OptunaConfig
from keyseg.sweep.tune.space import Dimension

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

JOURNAL = "study.log"


def open_storage(sweep_dir: Path, url: str | None) -> BaseStorage:
    """The storage of a sweep's studies. Only the process that holds the sweep may open it.

    Raises:
        ConfigError: the URL cannot be opened.
    """
    if url is None:
        return _journal(sweep_dir / JOURNAL)
    from optuna.storages import get_storage

    try:
        return get_storage(url)
    except Exception as error:
        reason = str(error).splitlines()[0]
        problem = without_passwords(f"hydra.sweeper.storage={url}: cannot be opened: {reason}")
        raise ConfigError(problem) from error


def open_study(
    storage: BaseStorage,
    name: str,
    options: OptunaConfig,
    space: Sequence[Dimension],
    pruner: BasePruner,
    base: str,
) -> Study:
    """The study of this name, made where it is missing.

    `base`: signature of the config that its parameters are put into.

    Raises:
        ConfigError: there is one of this name that asked something else.
    """
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[StudyDirection[d.upper()] for d in options.directions],
        pruner=pruner,
        load_if_exists=True,
    )
    asks = {
        "objectives": json.dumps(options.objectives),
        "constraints": json.dumps(options.constraints),
        "space": json.dumps({d.key: _as_json(d) for d in space}, sort_keys=True),
        "base": base,
    }
    before = study.user_attrs
    for key, now in asks.items():
        if key not in before:
            study.set_user_attr(key, now)
        elif before[key] != now:
            what = "config (signature)" if key == "base" else key
            raise ConfigError(
                f"study '{name}' was started with another {what}: {before[key]}, now {now}; "
                "give the new study a name of its own: name=NAME"
            )
    if study.metric_names is None:
        _name_metrics(study, list(options.objectives))
    return study


def _name_metrics(study: Study, names: list[str]) -> None:
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(names)


def _as_json(dimension: Dimension) -> Mapping[str, Any]:
    from optuna.distributions import distribution_to_json

    loaded: dict[str, Any] = json.loads(distribution_to_json(dimension.distribution))
    return loaded


def _journal(file: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class EndsWithProcess:
        """Optuna's own lock is a file that a killed process leaves behind for half a minute."""

        def __init__(self) -> None:
            self._lock = filelock.FileLock(f"{file}.lock")

        def acquire(self) -> bool:
            self._lock.acquire()
            return True

        def release(self) -> None:
            self._lock.release()

    _drop_torn_line(file)
    lock: Any = EndsWithProcess()  # the base class is not public
    return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))


def _drop_torn_line(file: Path) -> None:
    """What a killed process left of a line would swallow the next one."""
    if not file.exists():
        return
    with file.open("rb+") as journal:
        content = journal.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            journal.truncate(whole)
            os.fsync(journal.fileno())
