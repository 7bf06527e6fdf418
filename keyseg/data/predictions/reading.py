"""Predictions from a path: which form it has, what it holds, and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyseg.data.files import DataError
from keyseg.data.predictions import coco_results, json_lines, png_folder, rela_results
from keyseg.data.predictions.prediction import ForeignPrediction

LONGEST_FILE = 2**33
"""Bytes of JSON Lines, which are read one by one."""
LONGEST_LIST = 2**31
"""Bytes of a JSON list, which is read as a whole."""

PNG, JSON_LINES, COCO, RELA = "PNG folder", "JSON Lines", "COCO results", "ReLA's detailed results"
LISTS = {COCO: coco_results, RELA: rela_results}


@dataclass(frozen=True)
class PredictionFile:
    """A system's predictions. sha256: of the file, or over names and contents of a folder."""

    path: Path
    form: str
    sha256: str
    predictions: list[ForeignPrediction]
    head: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> PredictionFile:
    """Read a file or folder of any form, told by what is in it.

    Raises:
        DataError: there is none, it is too large, of no known form, or damaged.
    """
    if path.is_dir():
        return PredictionFile(path, PNG, _hash_of_folder(path), png_folder.read(path))
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start not in (b"{", b"["):
        raise DataError(
            f"{path} is of no form that is read: {', '.join((PNG, JSON_LINES, *LISTS))}. Pickles "
            "(.pth, .pkl) and NumPy files are not, since they could run code"
        )
    most = LONGEST_FILE if start == b"{" else LONGEST_LIST
    if size > most:
        raise DataError(f"{path} has {size:,} bytes, more than the {most:,} that are read")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if start == b"{":
        head, predictions = json_lines.read(path)
        return PredictionFile(path, JSON_LINES, digest, predictions, head)
    entries = _list(path)
    for form, module in LISTS.items():
        if module.fits(entries[0]):
            return PredictionFile(path, form, digest, module.read(path, entries))
    raise DataError(f"{path}: entries with {', '.join(list(entries[0])[:8])} are of no known form")


def _list(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error})") from error
    if not entries:
        raise DataError(f"{path} holds no predictions")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise DataError(f"{path}, entry {number}: {str(entry)[:60]} is no JSON object")
    return [dict(entry) for entry in entries]


def _hash_of_folder(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        with file.open("rb") as content:
            part = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{part}\n".encode())
    return total.hexdigest()
