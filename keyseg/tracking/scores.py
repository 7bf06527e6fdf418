"""What a sweep has measured so far, from its run directories: by variant, over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from keyseg.config import PROTOCOLS, TEACHER_FORCED
from keyseg.runs.run_directory import DONE, RunDirectory

# Imported late: scipy, which takes half a second, and only ends of intervals need.

_LEVEL = 0.975
"""Of the quantile at the upper end of a 95 % interval."""


@dataclass(frozen=True)
class CellState:
    """A cell of the design as it stands. `info`: its run.json."""

    run: RunDirectory
    label: str
    seed: int
    info: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether it has its results."""
        return self.info.get("status") == DONE


@dataclass(frozen=True)
class OverSeeds:
    """Seeds of one variant on one measure. NaN: fewer than two seeds tell nothing of others."""

    mean: float
    sd: float
    low: float
    high: float


def everything(sweep_dir: Path, sweep: Mapping[str, Any]) -> list[CellState]:
    """The cells of sweep.json; of a tuning every run in its folder, trials and what follows."""
    if not sweep.get("tune"):
        return cells(sweep_dir, sweep)
    runs = [RunDirectory(file.parent) for file in sorted(sweep_dir.glob("*/run.json"))]
    infos = [(run, run.info) for run in runs]
    return [CellState(r, str(i.get("label")), int(i.get("seed") or 0), i) for r, i in infos]


def cells(sweep_dir: Path, sweep: Mapping[str, Any]) -> list[CellState]:
    """The cells of sweep.json."""
    states = []
    for entry in sweep.get("cells", []):
        run = RunDirectory(sweep_dir / entry["signature"])
        label = str(entry.get("label") or entry["signature"])
        states.append(CellState(run, label, int(entry.get("seed") or 0), run.info))
    return states


def variants(cells: Sequence[CellState]) -> dict[str, list[CellState]]:
    """Cells by variant, in the order of the design."""
    by_label: dict[str, list[CellState]] = {}
    for cell in cells:
        by_label.setdefault(cell.label, []).append(cell)
    return by_label


def protocol(cells: Sequence[CellState]) -> str:
    """The protocol that results are shown under first, as in the report."""
    seen = {name for cell in cells for name in cell.info.get("summary") or {}}
    return next((name for name in PROTOCOLS if name in seen), TEACHER_FORCED)


def summaries(cells: Sequence[CellState]) -> dict[str, OverSeeds]:
    """{`test/PROTOCOL/MEASURE`: its spread} over those cells that are done."""
    values: dict[str, list[float]] = {}
    for cell in cells:
        for name, measures in (cell.info.get("summary") or {}).items() if cell.done else ():
            for measure, value in measures.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    values.setdefault(f"test/{name}/{measure}", []).append(float(value))
    return {name: spread(seeds) for name, seeds in values.items()}


def spread(values: Sequence[float]) -> OverSeeds:
    """Mean, standard deviation, and Student's 95 % interval of the mean over seeds."""
    mean = fmean(values)
    if len(values) < 2:
        return OverSeeds(mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit

    sd = stdev(values)
    half = float(stdtrit(len(values) - 1, _LEVEL)) * sd / math.sqrt(len(values))
    return OverSeeds(mean, sd, mean - half, mean + half)
