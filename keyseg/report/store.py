"""One tidy object out of a sweep's files: the design, and what became of every cell of it.

A report is asked for at any time, so whatever is absent, half written or unreadable becomes a
hole with a reason, never an exception. Only sweep.json itself must be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from keyseg.config import PROJECT, PROTOCOLS
from keyseg.data.pictures import check_size
from keyseg.metrics import BY_NAME, key_asked, terms
from keyseg.runs import convergence, imported, provenance, sweep_directory
from keyseg.runs import samples as samples_file
from keyseg.runs.factors import matches
from keyseg.runs.private_files import without_passwords
from keyseg.runs.run_directory import QUEUED, STOPPED, Row, RunDirectory, state_of

METRIC_COLUMNS = ("name", "value", "step", "time")


@dataclass(frozen=True)
class CellResult:
    """One point of the design and its run.

    `status` is the run's own (queued, running, done, failed, pruned), "stopped" where it was begun,
    or is called for, and nobody works on it, or "missing" where no run directory exists.
    `samples` holds rows only for a finished run; `metrics` for any.
    """

    signature: str
    label: str
    factors: Mapping[str, Any]
    seed: int
    directory: Path
    status: str
    info: Mapping[str, Any]
    metrics: pd.DataFrame
    samples: pd.DataFrame
    problems: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> pd.DataFrame:
        """What each sample adds to every score, one row a sample; see `metrics.terms`."""
        return terms(self.samples)

    @cached_property
    def key_asked(self) -> bool:
        """Whether answers were to hold KEY; else nothing of KEY and keyword was measured."""
        return key_asked(self.samples)

    @cached_property
    def imported(self) -> Mapping[str, Any]:
        """Where its masks are from, if another system made them; {} of our own cells."""
        return imported.of(self.info)

    @property
    def log_file(self) -> Path:
        """The run's log."""
        return self.directory / "log.txt"

    @property
    def commits(self) -> frozenset[str]:
        """Every commit that computed a part of this run, attempts included."""
        seen = [(self.info.get("git") or {}).get("commit")]
        seen += [attempt.get("git_commit") for attempt in self._contributing]
        return frozenset(str(commit) for commit in seen if commit)

    @property
    def fingerprints(self) -> frozenset[str]:
        """Every fingerprint of the code that computed a part of this run."""
        return frozenset(str(a["code"]) for a in self._contributing if a.get("code"))

    @property
    def _contributing(self) -> list[Mapping[str, Any]]:
        """The attempts that a result goes back to."""
        own = [a for a in self.info.get("attempts") or [] if not a.get("superseded")]
        return [*((self.info.get("trunk") or {}).get("attempts") or []), *own]

    @property
    def dirty(self) -> bool:
        """Whether the working tree had changes that the commit does not hold."""
        return bool((self.info.get("git") or {}).get("dirty")) or any(
            attempt.get("git_dirty") for attempt in self._contributing
        )

    @property
    def hours(self) -> float:
        """GPU-hours of all attempts (CPU-hours where it had no GPU); NaN where none has ended."""
        return provenance.hours(self.info)

    @cached_property
    def curves(self) -> tuple[list[convergence.Point], list[convergence.Point]]:
        """(step, gIoU on val) and (step, learning rate), by rising step."""
        read = self.metrics["name"].isin((convergence.SCORE, convergence.RATE))
        columns = (self.metrics.loc[read, name].tolist() for name in METRIC_COLUMNS)
        return convergence.curves_of(Row(*row) for row in zip(*columns, strict=True))

    @cached_property
    def convergence(self) -> convergence.Convergence:
        """Whether the training had converged, from its rows."""
        diverged = convergence.is_divergence(self.info.get("error"))
        return convergence.judge(*self.curves, diverged=diverged)

    @property
    def steps(self) -> int | None:
        """Optimiser steps that were made; None where run.json does not say."""
        number = self.number("steps")
        return int(number) if number == number else None

    def number(self, key: str) -> float:
        """A number of run.json, NaN where it is absent."""
        return _number(self.info.get(key))

    def summary(self, protocol: str, name: str) -> float:
        """A number of run.json's summary, NaN where it is absent."""
        return _number(((self.info.get("summary") or {}).get(protocol) or {}).get(name))


