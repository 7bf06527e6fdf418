"""The end of a sweep: report, MLflow, the result table, and the paths of it all."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keyseg.config import TEACHER_FORCED, ConfigError, resolve_path
from keyseg.runs import sweep_directory
from keyseg.runs.private_files import without_passwords
from keyseg.runs.provenance import SILENT, silence
from keyseg.runs.run_directory import DONE, FAILED
from keyseg.runs.titles import unique_titles
from keyseg.sweep.progress import duration
from keyseg.sweep.supervise import Outcome
from keyseg.tracking import parent_run, sync
from keyseg.tracking.store import shown_store

_PATIENCE = 120.0
"""Seconds that the end of a sweep, or a report, waits for the tracking store."""

BuildReport = Callable[[Path, Path], Path]
"""From a sweep's folder and the folder of its report to the report's page. Handed in by whoever
puts the program together: a sweep does not know how a report is made."""

_NOT_ASKED = "not asked"
"""Where answers hold no KEY."""

_COLUMNS = (
    ("gIoU", "giou"),
    ("cIoU", "ciou"),
    ("P@0.5", "precision@0.5"),
    ("P@0.9", "precision@0.9"),
    ("keyword", "keyword_accuracy"),
)


def make_report(
    build: BuildReport, sweep_dir: Path, out_dir: Path
) -> tuple[Path | None, str | None]:
    """Build the report: its page, or why there is none. The results never depend on it.

    Raises:
        ConfigError: what was asked does not fit the sweep.
    """
    try:
        with sweep_directory.lock_if_ours(sweep_dir, "report", timeout=300):
            return build(sweep_dir, out_dir), None
    except ConfigError:
        raise
    except Exception as error:
        trace, kept = sweep_dir / "report-error.txt", ""
        with suppress(OSError):  # a full disk may be the reason; an archive is read only
            trace.write_text(traceback.format_exc())
            kept = f" (traceback: {short_path(trace)})"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, (
            f"the report could not be made: {reason}{kept}. The results are complete; `keyseg "
            f"report {sweep_dir.name}` tries again"
        )


def finish_mlflow(
    sweep_dir: Path, outcomes: Sequence[Outcome], report: Path | None, *, failed: bool = False
) -> str | None:
    """Bring the store level and end the parent run; a message where that did not work.

    `failed`: the parent has, whatever became of its cells. A store that hangs is given up after a
    while: it can be brought level at any time.
    """
    runs = [outcome.cell.open() for outcome in outcomes]
    nothing_ran = not failed and all(outcome.before for outcome in outcomes)
    if sync.store_uri(sweep_dir) == sync.OFF or (nothing_ran and all(map(sync.is_level, runs))):
        return None

    def work() -> list[str]:
        problems = sync.sync_all(r for r in runs if not sync.is_level(r))
        page = report.parent if report else None
        parent_run.finish(sweep_dir, page, failed=failed)
        return problems

    failure = _with_the_store(work)
    if not failure:
        return None
    return (
        f"MLflow at {shown_store(sweep_dir)} is not level ({failure}). The results are complete "
        f"in {short_path(sweep_dir)}; `keyseg sync {sweep_dir.name}` sends them later"
    )


def log_report(sweep_dir: Path, report: Path) -> str | None:
    """Put a report made by hand on the sweep's parent run; a message where that did not work."""

    def work() -> list[str]:
        parent_run.log_report(sweep_dir, report.parent)
        return []

    failure = _with_the_store(work)
    if not failure:
        return None
    return (
        f"MLflow at {shown_store(sweep_dir)} did not take the report ({failure}); "
        f"`keyseg sync {sweep_dir.name}` sends it later"
    )


def _with_the_store(work: Callable[[], list[str]]) -> str | None:
    """Do this with the store and say the first problem; a store that hangs is given up."""
    failure: list[str] = []

    def attempt() -> None:
        try:
            failure.extend(work())
        except Exception as error:
            failure.append(str(error).splitlines()[0] if str(error) else type(error).__name__)

    thread = threading.Thread(target=attempt, daemon=True, name="mlflow-finish")
    thread.start()
    thread.join(_PATIENCE)
    if thread.is_alive():
        return f"no answer in {_PATIENCE:.0f} s"
    return without_passwords(failure[0]) if failure else None


