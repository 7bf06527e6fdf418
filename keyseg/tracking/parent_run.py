"""The parent run of a sweep: what is asked, how far it is, and the answer once there is a report.

Workers bring it up to date as their cells begin and end, wherever they run; the end of the sweep
puts the report on it, and what the report's files say: its verdicts, its first table, pictures.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from keyseg.runs import provenance, sweep_directory
from keyseg.runs.run_directory import DONE, FAILED, PRUNED, RUNNING
from keyseg.tracking import description, pages, pictures, scores, tags, variant_runs
from keyseg.tracking.names import IDENTITY, KIND, LONGEST_PARAM, SWEEP, name_of, param_name
from keyseg.tracking.store import (
    OFF,
    client_of,
    experiment,
    get_run,
    remember,
    store_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_REPORT = "report"
"""Folder of the report among the artifacts of a parent run."""

_NOTE = "mlflow.note.content"

_SHOWN = ("giou", "ciou", "keyword_accuracy")
"""Measures that a list of runs shows, after the sweep's own first one."""

_SECONDS = 10.0
"""Between two looks at all cells of a sweep, where a worker asks for them."""


def start(sweep_dir: Path) -> None:
    """Make the parent run of a sweep, or go on with the one that sweep.json names."""
    if store_uri(sweep_dir) == OFF:
        return
    with sweep_directory.lock(sweep_dir):
        sweep = sweep_directory.read(sweep_dir)
        client = client_of(store_uri(sweep_dir))
        remember(sweep_dir)
        sweep["id"] = sweep.get("id") or uuid.uuid4().hex
        parent = _find(client, sweep_dir, sweep) or client.create_run(
            experiment(client, sweep_dir),
            tags=tags.texts({"mlflow.user": provenance.user(), IDENTITY: sweep["id"]}),
        )
        if parent.info.status != "RUNNING":
            client.update_run(parent.info.run_id, status="RUNNING")
        if sweep.get("mlflow_parent") != parent.info.run_id:
            sweep["mlflow_parent"] = parent.info.run_id
            sweep_directory.write(sweep_dir, sweep)
    _state_design(client, parent, sweep_dir, sweep)
    _show_state(client, sweep_dir, sweep, None)


def update(sweep_dir: Path) -> None:
    """Bring the parent run level with the cells; where another process has just done so, nothing.

    Raises:
        Exception: whatever MLflow or the network raises.
    """
    sweep = sweep_directory.read(sweep_dir)
    if not sweep.get("mlflow_parent") or store_uri(sweep_dir) == OFF:
        return
    stamp = sweep_dir / ".mlflow_parent"
    with suppress(filelock.Timeout), sweep_directory.lock(sweep_dir, "parent", timeout=0):
        if stamp.exists() and 0 <= time.time() - stamp.stat().st_mtime < _SECONDS:
            return
        stamp.touch()
        _show_state(client_of(store_uri(sweep_dir)), sweep_dir, sweep, None)


def finish(sweep_dir: Path, report_dir: Path | None, *, failed: bool = False) -> None:
    """Put the report on the parent run and end it: failed if so told, or if a cell is not done."""
    sweep = sweep_directory.read(sweep_dir)
    parent = sweep.get("mlflow_parent")
    if parent is None or store_uri(sweep_dir) == OFF:
        return
    client = client_of(store_uri(sweep_dir))
    if report_dir is not None and report_dir.is_dir():
        _put(client, parent, report_dir)
    states = scores.cells(sweep_dir, sweep)
    variant_runs.sync(client, sweep_dir, parent, states)
    _show_state(client, sweep_dir, sweep, report_dir)
    failed = failed or not {cell.info.get("status") for cell in states} <= {DONE, PRUNED}
    client.set_terminated(parent, "FAILED" if failed else "FINISHED")


def log_report(sweep_dir: Path, report_dir: Path) -> None:
    """Put a report on the parent run, whose state stays as it is; nothing where there is none.

    Raises:
        LookupError: the store has no such run.
    """
    sweep = sweep_directory.read(sweep_dir)
    parent = sweep.get("mlflow_parent")
    if parent is None or store_uri(sweep_dir) == OFF:
        return
    client = client_of(store_uri(sweep_dir))
    if get_run(client, parent) is None:
        raise LookupError(f"it has no run {parent}")
    _put(client, parent, report_dir)
    _show_state(client, sweep_dir, sweep, report_dir)


def _put(client: MlflowClient, parent: str, report_dir: Path) -> None:
    """The report among the artifacts, and those figures again that the description shows."""
    client.log_artifacts(parent, str(report_dir), _REPORT)
    shown = [report_dir / name for _, name in description.ReportWords.read(report_dir).shown]
    if shown:
        with tempfile.TemporaryDirectory() as folder:
            pictures.narrow(shown, Path(folder))
            client.log_artifacts(parent, folder, description.PICTURES)


def _find(client: MlflowClient, sweep_dir: Path, sweep: Mapping[str, Any]) -> Run | None:
    """The parent run that sweep.json names, else the one that has its identity in this store."""
    known = sweep.get("mlflow_parent")
    if parent := get_run(client, known) if known else None:
        return parent
    wanted = f"tags.`{IDENTITY}` = '{sweep['id']}'"
    runs = client.search_runs([experiment(client, sweep_dir)], wanted, max_results=1)
    return runs[0] if runs else None


