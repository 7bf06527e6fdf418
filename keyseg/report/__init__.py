"""The report that a sweep writes by itself: tables, figures, a gallery and one page to read them.

Reads sweep.json and the run directories, nothing else; imports neither torch nor mlflow, and at
import time nothing heavy, so that asking for a report starts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from keyseg.report.files import FORMATS, ReportFiles
from keyseg.runs.drops import JudgedBudget
from keyseg.runs.looks import LookPlan, TakenLook

__all__ = [
    "FORMATS",
    "ReportFiles",
    "build",
    "decide",
    "expected_share",
    "judge_budget",
    "write_overview",
]


def build(
    sweep_dir: Path,
    out_dir: Path,
    *,
    seed: int = 0,
    published: Path | None = None,
    joined: Sequence[Path] = (),
    metrics: Sequence[str] = (),
    baseline: Mapping[str, str] | None = None,
    formats: Sequence[str] = FORMATS,
) -> ReportFiles:
    """Write the report of a sweep, finished or not; holes are shown as holes.

    Args:
        sweep_dir: outputs/<sweep>, with sweep.json and one folder per cell.
        out_dir: where index.html, report.md, tables/ and figures/ go; made if absent. Files of an
            earlier report in it are replaced.
        seed: of every resample and of the examples drawn at random.
        published: folder of CSV files with numbers in print; None = the project's own.
        joined: more sweeps, read as one with the first.
        metrics: what verdicts are given on; () = what the design states.
        baseline: factors of the variant that all others are held against, instead of the
            contrasts that the design declares.
        formats: which of `FORMATS` are kept.

    Raises:
        FileNotFoundError: no sweep.json in `sweep_dir`.
        ConfigError: a metric or a baseline that the sweep does not have.
    """
    from keyseg.report import assemble  # draws and computes: seconds of imports

    folders = [Path(sweep_dir), *map(Path, joined)]
    asked = assemble.Asked(tuple(metrics), dict(baseline or {}), tuple(formats))
    return assemble.build(folders, Path(out_dir), asked, seed=seed, published=published)


def decide(sweep_dir: Path) -> TakenLook:
    """Take the next look at a sweep whose seeds come until the answer is in.

    Raises:
        ValueError: no look is left, or a cell that it needs has no results.
    """
    from keyseg.report.stats import looks  # computes: seconds of imports

    return looks.decide(Path(sweep_dir))


def judge_budget(sweep_dir: Path, steps: int) -> JudgedBudget:
    """Which variants of a sweep are plainly behind at a budget (`ablation.drop_behind`)."""
    from keyseg.report.stats import drops  # computes: seconds of imports

    return drops.judge(Path(sweep_dir), steps)


def expected_share(plan: LookPlan, contrasts: int) -> float:
    """Of the cells of all seeds for everyone, the share that stopping early is expected to take.

    Simulated: half of the contrasts alike, a quarter 2.5 points apart, a quarter 10.
    """
    from keyseg.report.stats import sequential_simulation

    return sequential_simulation.expected_share(plan, contrasts)


def write_overview(reports: Path) -> Path | None:
    """Write the page of all sweeps whose reports lie in this folder (reports/out); its path.

    None where there is no report, or another index.html than ours.
    """
    from keyseg.report.page import overview  # a template engine

    return overview.write(Path(reports))
