"""What a finished run says of its test split with KEY's or SEG's state replaced, on disk.

    interventions/key_swap.teacher_forced.parquet   rows like those of samples.parquet
                                          .json      what was read: hashes of weights, data and code

The JSON is written last, so where it is, all is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

REPLACED = ("key", "seg")
REPLACEMENTS = {
    "swap": "the state of another test expression: another image, another category where there is",
    "zero": "zeros",
    "mean": "the mean state over the test split",
    "noise": "a normal draw with the split's mean and spread of each channel",
    "oracle": "the mean state of the other images' expressions with the same keyword",
    "reworded": "the state of another expression of the same target",
    "namesake": "the state of an expression of another target in the image, with the same keyword",
    "neighbour": "the state of an expression of another target in the image, with another keyword",
    "namesake_elsewhere": "the state of an expression of another image, with the same keyword",
    "renamed": "its own state, moved from the mean of its keyword to that of swap's keyword",
    "corrected": "its own state where KEY says a wrong word, moved from the mean of the states "
    "that say it to that of the right keyword",
}
"""What a state may be replaced by; expressions that have no such state are left out."""


@dataclass(frozen=True)
class Intervention:
    """A token whose state is replaced, and by what: one of `REPLACED`, one of `REPLACEMENTS`."""

    token: str
    kind: str

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.token}_{self.kind}"


@dataclass(frozen=True)
class Stored:
    """Results of one intervention under one protocol. `of`: the hashes of what was read."""

    intervention: Intervention
    protocol: str
    of: Mapping[str, str]
    samples: pd.DataFrame


def write(run: RunDirectory, made: Stored) -> None:
    """Keep results; those of the same intervention and protocol are replaced."""
    run.interventions.mkdir(exist_ok=True)
    table, about = (_file(run, made.intervention, made.protocol, e) for e in ("parquet", "json"))
    about.unlink(missing_ok=True)
    with disk.replacing(table) as file:
        made.samples.to_parquet(file, index=False)
    disk.replace(about, (json.dumps(dict(made.of), indent=1) + "\n").encode())


def known(run: RunDirectory, intervention: Intervention, protocol: str) -> dict[str, str] | None:
    """Hashes of the weights, data and code that results were read with; None without results."""
    try:
        facts: dict[str, str] = json.loads(_file(run, intervention, protocol, "json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return facts


def read(run: RunDirectory) -> Iterator[Stored]:
    """All that is there, KEY before SEG, by kind."""
    import pandas as pd

    for token in REPLACED:
        for kind in REPLACEMENTS:
            intervention = Intervention(token, kind)
            for about in sorted(run.interventions.glob(f"{intervention.name}.*.json")):
                protocol = about.name.split(".")[1]
                table = _file(run, intervention, protocol, "parquet")
                of = known(run, intervention, protocol)
                if of is not None and table.exists():
                    yield Stored(intervention, protocol, of, pd.read_parquet(table))


def _file(run: RunDirectory, intervention: Intervention, protocol: str, ending: str) -> Path:
    return run.interventions / f"{intervention.name}.{protocol}.{ending}"