def _state_design(
    client: MlflowClient, parent: Run, sweep_dir: Path, sweep: Mapping[str, Any]
) -> None:
    """Tags and params of what is asked; those params that are not there yet."""
    from mlflow.entities import Param, RunTag

    given = tags.texts(
        {
            "mlflow.runName": f"sweep {sweep_dir.name}",
            **tags.source(provenance.stated()),
            KIND: SWEEP,
            IDENTITY: sweep["id"],
            "keyseg.sweep": sweep_dir.name,
            "keyseg.cells": len(sweep.get("cells", [])),
            "keyseg.question": sweep.get("question") or None,
            "keyseg.command": sweep.get("command") or None,
        }
    )
    params = [
        Param(f"design.{param_name(key)}", value[:LONGEST_PARAM])
        for key, value in _design(sweep).items()
        if f"design.{param_name(key)}" not in parent.data.params
    ]
    client.log_batch(
        parent.info.run_id, params=params, tags=[RunTag(key, v) for key, v in given.items()]
    )


def _design(sweep: Mapping[str, Any]) -> dict[str, str]:
    """What sweep.json says of the design, in words."""
    listed = sweep.get("cells", [])
    factors = {
        f"factor.{key}": ", ".join(map(str, values))
        for key, values in (sweep.get("factors") or {}).items()
    }
    baseline = sweep.get("baseline")
    if isinstance(baseline, dict):
        baseline = ", ".join(f"{key}={value}" for key, value in baseline.items())
    stated = {
        "baseline": baseline,
        **factors,
        "replicate": sweep.get("replicate"),
        "seeds": ", ".join(str(seed) for seed in sorted({cell.get("seed") for cell in listed})),
        "cells": len(listed),
        "variants": len({cell.get("label") for cell in listed}),
        "metrics": ", ".join(sweep.get("metrics") or []),
        "published": sweep.get("published"),
    }
    return {key: str(value) for key, value in stated.items() if value not in (None, "")}


def _show_state(
    client: MlflowClient, sweep_dir: Path, sweep: Mapping[str, Any], report_dir: Path | None
) -> None:
    """Counts, cost and best as metrics, and the description; with a report also its contrasts."""
    parent = get_run(client, str(sweep.get("mlflow_parent")))
    if parent is None:
        return
    states = scores.everything(sweep_dir, sweep)
    first = f"test/{scores.protocol(states)}/{_metrics(sweep)[0]}"
    values = _measured(states, first)
    answer = description.ReportWords.read(report_dir)
    values |= answer.contrasts(_metrics(sweep))
    _log(client, parent, values, step=int(values["cells done"]))
    experiment_id = parent.info.experiment_id
    variants = variant_runs.exist(client, experiment_id)
    note = description.of_sweep(
        sweep,
        states,
        answer,
        experiment_id=experiment_id,
        parent=parent.info.run_id,
        metric=first,
        variants=variants,
    )
    client.set_tag(parent.info.run_id, _NOTE, tags.texts({_NOTE: note})[_NOTE])
    _dress(client, experiment_id, sweep, states, variants=variants)


def _metrics(sweep: Mapping[str, Any]) -> list[str]:
    return list(sweep.get("metrics") or _SHOWN[:1])


def _measured(cell_states: Sequence[scores.CellState], first: str) -> dict[str, float]:
    """Metrics of the whole: how many cells are in which state, what they took, the best mean."""
    states = [cell.info.get("status") for cell in cell_states]
    spent = [hours for cell in cell_states if isfinite(hours := provenance.hours(cell.info))]
    unit = provenance.cost_unit(cell.info for cell in cell_states)
    means = [
        spread.mean
        for cells in scores.variants(cell_states).values()
        if (spread := scores.summaries(cells).get(first))
    ]
    return {
        "cells": len(cell_states),
        **{f"cells {s}": states.count(s) for s in (DONE, FAILED, RUNNING)},
        **({f"{unit}-hours": sum(spent)} if spent else {}),  # else the unit may not be known
        **({f"best {name_of(first)}": max(means)} if means else {}),
    }


def _log(client: MlflowClient, parent: Run, values: Mapping[str, float], step: int) -> None:
    """Log those that are new or other than they were."""
    from mlflow.entities import Metric

    now, known = int(time.time() * 1000), parent.data.metrics
    changed = {name_of(key): float(value) for key, value in values.items()}
    metrics = [Metric(k, v, now, step) for k, v in changed.items() if known.get(k) != v]
    if metrics:
        client.log_batch(parent.info.run_id, metrics=metrics)


def _dress(
    client: MlflowClient,
    experiment_id: str,
    sweep: Mapping[str, Any],
    cells: Sequence[scores.CellState],
    *,
    variants: bool,
) -> None:
    """What a list of this sweep's runs shows, in which order, and a way to it."""
    measures = list(dict.fromkeys([*_metrics(sweep)[:1], *_SHOWN]))
    if sweep.get("tune"):
        names = [f"val/{measure}" for measure in measures]
    else:
        names = [f"test/{scores.protocol(cells)}/{measure}" for measure in measures]
    wanted = pages.experiment_tags(names)
    known = client.get_experiment(experiment_id).tags
    if known.get(_NOTE, "").startswith(description.BEGINNING) or _NOTE not in known:
        wanted[_NOTE] = description.of_experiment(experiment_id, sweep, variants=variants)
    for key, value in wanted.items():
        if known.get(key) != value:
            client.set_experiment_tag(experiment_id, key, value)
