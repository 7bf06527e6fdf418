"""The `..._detailed_results.json` of ReLA's evaluation: sums of pixels, no masks.

    [{"source": "grefcoco", "img_id": 391895, "sent": "Left dog.", "sent_info": {"sent": "left dog",
      ...}, "gt_nt": false, "pred_nt": false, "I": 5120, "U": 6400, "cIoU": 0.8}, ...]

`gt_nt`, `pred_nt`: whether there is no target, and whether the system says so. A target that it
denies has I = 0 and the U of a mask that it gives all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyseg.data.files import DataError
from keyseg.data.predictions.prediction import ForeignPrediction, Pixels, text

_NEEDED = ("img_id", "sent", "gt_nt", "pred_nt", "I", "U")


def fits(entry: dict[str, Any]) -> bool:
    """Whether an entry looks like one of this form."""
    return {"I", "U", "pred_nt"} <= entry.keys()


def read(file: Path, entries: list[dict[str, Any]]) -> list[ForeignPrediction]:
    """The predictions.

    Raises:
        DataError: an entry lacks something, or holds something else; names it.
    """
    return [_prediction(e, f"{file}, entry {n}") for n, e in enumerate(entries, start=1)]


def _prediction(entry: dict[str, Any], where: str) -> ForeignPrediction:
    if lacking := [key for key in _NEEDED if key not in entry]:
        raise DataError(f"{where}: no {', '.join(lacking)}")
    both, either, image = entry["I"], entry["U"], entry["img_id"]
    if not all(type(n) is int and n >= 0 for n in (both, either)) or both > either:
        raise DataError(f"{where}: I {str(both)[:20]} and U {str(either)[:20]} are no pixel counts")
    if not isinstance(image, int | str) or isinstance(image, bool):
        raise DataError(f"{where}: 'img_id' is {str(image)[:60]}, not a number or a name")
    if not all(isinstance(entry[key], bool) for key in ("gt_nt", "pred_nt")):
        raise DataError(f"{where}: 'gt_nt' and 'pred_nt' must be true or false")
    info = entry.get("sent_info")
    clean = text(info, "sent", where) if isinstance(info, dict) else None
    return ForeignPrediction(
        where,
        None,
        image=image,
        query=clean or text(entry, "sent", where),
        pixels=Pixels(both, either, entry["gt_nt"], entry["pred_nt"]),
    )
