"""One MLflow run a variant, beside those of its cells: what MLflow cannot compute over seeds.

Off with `runtime.log_variants=false`. Made when a sweep ends, and made level by `keyseg sync`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from keyseg.runs import imported
from keyseg.runs.run_directory import FAILED, RunDirectory, is_loss
from keyseg.tracking import description, scores, tags
from keyseg.tracking.names import KIND, VARIANT, name_of
from keyseg.tracking.store import batched

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_CELLS = "keyseg.cell_runs"
"""Tag with MLflow's ids of the cells, by which one that is level is known."""


def sync(
    client: MlflowClient, sweep_dir: Path, parent: str, every: Sequence[scores.CellState]
) -> None:
    """Make or bring level the runs of those variants that have a finished cell."""
    if not _wanted(every):
        return
    experiment_id = client.get_run(parent).info.experiment_id
    ours = f"tags.`{KIND}` = '{VARIANT}' and tags.`mlflow.parentRunId` = '{parent}'"
    runs = client.search_runs([experiment_id], ours)
    known = {run.data.tags.get("keyseg.label"): run for run in runs}
    for label, cells in scores.variants(every).items():
        done = [cell for cell in cells if cell.done and cell.info.get("mlflow_run_id")]
        before = known.get(label)
        ids = " ".join(sorted(cell.info["mlflow_run_id"] for cell in done))
        if not done or (before is not None and before.data.tags.get(_CELLS) == ids):
            continue
        if before is not None:  # of other cells: MLflow takes no metric back
            client.delete_run(before.info.run_id)
        _make(client, sweep_dir, parent, experiment_id, label, cells, done, ids)


def exist(client: MlflowClient, experiment_id: str) -> bool:
    """Whether an experiment has any: they are made at the end, and can be turned off."""
    return bool(client.search_runs([experiment_id], f"tags.`{KIND}` = '{VARIANT}'", max_results=1))


def _wanted(cells: Sequence[scores.CellState]) -> bool:
    ours = (cell for cell in cells if cell.done and not imported.of(cell.info))
    first = next(ours, None)
    return first is not None and first.run.config.runtime.log_variants


def _make(
    client: MlflowClient,
    sweep_dir: Path,
    parent: str,
    experiment_id: str,
    label: str,
    cells: Sequence[scores.CellState],
    done: Sequence[scores.CellState],
    ids: str,
) -> None:
    from mlflow.entities import RunTag

    failed = sum(cell.info.get("status") == FAILED for cell in cells)
    seeds = f"{len(done)} of {len(cells)}" if len(done) < len(cells) else str(len(done))
    noun = "seed" if len(cells) == 1 else "seeds"
    made: Run = client.create_run(
        experiment_id,
        tags=tags.texts(
            {
                "mlflow.runName": f"{label} · {seeds} {noun}",
                "mlflow.parentRunId": parent,
                "mlflow.user": tags.owner(dict(done[0].info)),
                **tags.source(done[0].info.get("git") or {}),
                KIND: VARIANT,
                "keyseg.label": label,
                "keyseg.sweep": sweep_dir.name,
                "keyseg.seeds": " ".join(str(cell.seed) for cell in done),
                "keyseg.failed": failed or None,
                "mlflow.note.content": description.of_variant(done, experiment_id),
            }
        ),
    )
    run_id = made.info.run_id
    for batch in batched([*_ends(done), *_bands([cell.run for cell in done])], 1000):
        client.log_batch(run_id, metrics=batch)
    client.log_batch(run_id, tags=[RunTag(_CELLS, ids)])  # the last: all of it is there
    client.set_terminated(run_id)


def _ends(done: Sequence[scores.CellState]) -> list[Metric]:
    """Mean, standard deviation and interval ends of what was measured on test, and of the cost."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values: dict[str, float] = {}
    for name, spread in scores.summaries(done).items():
        ends = {"": spread.mean, "_sd": spread.sd, "_low": spread.low, "_high": spread.high}
        values |= {f"{name}{end}": value for end, value in ends.items()}
    for name in ("minutes", "gpu_hours"):
        spent = [float(cell.info[name]) for cell in done if cell.info.get(name)]
        if spent:
            values[name] = fmean(spent)
    return [Metric(name_of(k), v, now, 0) for k, v in values.items() if isfinite(v)]


def _bands(runs: Sequence[RunDirectory]) -> list[Metric]:
    """Mean, lowest and highest seed of losses and val, at the steps that all seeds have."""
    from mlflow.entities import Metric

    points: dict[tuple[str, int], list[float]] = {}
    times: dict[tuple[str, int], float] = {}
    for run in runs:
        for row in run.rows():
            if (is_loss(row.name) or row.name.startswith("val/")) and isfinite(row.value):
                points.setdefault((row.name, row.step), []).append(row.value)
                times[row.name, row.step] = row.time
    curves = []
    for (name, step), values in points.items():
        if len(values) == len(runs):
            moment = int(times[name, step] * 1000)
            band = {"": fmean(values), "_min": min(values), "_max": max(values)}
            band = band if len(runs) > 1 else {"": values[0]}
            curves += [Metric(f"{name_of(name)}{end}", v, moment, step) for end, v in band.items()]
    return curves
