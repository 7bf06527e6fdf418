"""`keyseg export predictions RUN`: a run's masks as JSON Lines, so that others can score them.

`keyseg import predictions` reads what this writes, and so can anybody (docs/protocols.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.sweeps import report_folder
from keyseg.config import PROTOCOLS, ConfigError, resolve_path
from keyseg.runs.finding import find_scored, own_samples

if TYPE_CHECKING:
    import pandas as pd

    from keyseg.runs.run_directory import RunDirectory

# Imported late: what only this command needs, so that no other waits for it.


def run(name: str, options: argparse.Namespace) -> int:
    """Write the file and say where it is."""
    from keyseg.data.predictions import json_lines

    scored = find_scored(resolve_path(options.outputs), name)
    samples = own_samples(scored)
    if "mask_rle" not in samples:
        raise ConfigError(f"run {scored.path} holds sums of pixels and no masks")
    there = samples["protocol"].unique()
    headline = next((p for p in PROTOCOLS if p in there), "")
    protocol = options.protocol or headline
    if protocol not in there:
        raise ConfigError(f"--protocol {protocol}: run {scored.path} was read {', '.join(there)}")
    info = scored.info
    default = f"{scored.path.parent.name}-{info.get('label')}-{info.get('seed')}-{protocol}"
    plain = "".join(c if c.isalnum() or c in "+=.-_" else "-" for c in default)
    if options.out:
        file = Path(options.out).expanduser()
    else:
        file = report_folder(scored.path.parent, None) / "predictions" / f"{plain}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = samples[samples["protocol"] == protocol]
    count = json_lines.write(file, _head(scored, info, protocol), _entries(rows))
    print(f"{file}: {count} predictions, {protocol}")
    return 0


def _head(run: RunDirectory, info: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    stated = info.get("protocol") or {}
    return {
        "system": info.get("label"),
        "run": run.path.name,
        "seed": info.get("seed"),
        "protocol": protocol,
        **{key: stated[key] for key in ("data", "splits", "texts", "prompt") if key in stated},
    }


def _entries(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in rows.to_dict("records"):
        code, score = row["mask_rle"], float(row.get("predicted_iou", float("nan")))
        size = [int(row["height"]), int(row["width"])]
        mask = {"size": size, "counts": code} if code else None
        stored = row.get("masks_rle")  # of a query that may have several targets
        each = json.loads(stored) if isinstance(stored, str) else None
        masks = {} if each is None else {"masks": [{"size": size, "counts": c} for c in each]}
        yield {
            "id": row["id"],
            "image": Path(row["image"]).name,
            "query": row["query"],
            "mask": mask,
            **masks,
            **({"score": score} if isfinite(score) else {}),
            "answer": row["answer"],
        }