def result_table(outcomes: Sequence[Outcome], width: int) -> Table:
    """Scores of the cells that are done, in percent."""
    infos = [outcome.cell.open().info for outcome in outcomes]
    protocols = list(dict.fromkeys(p for info in infos for p in (info.get("summary") or {}))) or [
        TEACHER_FORCED
    ]
    first, *others = protocols
    columns = _COLUMNS if width >= 90 else _COLUMNS[:3] + _COLUMNS[4:]
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"test split, percent, {first.replace('_', ' ')}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("cell", overflow="fold")
    for shown, _ in columns:
        table.add_column(shown, justify="right", no_wrap=True)
    for protocol in others:
        table.add_column(f"gIoU {protocol}", justify="right", max_width=9)
    table.add_column("time", justify="right", no_wrap=True)
    titles = unique_titles((o.cell.label, o.cell.config.seed, o.cell.signature) for o in outcomes)
    for title, outcome, info in zip(titles, outcomes, infos, strict=True):
        summary = info.get("summary") or {}
        if outcome.status != DONE:
            blank = [""] * (len(columns) + len(others))
            table.add_row(escape(title), outcome.status, *blank[1:], _time(info))
            continue
        table.add_row(
            escape(title),
            *[
                _NOT_ASKED
                if name == "keyword_accuracy" and not outcome.cell.config.model.tokens.n_keys
                else _percent(summary.get(first), name)
                for _, name in columns
            ],
            *[_percent(summary.get(protocol), "giou") for protocol in others],
            _time(info),
        )
    return table


def print_end(
    console: Console,
    outcomes: Sequence[Outcome],
    *,
    sweep_dir: Path,
    report: Path | None,
    problems: Sequence[str],
) -> None:
    """Result table, failures with their logs, and where everything is."""
    if outcomes:
        console.print(result_table(outcomes, console.width))
    before = sum(outcome.before for outcome in outcomes)
    if before:
        what = (
            "all cells were"
            if before == len(outcomes)
            else f"{before} of {len(outcomes)} cells were"
        )
        print_line(console, f"{what} done already (rerun=true runs them again)")
    for outcome in outcomes:
        if outcome.status == FAILED:
            run = outcome.cell.open()
            reason = run.info.get("error") or outcome.error or "no reason given"
            error = str(reason).strip().splitlines()[-1]
            print_line(console, f"FAILED  {outcome.cell.title}: {error}", "red")
            if run.log_file.exists():  # not where a job ended before its worker began
                print_line(console, f"        log: {short_path(run.log_file)}", "red")
    for outcome in outcomes:
        if silence := _silence(outcome):
            print_line(console, f"warning: {silence}", "yellow")
    if report is not None:
        print_line(console, f"report  {short_path(report)}")
    print_line(console, f"runs    {short_path(sweep_dir)}")
    of = outcomes[0].cell.path.parent if outcomes else sweep_dir  # not the run of a single one
    print_line(console, f"MLflow  {ui_command(of)}")
    for problem in problems:
        print_line(console, f"warning: {problem}", "yellow")


def _silence(outcome: Outcome) -> str:
    """What is to be said of a run that answers without SEG; "" of others."""
    rate = silence(outcome.cell.open().info)
    if outcome.status != DONE or rate < SILENT:
        return ""
    return (
        f"{outcome.cell.title}: {100 * rate:.0f} % of its generated answers have no SEG, so no "
        "mask; teacher-forced scores do not show that (loss.text may be too low)"
    )


def ui_command(sweep_dir: Path) -> str:
    """The command that shows a sweep in MLflow."""
    if sync.store_uri(sweep_dir) == sync.OFF:
        return "off (MLFLOW_TRACKING_URI=none)"
    outputs = sweep_dir.parent
    elsewhere = "" if outputs == resolve_path("outputs") else f"--outputs {short_path(outputs)} "
    return f"keyseg {elsewhere}ui {sweep_dir.name}"


def print_line(console: Console, text: str, style: str = "") -> None:
    """A line that is never wrapped: paths and commands in it can be copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def short_path(path: Path) -> str:
    """Relative to the working directory where the path lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _percent(scores: dict[str, Any] | None, name: str) -> str:
    value = (scores or {}).get(name)
    return f"{100 * value:.1f}" if isinstance(value, int | float) and isfinite(value) else "-"


def _time(info: dict[str, Any]) -> str:
    minutes = info.get("minutes")
    return "-" if minutes is None else duration(60 * float(minutes))
