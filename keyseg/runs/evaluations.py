"""What a finished run says of other data than its own test, on disk.

    evaluations/refcoco.testA/teacher_forced.parquet   rows like those of samples.parquet
                              teacher_forced.json      what was read, and how; written last
                              code.json                the code that read it
                              test.0.jsonl             batches, until it is read to the end

The JSON is written last, so where it is, all is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.config import PROTOCOLS
from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

OF = ("checkpoint", "data", "weights", "code", "asked")
"""Hashes of what results depend on: the run's weights, the data, the backbones, the code, and how
it was asked (the keys of `data`, the prompt, the texts)."""


@dataclass(frozen=True)
class TestSet:
    """A split of a data set. `changes`: keys that the command set, beside where the files are."""

    __test__ = False  # pytest takes the name for that of a test

    data: str
    split: str
    changes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """As a reader knows it: "refcoco testA", "reason_seg val (data.texts=all)"."""
        more = f" ({', '.join(self.changes)})" if self.changes else ""
        return f"{self.data} {self.split}{more}"

    @property
    def folder(self) -> str:
        """The name of its folder; what was read in another way has another one."""
        name = f"{self.data}.{self.split}"
        if not self.changes:
            return name
        return f"{name}.{hashlib.sha256(json.dumps(self.changes).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Evaluation:
    """Results of a run on a test set under one protocol.

    `of`: the hashes of `OF`. `about`: what else is known: `protocol`, `summary`, `trained_on`
    (images of its training, examples of its val), `seconds`, where and when.
    """

    of_set: TestSet
    protocol: str
    of: Mapping[str, str]
    about: Mapping[str, Any]
    samples: pd.DataFrame


def folder(run: RunDirectory, of_set: TestSet) -> Path:
    """Where the results of a test set lie."""
    return run.evaluations / of_set.folder


def write(run: RunDirectory, made: Evaluation) -> None:
    """Keep results; those of the same test set and protocol are replaced."""
    table, about = files(run, made.of_set, made.protocol)
    table.parent.mkdir(parents=True, exist_ok=True)
    about.unlink(missing_ok=True)
    with disk.replacing(table) as file:
        made.samples.to_parquet(file, index=False)
    of_set = {"data": made.of_set.data, "split": made.of_set.split}
    content = {**of_set, "changes": made.of_set.changes, "of": dict(made.of), **made.about}
    disk.replace(about, disk.json_text(content, indent=1).encode())


def files(run: RunDirectory, of_set: TestSet, protocol: str) -> list[Path]:
    """The rows, and what is said of them."""
    return [_file(run, of_set, protocol, ending) for ending in ("parquet", "json")]


def known(run: RunDirectory, of_set: TestSet, protocol: str) -> dict[str, Any] | None:
    """What is said of results that are there; None where there are none."""
    return _facts(_file(run, of_set, protocol, "json"))


def facts(run: RunDirectory) -> Iterator[tuple[TestSet, str, dict[str, Any]]]:
    """Test set, protocol and what is said of its results, of all that is there; no samples."""
    for place in _places(run):
        for protocol in PROTOCOLS:
            if (said := _facts(place / f"{protocol}.json")) is not None:
                yield TestSet(said["data"], said["split"], tuple(said["changes"])), protocol, said


def read(run: RunDirectory) -> Iterator[Evaluation]:
    """All that is there, by test set, the headline protocol first."""
    import pandas as pd

    for of_set, protocol, said in facts(run):
        table = _file(run, of_set, protocol, "parquet")
        if table.exists():
            yield Evaluation(of_set, protocol, said["of"], said, pd.read_parquet(table))


def _places(run: RunDirectory) -> list[Path]:
    return sorted(place for place in run.evaluations.glob("*") if place.is_dir())


def _facts(file: Path) -> dict[str, Any] | None:
    try:
        stored = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(stored, dict) and {"data", "split", "changes", "of"} <= stored.keys()
    return stored if whole else None


def _file(run: RunDirectory, of_set: TestSet, protocol: str, ending: str) -> Path:
    return folder(run, of_set) / f"{protocol}.{ending}"