def at_plateau(cells: Sequence[CellResult]) -> bool:
    """Whether trainings of one variant are at a plateau, each or on their mean; not without any."""
    words = [cell.convergence.word for cell in cells]
    curves = [cell.curves[0] for cell in cells]
    return convergence.flat_together(words, curves, cells[0].curves[1] if cells else ())


def training_of(cells: Sequence[CellResult]) -> str:
    """How trainings of one variant ended: their words, and what they are on their mean."""
    words = convergence.in_words(cell.convergence.word for cell in cells)
    mixed = words != convergence.PLATEAU and at_plateau(cells)
    return f"{convergence.PLATEAU} on their mean ({words})" if mixed else words


@dataclass(frozen=True)
class VariantResult:
    """All seeds of one combination of factors. `index` fixes its colour in the whole report."""

    label: str
    index: int
    factors: Mapping[str, Any]
    cells: tuple[CellResult, ...]

    @cached_property
    def finished(self) -> tuple[CellResult, ...]:
        """Cells with results, by rising seed."""
        done = [c for c in self.cells if c.status == "done" and len(c.samples)]
        return tuple(sorted(done, key=lambda c: c.seed))

    @property
    def imported(self) -> bool:
        """Whether another system made its masks."""
        return any(cell.imported for cell in self.cells)

    @property
    def fixed(self) -> bool:
        """Whether it is one training of another system, which goes with every seed of ours."""
        return self.imported and len(self.cells) == 1

    @cached_property
    def at_plateau(self) -> bool:
        """Whether its finished trainings are, each or on their mean."""
        return at_plateau(self.finished)

    @property
    def training(self) -> str:
        """How the trainings of its finished cells ended; "" without any."""
        if self.imported:
            return imported.IMPORTED
        return training_of(self.finished)

    def mean(self, key: str) -> float:
        """Mean over finished cells of a number of run.json; NaN where none has it."""
        return float(pd.Series([c.number(key) for c in self.finished], dtype=float).mean())

    @property
    def hours(self) -> float:
        """Mean GPU-hours (or CPU-hours) of a finished cell; NaN where none says."""
        return float(pd.Series([c.hours for c in self.finished], dtype=float).mean())

    @property
    def key_asked(self) -> bool:
        """Whether answers were to hold KEY; True where nothing is finished."""
        return all(cell.key_asked for cell in self.finished)

    def matches(self, factors: Mapping[str, Any]) -> bool:
        """Whether it has these values (`keyseg.runs.factors.matches`)."""
        return matches(self.factors, factors)

    @property
    def fusion(self) -> str:
        """Name of the fusion variant, "" where the design does not say."""
        return str(self.factors.get("fusion", ""))

    @property
    def hole(self) -> str:
        """What is missing, in words; "" when every cell of the design has results."""
        lost = [c for c in self.cells if c not in self.finished]
        if not lost:
            return ""
        states = sorted({c.status if c.status != "done" else "no samples" for c in lost})
        if len(lost) == len(self.cells):
            return ", ".join(states)
        return f"{len(self.finished)} of {len(self.cells)} seeds, {', '.join(states)}"


@dataclass(frozen=True)
class Sweep:
    """A design and its cells, in the design's order."""

    directory: Path
    design: Mapping[str, Any]
    variants: tuple[VariantResult, ...]

    @property
    def name(self) -> str:
        """The sweep's name."""
        return str(self.design.get("name") or self.directory.name)

    @property
    def cells(self) -> tuple[CellResult, ...]:
        """Every cell of the design."""
        return tuple(cell for variant in self.variants for cell in variant.cells)

    @property
    def finished(self) -> tuple[CellResult, ...]:
        """Every cell with results."""
        return tuple(cell for variant in self.variants for cell in variant.finished)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the design."""
        return tuple(sorted({cell.seed for cell in self.cells}))

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """Protocols that any run was read under, the headline one first."""
        seen = {str(p) for cell in self.finished for p in cell.samples["protocol"].unique()}
        known = [p for p in PROTOCOLS if p in seen]
        return tuple(known + sorted(seen.difference(known)))

    @property
    def headline(self) -> str:
        """The protocol that verdicts are given under; "" where nothing is finished."""
        return self.protocols[0] if self.protocols else ""

    @cached_property
    def baseline(self) -> VariantResult | None:
        """The variant that the others are held against; None if the design names none."""
        wanted = self.design.get("baseline") or {}
        if not isinstance(wanted, Mapping):
            return next((v for v in self.variants if v.label == str(wanted)), None)
        return next((v for v in self.variants if wanted and v.matches(wanted)), None)

    @property
    def metrics(self) -> list[str]:
        """Names of the measures that verdicts are given on."""
        return [m for m in self.design.get("metrics") or () if m in BY_NAME] or ["giou"]


def shown(path: Path | str) -> str:
    """A path as a reader knows it: from the project's root where it lies inside."""
    try:
        return Path(path).resolve().relative_to(PROJECT).as_posix()
    except ValueError:
        return Path(path).as_posix()


