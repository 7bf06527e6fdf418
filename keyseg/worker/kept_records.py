"""Records of the test split, kept batch by batch while it is read.

A split that takes longer than a job goes on in the next one where it stopped. The files lie beside
the checkpoints, go with them, and are gone when the run is done.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keyseg.runs import disk


class KeptRecords:
    """Lines of `test.RANK.jsonl`: the records of one batch under one protocol.

    `of`: what the records depend on beside the config, in a word (weights, data); records of
    anything else are not found.
    """

    def __init__(self, folder: Path, of: str, rank: int = 0) -> None:
        self.folder = folder
        self.of = of
        self._file = folder / f"test.{rank}.jsonl"
        self._whole = False

    def read(self, protocol: str) -> dict[int, list[dict[str, Any]]]:
        """Records by the position of their batch, of all processes and attempts."""
        records = {}
        for file in _files(self.folder):
            content = file.read_bytes()
            for text in content[: content.rfind(b"\n") + 1].splitlines():  # the last may be torn
                try:
                    line = json.loads(text)
                    if (line["of"], line["protocol"]) == (self.of, protocol):
                        records[int(line["start"])] = line["records"]
                except (ValueError, KeyError, TypeError):  # damaged: that batch is read again
                    continue
        return records

    def add(self, protocol: str, start: int, records: list[dict[str, Any]]) -> None:
        """Keep the records of a batch.

        Raises:
            DiskFullError: there is no room; nothing of it was kept.
        """
        line = {"of": self.of, "protocol": protocol, "start": start, "records": records}
        if not self._whole and self._file.exists():
            content = self._file.read_bytes()
            disk.replace(self._file, content[: content.rfind(b"\n") + 1])
        self._whole = True
        disk.append(self._file, json.dumps(line).encode() + b"\n")


def count(folder: Path) -> int:
    """Batches that are kept."""
    return sum(file.read_bytes().count(b"\n") for file in _files(folder))


def remove(folder: Path) -> None:
    """Forget all of them."""
    for file in _files(folder):
        file.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("test.*.jsonl"))
