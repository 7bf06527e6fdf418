"""MLflow's pages: their addresses, and the views of a sweep's runs that its store keeps.

A fresh browser shows MLflow's menu for agents and chats unless the address asks for the one of
model training, so every address of ours does. What a list of runs looks like (columns, order,
filter) is kept in the store under a key that its address names; MLflow writes the same where
somebody shares a view.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from keyseg.tracking.names import CELL, KIND, VARIANT, name_of

_TRAINING = "workflowType=machine_learning"

_WIDTHS = {"keyseg.label": 110, "seed": 60, "keyseg.state": 70, "keyseg.seeds": 85, "minutes": 60}
_WIDTH = 80
"""Of columns, in pixels: in a window of 1,400 state, scores and minutes stand in sight beside the
names, which hold variant and seed, also where MLflow's assistant takes its share, as it does in a
fresh browser."""

CELLS, VARIANTS = "keyseg-cells", "keyseg-variants"
"""Keys of the two views: a line a cell, and a line a variant."""


def view(experiment_id: str, name: str = CELLS) -> str:
    """The list of a sweep's runs in one of its views."""
    return f"#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey={name}"


def run(experiment_id: str, run_id: str, place: str = "") -> str:
    """A run's page; `place`: what of it, as `model-metrics` or `artifacts/report/index.html`."""
    rest = f"/{quote(place)}" if place else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{rest}?{_TRAINING}"


def picture(run_id: str, path: str) -> str:
    """An artifact of a run, as a page of MLflow's shows it."""
    return f"get-artifact?path={quote(path)}&run_uuid={run_id}"


def experiment_tags(scores: Sequence[str], *, ascending: bool = False) -> dict[str, str]:
    """Tags of an experiment: model training, its first metric, and the views.

    `scores`: rows of a run whose last value is shown, the one that runs are ordered by first.
    """
    variant = ("tags", "keyseg.label")
    costs = [("metrics", "minutes")]
    shown = [("metrics", name_of(name)) for name in scores]
    cells = [("tags", "keyseg.state"), *shown, *costs, variant, ("params", "seed")]
    spread = [("metrics", name_of(f"{scores[0]}_{end}")) for end in ("sd", "low", "high")]
    variants = [variant, ("tags", "keyseg.seeds"), shown[0], *spread, *shown[1:], *costs]
    views = {CELLS: (CELL, cells), VARIANTS: (VARIANT, variants)}
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": shown[0][1],
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(not ascending),
        **{
            f"mlflow.sharedViewState.{name}": json.dumps(
                {
                    "searchFilter": f"tags.`{KIND}` = '{kind}'",
                    "orderByKey": _column(*shown[0]),
                    "orderByAsc": ascending,
                    "startTime": "ALL",
                    "lifecycleFilter": "Active",
                    "modelVersionFilter": "All Runs",
                    "datasetsFilter": [],
                    "selectedColumns": (names := [_column(*column) for column in columns]),
                    "columnOrder": names,  # else metrics come first, and fill the window
                    "columnWidths": {_column(*c): _WIDTHS.get(c[1], _WIDTH) for c in columns},
                }
            )
            for name, (kind, columns) in views.items()
        },
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"