def load(sweep_dir: Path) -> Sweep:
    """Read a sweep.

    Raises:
        FileNotFoundError: no sweep.json there.
        ValueError: sweep.json is not a JSON object.
    """
    file = sweep_dir / "sweep.json"
    if not file.exists():
        raise FileNotFoundError(
            f"{file} does not exist: give the folder of a sweep, e.g. outputs/<name>"
        )
    try:
        design = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}); start the sweep again") from error
    if not isinstance(design, dict):
        raise ValueError(f"{file} holds no JSON object; start the sweep again")
    if design.get("command"):  # written before passwords were left out
        design["command"] = without_passwords(str(design["command"]))
    cells = [_cell(sweep_dir, entry) for entry in design.get("cells") or []]
    return Sweep(sweep_dir, design, tuple(variants_of(cells)))


def variants_of(cells: Iterable[CellResult]) -> Iterable[VariantResult]:
    """Cells of one label together, in the order in which labels come."""
    by_label: dict[str, list[CellResult]] = {}
    for cell in cells:
        by_label.setdefault(cell.label, []).append(cell)
    for index, (label, group) in enumerate(by_label.items()):
        yield VariantResult(label, index, group[0].factors, tuple(group))


def _cell(sweep_dir: Path, entry: Mapping[str, Any]) -> CellResult:
    signature = str(entry["signature"])
    directory = sweep_dir / signature
    problems: list[str] = []
    info: dict[str, Any] = {}
    metrics = pd.DataFrame({name: [] for name in METRIC_COLUMNS})
    samples = pd.DataFrame()
    status = "missing"
    if directory.is_dir():
        run = RunDirectory(directory)
        # Another process may be writing here, and a disk may have filled: any of these files may
        # be broken, and the rest of the report is still worth having.
        try:
            info = dict(run.info)
            status = _state(run, info) if info.get("status") else "missing"
        except (OSError, ValueError) as error:
            problems.append(f"run.json cannot be read: {error}")
        try:
            metrics = run.metrics()
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"metrics.jsonl cannot be read: {error}")
        if status == "done" and not _unread(run, info):
            try:
                samples = run.samples().reset_index(drop=True)
                if lacking := [name for name in samples_file.REQUIRED if name not in samples]:
                    samples = pd.DataFrame()
                    problems.append(f"samples.parquet lacks {', '.join(lacking)}")
                elif odd := _odd_size(samples):
                    samples = pd.DataFrame()
                    problems.append(f"samples.parquet cannot be used: {odd}")
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"samples.parquet cannot be read: {error}")
    return CellResult(
        signature=signature,
        label=str(entry.get("label") or signature),
        factors=dict(entry.get("factors") or {}),
        seed=int(entry.get("seed") or 0),
        directory=directory,
        status=status,
        info=info,
        metrics=metrics,
        samples=samples,
        problems=tuple(problems),
    )


def _state(run: RunDirectory, info: Mapping[str, Any]) -> str:
    """As `keyseg status` has it, but that SLURM is not asked: a run with a job is waited for."""
    state = state_of(run, info)
    left = state == QUEUED and not (run.path / "job.json").exists()
    return STOPPED if left and not sweep_directory.at_work(run.path.parent) else state


def _unread(run: RunDirectory, info: Mapping[str, Any]) -> bool:
    """Whether it is a model that somebody imported and that was not read on a test of its own."""
    weights = imported.of(info) and not imported.masks_only(info)
    return bool(weights) and not run.samples_file.exists()


def _odd_size(samples: pd.DataFrame) -> str:
    """The first sample whose mask is of no size, or of one that no memory holds; "" without any."""
    for name, height, width in zip(samples["id"], samples["height"], samples["width"], strict=True):
        try:
            check_size(int(height), int(width))
        except ValueError as error:
            return f"{name}: {error}"
    return ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
