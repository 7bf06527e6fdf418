"""The run list: where every number comes from, and what it cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from keyseg.report.store import CellResult, Sweep, shown
from keyseg.runs import imported
from keyseg.runs.provenance import cost_unit

_COLUMNS = (
    "signature",
    "variant",
    "seed",
    "status",
    "training",
    "commit",
    "dirty",
    "data_fingerprint",
    "protocol",
    "attempts",
    "minutes",
    "hours",
    "unit",
    "host",
    "slurm_job_id",
    "mlflow_run",
    "mlflow_url",
    "log",
)


def table(sweep: Sweep) -> pd.DataFrame:
    """One row a cell of the design. `hours` are GPU-hours or CPU-hours, as `unit` says."""
    rows: list[tuple[object, ...]] = []
    for cell in sweep.cells:
        attempts = cell.info.get("attempts") or []
        last = attempts[-1] if attempts else {}
        run, url = mlflow(cell)
        rows.append(
            (
                cell.signature,
                cell.label,
                cell.seed,
                cell.status,
                imported.IMPORTED if cell.imported else cell.convergence.word or "",
                " ".join(sorted(cell.commits)),
                cell.dirty,
                cell.info.get("data_fingerprint") or "",
                protocol(cell),
                len(attempts),
                cell.number("minutes"),
                cell.hours,
                cost_unit([cell.info]),
                last.get("host") or "",
                last.get("slurm_job_id") or "",
                run,
                url,
                cell.log_file.as_posix(),
            )
        )
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def protocol(cell: CellResult) -> str:
    """6 hex digits that stand for how the run was evaluated; "" where it is not recorded."""
    stated = cell.info.get("protocol")
    if not stated:
        return ""
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:6]


def protocols(sweep: Sweep) -> dict[str, str]:
    """{digits: the protocol in words}, of all cells that recorded one."""
    protocols = {protocol(cell): cell.info.get("protocol") for cell in sweep.cells}
    return {
        name: words(stated) for name, stated in protocols.items() if isinstance(stated, Mapping)
    }


def words(stated: Mapping[str, Any]) -> str:
    """`data scenes, splits test, prompt short, ...`."""
    return ", ".join(f"{str(k).replace('_', ' ')} {_text(v)}" for k, v in stated.items() if v)


def mlflow(cell: CellResult) -> tuple[str, str]:
    """The run's id in MLflow, and its page where the store has an address; "" for what is not."""
    try:
        sent = json.loads((cell.directory / "mlflow.json").read_text(encoding="utf-8"))
        run, store = str(sent.get("run_id") or ""), str(sent.get("store") or "")
    except (OSError, ValueError, AttributeError):
        run, store = str(cell.info.get("mlflow_run_id") or ""), ""
    known = run and store.startswith(("http://", "https://"))
    return run, f"{store.rstrip('/')}/#/runs/{run}" if known else ""


def display(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of `table` as it is read."""
    hours = float(row["hours"])
    commits = ", ".join(commit[:10] for commit in str(row["commit"]).split())
    return {
        **row,
        "hours": f"{hours:.3g}" if hours == hours else "–",
        "commit": commits + (" + changes" if row["dirty"] else ""),
        "data_fingerprint": str(row["data_fingerprint"])[:12],
        "log": shown(row["log"]),
    }


def _text(value: object) -> str:
    """`test of short, long` for a mix, `a and b` for a list, else as it is."""
    if isinstance(value, Mapping):
        sources = ", ".join(map(str, value.get("sources") or []))
        return f"{value.get('split', value)}" + (f" of {sources}" if sources else "")
    if isinstance(value, list | tuple):
        return " and ".join(map(_text, value))
    return str(value)
