"""The report's tables as files: CSV for programs (fractions, full names), TeX for papers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from keyseg.metrics import MEASURES, SOME_DATA
from keyseg.report.store import Sweep
from keyseg.report.tables import tex
from keyseg.report.tables.table import Table
from keyseg.runs.spreadsheet import guarded


def results(sweep: Sweep, scores: pd.DataFrame) -> pd.DataFrame:
    """One row a variant and protocol, holes included; fractions with interval ends."""
    whole = scores[scores["slice"] == ""]
    index = {(r["label"], r["protocol"], r["metric"]): r for r in whole.to_dict("records")}
    measured = set(whole["metric"])
    of_some = {name for family in SOME_DATA for name in family}
    measures = [m for m in MEASURES if m.name in measured or m.name not in of_some]
    rows = []
    for protocol in sweep.protocols or ("",):
        for variant in sweep.variants:
            row: dict[str, object] = {
                "variant": variant.label,
                "protocol": protocol,
                "source": "measured",
                "hole": variant.hole,
            }
            first = index.get((variant.label, protocol, MEASURES[0].name), {})
            for key in ("seeds", "examples", "images", "majority"):
                row[key] = first.get(key)
            for measure in measures:
                score = index.get((variant.label, protocol, measure.name), {})
                row[measure.name] = score.get("value")
                for end in ("low", "high", "sd"):
                    row[f"{measure.name}_{end}"] = score.get(end)
            for key in ("trainable_parameters", "steps", "seconds_per_step", "minutes"):
                row[key] = variant.mean(key)
            row["hours"] = variant.hours
            row["training"] = variant.training
            rows.append(row)
    frame = pd.DataFrame(rows).rename(columns={"majority": "keyword_majority"})
    counts = ["seeds", "examples", "images"]
    return frame.astype(dict.fromkeys(counts, "Int64")) if len(frame) else frame


def manifest(sweep: Sweep) -> pd.DataFrame:
    """Parameters by module of every variant, from its first run that wrote them."""
    frames = []
    for variant in sweep.variants:
        rows: list[Any] = next(
            (c.info["manifest"] for c in variant.cells if c.info.get("manifest")), []
        )
        frames.append(pd.DataFrame(rows).assign(variant=variant.label))
    columns = ["variant", "module", "parameters", "trainable", "note"]
    frames = [frame.reindex(columns=columns) for frame in frames if len(frame)]
    return pd.concat(frames) if frames else pd.DataFrame(columns=columns)


def write(
    folder: Path, frames: dict[str, pd.DataFrame], tables: Iterable[Table]
) -> tuple[Path, ...]:
    """Write `frames` as CSV and `tables` as TeX; the paths, CSV first."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, frame in frames.items():
        files.append(folder / f"{name}.csv")
        frame = frame.map(lambda value: guarded(value) if isinstance(value, str) else value)
        frame.to_csv(files[-1], index=False, float_format="%.6g", lineterminator="\n")
    for table in tables:
        files.append(folder / f"{table.name}.tex")
        files[-1].write_text(tex.render(table), encoding="utf-8")
    return tuple(files)
