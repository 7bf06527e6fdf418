"""What MLflow shows above the numbers of a sweep, in Markdown: verdicts, first table, pictures.

The report is read from its files, as anybody would: report.md and tables/contrasts.csv. MLflow
cuts a long description, so what answers comes first.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from keyseg.runs.convergence import SAYS_NOTHING
from keyseg.runs.run_directory import DONE, FAILED, RUNNING
from keyseg.tracking import pages, scores
from keyseg.tracking.names import LONGEST_TAG, name_of

BEGINNING = "A sweep of keyseg"
"""How a description of an experiment begins that is ours to change."""

PICTURES = "report/pictures"
"""Folder of the figures as they are shown here, among the artifacts of a parent run."""

_PICTURES = 3


@dataclass(frozen=True)
class ReportWords:
    """What a report says. `verdicts`, `caveats`, `table`: Markdown; `figures`: titles and files."""

    verdicts: str = ""
    caveats: str = ""
    table: str = ""
    figures: Sequence[tuple[str, str]] = ()
    rows: Sequence[Mapping[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, report_dir: Path | None) -> ReportWords:
        """Of a report's folder; an empty one where there is none, or it lacks a part."""
        if report_dir is None or not (report_dir / "report.md").exists():
            return cls()
        text = (report_dir / "report.md").read_text(encoding="utf-8")
        file = report_dir / "tables" / "contrasts.csv"
        rows: list[Mapping[str, str]] = []
        if file.exists():
            with file.open(newline="", encoding="utf-8") as lines:
                rows = list(csv.DictReader(lines))
        said = _section(text, "## Verdicts").splitlines()
        figures = re.findall(r"^!\[([^\]]*)\]\((figures/[^)]+)\)", text, re.M)
        png = [(title, str(Path(name).with_suffix(".png"))) for title, name in figures]
        return cls(
            "\n".join(line for line in said if line.startswith("- ")),
            "\n".join(line for line in said if not line.startswith("- ")).strip(),
            _lines_of_table(_section(text, "### Table 1")),
            [(title, name) for title, name in png if (report_dir / name).exists()],
            rows,
        )

    @property
    def shown(self) -> Sequence[tuple[str, str]]:
        """The figures that a description shows."""
        return self.figures[:_PICTURES]

    def contrasts(self, metrics: Sequence[str]) -> dict[str, float]:
        """The difference of each contrast on these metrics, and the ends of its interval.

        Fractions, as all of MLflow's numbers are. No word stands beside a metric: a contrast that
        says nothing has none, and of one whose trainings had not converged the name says so.
        """
        numbers = {}
        first = self.rows[0].get("protocol") if self.rows else None
        for row in self.rows:
            if row.get("metric") not in metrics or row.get("protocol") != first:
                continue
            if row.get("verdict") == SAYS_NOTHING:
                continue
            contrast = f"{row['contrast'].replace('−', 'minus')} {row.get('at') or ''}".strip()
            name = f"contrast/{contrast}/{row['metric']}"
            for end, column in (("", "difference"), ("_low", "low"), ("_high", "high")):
                value = _number(row.get(column))
                if isfinite(value):
                    numbers[f"{name}{end}"] = value
        return numbers


def of_sweep(
    sweep: Mapping[str, Any],
    cells: Sequence[scores.CellState],
    answer: ReportWords,
    *,
    experiment_id: str,
    parent: str,
    metric: str,
    variants: bool,
) -> str:
    """The description of a parent run.

    Args:
        sweep, found: sweep.json and its cells.
        answer: what the report says.
        experiment_id, parent: of the run.
        metric: of the table while there is no report.
        variants: whether there are runs of variants.
    """
    states = [cell.info.get("status") for cell in cells]
    counts = [f"{states.count(s)} {s}" for s in (FAILED, RUNNING) if states.count(s)]
    done = f"{states.count(DONE)} of {len(cells)} cells done"
    links = _lists(experiment_id, variants=variants)
    if answer.rows or answer.verdicts:
        report = pages.run(experiment_id, parent, "artifacts/report/index.html")
        links.append(f"[the report]({report})")
    parts = [
        f"**{sweep['question']}**" if sweep.get("question") else "",
        answer.verdicts or "*Interim: verdicts come with the report, when all cells have ended.*",
        f"{', '.join([done, *counts])} · " + " · ".join(links),
        answer.table or ("" if sweep.get("tune") else "\n".join(_interim(cells, metric))),
        *(
            f"![{title}]({pages.picture(parent, f'{PICTURES}/{Path(name).name}')})"
            for title, name in answer.shown
        ),
        answer.caveats,
    ]
    return _fitting(parts)


def of_experiment(experiment_id: str, sweep: Mapping[str, Any], *, variants: bool) -> str:
    """The description of a sweep's experiment: what is asked, and the way to its lists."""
    # In the line that is seen without a click.
    links = " · ".join(_lists(experiment_id, variants=variants))
    return f"{BEGINNING}: {links}\n\n{sweep.get('question') or ''}".strip()


def _lists(experiment_id: str, *, variants: bool) -> list[str]:
    """Links to the lists of cells and of variants."""
    links = [f"[cells, best first]({pages.view(experiment_id)})"]
    if variants:
        links.append(f"[variants]({pages.view(experiment_id, pages.VARIANTS)})")
    return links


def of_variant(cells: Sequence[scores.CellState], experiment_id: str) -> str:
    """The description of a variant's run: its cells, and what its numbers are."""
    links = [
        f"[seed {cell.seed}]({pages.run(experiment_id, cell.info['mlflow_run_id'])})"
        for cell in cells
        if cell.info.get("mlflow_run_id")
    ]
    if len(cells) == 1:
        return (
            f"Cell: {links[0] if links else f'seed {cells[0].seed}'}.\n\n"
            "One seed: its numbers and its curves. It tells nothing of the spread over seeds, so "
            "there is no standard deviation and no interval."
        )
    return (
        f"Cells: {', '.join(links)}.\n\n"
        "Each metric is the mean over seeds; `_sd` its standard deviation, `_low` and `_high` the "
        "ends of Student's 95 % interval over seeds. (The report's intervals are over test images "
        "or over both.) Curves: the mean of all seeds at a step, `_min` and `_max` the band."
    )


def _interim(states: Sequence[scores.CellState], metric: str) -> Iterator[str]:
    yield f"| Variant | Cells done | {name_of(metric)} |"
    yield "|:--|--:|--:|"
    for label, cells in scores.variants(states).items():
        done = sum(cell.done for cell in cells)
        spread = scores.summaries(cells).get(metric)
        mean = f"{100 * spread.mean:.1f} %" if spread else "–"
        yield f"| {label.replace('|', '/')} | {done} of {len(cells)} | {mean} |"


def _fitting(parts: Sequence[str]) -> str:
    """Parts one below the other, as many as MLflow takes; the first that does not fit is cut."""
    text = ""
    for part in filter(None, parts):
        if len(text) + len(part) + 2 > LONGEST_TAG:
            room = LONGEST_TAG - len(text) - 4
            return text if part.startswith("!") else f"{text}{part[:room].rsplit(chr(10), 1)[0]}\n…"
        text += f"{part}\n\n"
    return text.rstrip()


def _section(text: str, heading: str) -> str:
    """What stands below the first heading that begins so, up to the next heading."""
    match = re.search(rf"^{re.escape(heading)}.*\n((?:(?!#).*\n?)*)", text, re.M)
    return re.sub(r"\n{2,}", "\n\n", match[1]).strip() if match else ""


def _lines_of_table(text: str) -> str:
    """The table in a section, without its caption. Markdown has no empty line in a table."""
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
