"""What MLflow shows of a run beside its numbers: its name, its source, and what was trained on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from keyseg.runs import imported, provenance
from keyseg.runs.private_files import without_passwords
from keyseg.runs.run_directory import RunDirectory
from keyseg.tracking.names import CELL, IDENTITY, KIND, LONGEST_TAG

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

Tags = dict[str, Any]
"""Values of any kind; None: no tag."""


def of_run(
    run: RunDirectory, info: dict[str, Any], parent: str | None, command: str | None
) -> dict[str, str]:
    """The tags of a cell's run; `parent`, `command`: MLflow's run of its sweep, what started it."""
    label, seed = info.get("label") or run.config.fusion["name"], info.get("seed")
    other = imported.of(info)
    keyed = not other and run.config.model.tokens.n_keys
    attempts = info.get("attempts") or [{}]
    return texts(
        {
            "mlflow.runName": f"{label} · seed {seed}",
            "mlflow.parentRunId": parent,
            **source(info.get("git") or {}),
            KIND: CELL,
            IDENTITY: info.get("id"),
            "keyseg.command": command,
            "keyseg.signature": info.get("signature") or run.path.name,
            "keyseg.sweep": run.sweep_dir.name,
            "keyseg.label": label,
            "keyseg.keyword": None if keyed else "not asked",
            "keyseg.imported": other.get("system"),
            "keyseg.imported_file": other.get("file"),
            "keyseg.imported_sha256": other.get("sha256"),
            "keyseg.imported_said_by": other.get("said_by"),
            "keyseg.git_dirty": (info.get("git") or {}).get("dirty"),
            "keyseg.data_fingerprint": info.get("data_fingerprint"),
            "keyseg.weights_fingerprint": info.get("weights_fingerprint"),
            "keyseg.code_fingerprint": (info.get("code") or {}).get("fingerprint"),
            "keyseg.slurm_job_id": attempts[-1].get("slurm_job_id"),
            **{f"keyseg.{name}": value for name, value in provenance.described(info).items()},
            "keyseg.attempts": len(info.get("attempts") or []),
            "keyseg.state": info.get("status"),
            "keyseg.steps": info.get("steps"),
            "keyseg.training": (info.get("convergence") or {}).get("word"),
            "keyseg.trial": info.get("trial"),
            "keyseg.study": info.get("study"),
            "keyseg.error": info.get("error"),
        }
    )


def source(git: dict[str, Any]) -> Tags:
    """What MLflow itself calls a run's source."""
    return {
        "mlflow.source.name": "run.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.source.git.branch": git.get("branch"),
        "mlflow.source.git.repoURL": git.get("remote"),
        "mlflow.source.git.dirty": git.get("dirty"),
    }


def owner(info: dict[str, Any]) -> str:
    """Who ran it first; whoever asks where that was not recorded. MLflow never changes it."""
    attempts = info.get("attempts") or [{}]
    return str(attempts[0].get("user") or provenance.user())


def texts(tags: Tags) -> dict[str, str]:
    """Tags as MLflow takes them: no None, no password, none too long."""
    given = {key: without_passwords(str(v)) for key, v in tags.items() if v is not None}
    return {key: value[:LONGEST_TAG] for key, value in given.items()}


def datasets(run: RunDirectory, info: dict[str, Any]) -> list[DatasetInput]:
    """The splits that a run reads, each a dataset `NAME/SPLIT` with the data's fingerprint.

    MLflow finds runs by them: `dataset.digest = '...'`, `dataset.context = 'train'`.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = run.config.data
    inputs = []
    for split, counts in (info.get("data_counts") or {}).items():
        dataset = Dataset(
            name=f"{data['name']}/{split}",
            digest=str(info["data_fingerprint"]),
            source_type="local",
            source=json.dumps({"path": without_passwords(str(data.get("root") or data["name"]))}),
            profile=json.dumps(counts),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", split)]))
    return inputs
