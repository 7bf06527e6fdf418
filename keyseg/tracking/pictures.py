"""What MLflow shows by itself of a finished run: examples as pictures, and small tables.

overlays/            PNG, from the worst IoU to the best: prediction tinted, target outlined
confusion/           a table for each protocol: keyword right or wrong against mask right or wrong
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from keyseg.config import resolve_path
from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory

# Imported late: what draws and reads tables, which no run needs before its end.
if TYPE_CHECKING:
    import pandas as pd

MANY = 8
"""Pictures of one run."""

RIGHT = 0.5
"""IoU from which a mask is called right, as the report has it (precision@0.5)."""

_PREDICTION, _TARGET = "#0072b2", "#e69f00"


def write(run: RunDirectory, folder: Path) -> None:
    """Write the pictures and tables of a run with samples into `folder`."""
    samples = run.samples()
    for protocol, rows in samples.groupby("protocol", sort=False):
        _confusion(rows, folder / "confusion" / f"{protocol}.csv")
    first = samples[samples["protocol"] == samples["protocol"].iloc[0]]
    _overlays(first, folder / "overlays")


def _confusion(rows: pd.DataFrame, file: Path) -> None:
    """Counts of examples whose keyword is known; no file where there is none."""
    if not {"keyword_rank", "key_asked"} <= set(rows):  # another system's masks
        return
    known = rows[(rows["keyword_rank"] >= 0) & rows["key_asked"].astype(bool)]
    if known.empty:
        return
    keyword, mask = known["keyword_rank"] == 0, known["iou"] >= RIGHT
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["", f"mask right (IoU >= {RIGHT})", "mask wrong"])
        for name, which in (("keyword right", keyword), ("keyword wrong", ~keyword)):
            table.writerow([name, int((which & mask).sum()), int((which & ~mask).sum())])


def _overlays(rows: pd.DataFrame, folder: Path) -> None:
    """`MANY` examples in even steps of rank by IoU; `0.12 the query.png`."""
    from PIL import Image

    from keyseg.data import overlay

    folder.mkdir(parents=True, exist_ok=True)
    order = rows.sort_values(["iou", "id"], kind="stable").reset_index(drop=True)
    count = min(MANY, len(order))
    for n in range(count):
        row = order.iloc[round(n * (len(order) - 1) / max(1, count - 1))]
        height, width = int(row["height"]), int(row["width"])
        image, _ = overlay.load(resolve_path(str(row["image"])), height, width)
        target = overlay.decode(row.get("target_rle"), height, width)
        drawn = overlay.draw(
            image,
            overlay.decode(row.get("mask_rle"), height, width),
            _PREDICTION,
            None if target is None else (target, _TARGET),
        )
        name = disk.file_name(f"{row['iou']:.3f}-{row['query']}")
        Image.fromarray(drawn).save(folder / f"{name}.png", optimize=True)
