"""What MLflow shows by itself of a finished run: examples as pictures, and small tables.

overlays/            PNG, from the worst IoU to the best: prediction tinted, target outlined
confusion/           a table for each protocol: keyword right or wrong against mask right or wrong
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from keyseg.config import resolve_path
from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory

# Imported late: what draws and reads tables, which no run needs before its end.
if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image as PILImage

MANY = 8
"""Pictures of one run."""

_LARGEST = 512
"""Longest side of a picture, in pixels."""

_ROOM = 700
"""Width of a figure in a description, in pixels: MLflow shows it as wide as it is."""

_PREDICTION, _TARGET = "#0072b2", "#e69f00"
_FURTHER = ("#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Colours of the second and further masks of an answer."""


def write(run: RunDirectory, folder: Path) -> None:
    """Write the pictures and tables of a run with samples into `folder`."""
    samples = run.samples()
    for protocol, rows in samples.groupby("protocol", sort=False):
        _confusion(rows, folder / "confusion" / f"{protocol}.csv")
    first = samples[samples["protocol"] == samples["protocol"].iloc[0]]
    _overlays(first, folder / "overlays")


def narrow(figures: Iterable[Path], folder: Path) -> None:
    """Write PNG figures into `folder`, as wide as a description has room for."""
    from PIL import Image

    for file in figures:
        with Image.open(file) as opened:
            figure = opened.convert("RGB")
        height = round(figure.height * _ROOM / figure.width)
        if figure.width > _ROOM:
            figure = figure.resize((_ROOM, height), Image.Resampling.LANCZOS)
        figure.save(folder / file.name, optimize=True)


def _confusion(rows: pd.DataFrame, file: Path) -> None:
    """Counts of examples whose keyword is known; no file where there is none."""
    from keyseg.metrics import RIGHT_MASK

    if not {"keyword_rank", "key_asked"} <= set(rows):  # another system's masks
        return
    known = rows[(rows["keyword_rank"] >= 0) & rows["key_asked"].astype(bool)]
    if known.empty:
        return
    keyword, mask = known["keyword_rank"] == 0, known["iou"] >= RIGHT_MASK
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["", f"mask right (IoU >= {RIGHT_MASK})", "mask wrong"])
        for name, which in (("keyword right", keyword), ("keyword wrong", ~keyword)):
            table.writerow([name, int((which & mask).sum()), int((which & ~mask).sum())])


def _overlays(rows: pd.DataFrame, folder: Path) -> None:
    """`MANY` examples in even steps of rank by IoU; `0.120-the-query.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    order = rows.sort_values(["iou", "id"], kind="stable").reset_index(drop=True)
    count = min(MANY, len(order))
    for n in range(count):
        row = order.iloc[round(n * (len(order) - 1) / max(1, count - 1))]
        name = disk.file_name(f"{row['iou']:.3f}-{row['query']}")
        if (drawn := _drawn(row)) is not None:
            drawn.save(folder / f"{name}.png", optimize=True)


def _drawn(row: pd.Series) -> PILImage | None:
    """The image of an example with its masks; None where a file or a mask cannot be read."""
    from PIL import Image, ImageChops, ImageFilter

    from keyseg.data.files import DataError
    from keyseg.data.masks import decode_rle
    from keyseg.data.pictures import open_rgb

    size = int(row["height"]), int(row["width"])
    try:
        image = open_rgb(resolve_path(str(row["image"])))
        masks = [decode_rle(str(row.get(k) or ""), *size) for k in ("mask_rle", "target_rle")]
        stored = row.get("masks_rle")
        each = [decode_rle(m, *size) for m in json.loads(stored)] if isinstance(stored, str) else []
    except (DataError, ValueError):
        return None
    target = Image.fromarray(masks[1] * 255).resize(image.size)
    edge = ImageChops.subtract(target.filter(ImageFilter.MaxFilter(5)), target)
    drawn, colours = image, cycle((_PREDICTION, *_FURTHER))
    for mask, colour in zip(each or masks[:1], colours, strict=False):
        predicted = Image.fromarray(mask * 255).resize(image.size)
        tinted = Image.blend(image, Image.new("RGB", image.size, colour), 0.5)
        drawn = Image.composite(tinted, drawn, predicted)
    drawn.paste(_TARGET, mask=edge)
    drawn.thumbnail((_LARGEST, _LARGEST))
    return drawn
