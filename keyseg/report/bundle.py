"""A sweep in one archive, and every number of it derived again from such an archive.

An archive holds the design, the looks, of every run its config, run.json, metrics, samples and code
fingerprints, the tables that samples give, and the report where there is one. It holds no weights
and no pictures. `verify` runs no code of it: it reads JSON, YAML without tags and Parquet.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any

import pandas as pd

from keyseg.config import ConfigError, signature
from keyseg.report import assemble
from keyseg.report.joined import join
from keyseg.report.page import checks
from keyseg.report.stats import looks as stats_looks
from keyseg.report.store import Sweep
from keyseg.runs import archive, declaration, looks, provenance, sweep_directory
from keyseg.runs.archive import MOST_BYTES, ArchiveError
from keyseg.runs.run_directory import RunDirectory
from keyseg.runs.spreadsheet import guarded

_OF_SWEEP = ("sweep.json", looks.LOOKS_FILE)
_OF_RUN = (
    "config.yaml",
    "run.json",
    "metrics.jsonl",
    "samples.parquet",
    "code.json",
    "code.diff",
)
_OF_REPORT = ("index.html", "report.md")
_NEAR = 1e-4
"""Relative difference up to which two numbers are one: libraries differ in the last bits, and CSV
files hold six digits."""
_MOST_ROWS = 20_000_000
_SIGNATURE = re.compile(r"[0-9a-z]{1,64}")


def bundle(sweep_dir: Path, target: Path, report: Path | None = None) -> list[str]:
    """Write a sweep to an archive; names of the files in it. `report`: folder of its report."""
    sweep = join([sweep_dir])
    files = {name: sweep_dir / name for name in _OF_SWEEP}
    for cell in sweep.cells:
        files |= {f"runs/{cell.signature}/{name}": cell.directory / name for name in _OF_RUN}
        elsewhere = cell.directory.glob("evaluations/*/*")
        files |= {
            f"runs/{cell.signature}/{file.relative_to(cell.directory).as_posix()}": file
            for file in elsewhere
            if file.suffix in (".parquet", ".json")
        }
    files |= {f"report/{name}": report / name for name in _OF_REPORT} if report else {}
    about = {
        "sweep": sweep.name,
        "made": time.time(),
        "git": asdict(provenance.git()),
        "versions": provenance.versions(),
        "declared": sweep.design.get("declared"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in assemble.derived(sweep).items():
            _write(frame, Path(folder) / f"{name}.csv")
            files[f"tables/{name}.csv"] = Path(folder) / f"{name}.csv"
        files = {name: file for name, file in files.items() if file.exists()}
        archive.pack(target, files, about)
    return sorted(files)


@dataclass(frozen=True)
class Verified:
    """What `verify` found: lines on what holds, and lines on what differs."""

    holds: list[str]
    differs: list[str]


def verify(source: Path, largest: int = MOST_BYTES) -> Verified:
    """Derive every number of an archive again and hold it against those that it states.

    Raises:
        ArchiveError: it is no archive of a sweep, or one that is not to be unpacked.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed = archive.unpack(source, folder, largest)
        holds: list[str] = []
        differs = archive.differences(folder, listed["files"])
        if not differs:
            holds.append(f"{len(listed['files'])} files are those that were listed")
        sweep = _read(source, folder)
        for check in (_configs, _tables, _summaries, _looks, _declaration):
            checked = check(sweep, folder)
            holds += checked.holds
            differs += checked.differs
        return Verified(holds, differs)


def _read(source: Path, folder: Path) -> Sweep:
    """The sweep of an archive; what its files name stays inside the folder.

    Raises:
        ArchiveError: it is no sweep, or a table in it is too large.
    """
    try:
        entries = looks_like_a_sweep(folder)
        for entry in entries:
            (folder / entry).symlink_to(folder / "runs" / entry, target_is_directory=True)
        for file in folder.glob("runs/**/*.parquet"):
            _check_size(file)
        return join([folder])
    except ArchiveError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{source} holds no sweep that can be read: {error}") from error


def looks_like_a_sweep(folder: Path) -> list[str]:
    """The cells' signatures of an unpacked sweep.json, checked to be no paths.

    Raises:
        ArchiveError: one is no signature: it would name a place elsewhere.
    """
    signatures = [
        str(cell["signature"]) for cell in sweep_directory.read(folder).get("cells") or []
    ]
    for each in signatures:
        if not _SIGNATURE.fullmatch(each):
            raise ArchiveError(f"sweep.json names a cell {each!r}, which is no signature")
    return list(dict.fromkeys(signatures))


def _check_size(file: Path) -> None:
    import pyarrow.parquet

    known = pyarrow.parquet.ParquetFile(file).metadata
    size = sum(known.row_group(i).total_byte_size for i in range(known.num_row_groups))
    if known.num_rows > _MOST_ROWS or size > MOST_BYTES:
        raise ArchiveError(f"{file.parent.name}/{file.name} holds {known.num_rows} rows: too many")


def _configs(sweep: Sweep, folder: Path) -> Verified:
    """Whether each run's config is the one that its signature names."""
    out = Verified([], [])
    for cell in sweep.cells:
        try:
            derived = signature(RunDirectory(cell.directory).config)
        except (ConfigError, FileNotFoundError, ValueError) as error:
            out.differs.append(f"{cell.signature}: its config cannot be read: {error}")
            continue
        if derived != cell.signature:
            out.differs.append(f"{cell.signature}: its config has the signature {derived}")
    if not out.differs:
        out.holds.append(f"{len(sweep.cells)} configs have the signatures of their runs")
    return out


def _tables(sweep: Sweep, folder: Path) -> Verified:
    """Whether the tables are those that the samples give."""
    out = Verified([], [])
    for name, frame in assemble.derived(sweep).items():
        file = folder / "tables" / f"{name}.csv"
        if not file.exists():
            out.differs.append(f"tables/{name}.csv is not there")
            continue
        again = folder / f"again-{name}.csv"
        _write(frame, again)
        count, lines = _compared(pd.read_csv(file, dtype=str), pd.read_csv(again, dtype=str))
        out.differs.extend(f"tables/{name}.csv, {line}" for line in lines)
        if not lines:
            out.holds.append(f"tables/{name}.csv: {count} entries derived again from the samples")
    return out


def _compared(stated: pd.DataFrame, derived: pd.DataFrame) -> tuple[int, list[str]]:
    if list(stated.columns) != list(derived.columns) or len(stated) != len(derived):
        return 0, ["its lines or columns are not those that the samples give"]
    lines = []
    for column in stated.columns:
        for row, (a, b) in enumerate(zip(stated[column], derived[column], strict=True)):
            if not _same(a, b):
                lines.append(f"line {row + 2}, {column}: {a} stated, {b} derived")
    return stated.size, lines


def _same(a: Any, b: Any) -> bool:
    if pd.isna(a) or pd.isna(b):
        return bool(pd.isna(a) and pd.isna(b))
    try:
        return isclose(float(a), float(b), rel_tol=_NEAR, abs_tol=1e-9)
    except ValueError:
        return str(a) == str(b)


def _summaries(sweep: Sweep, folder: Path) -> Verified:
    """Whether what run.json sums up is what the samples give."""
    wrong = [f"{n.title} {n.text}" for n in checks.disagreements(sweep)]
    holds = [] if wrong else [f"{len(sweep.finished)} summaries are those of their samples"]
    return Verified(holds, wrong)


def _looks(sweep: Sweep, folder: Path) -> Verified:
    """Whether each look says what its seeds and the looks before it give."""
    taken = looks.read(folder)
    out = Verified([], [])
    for number, look in enumerate(taken, start=1):
        try:
            again = stats_looks.judged(_as_of(sweep, taken[: number - 1]), taken[: number - 1])
        except ValueError as error:
            out.differs.append(f"look {number}: {error}")
            continue
        out.differs.extend(f"look {number}, {line}" for line in _rulings(look, again))
    if taken and not out.differs:
        out.holds.append(f"{len(taken)} looks decided what their seeds and boundary say")
    return out


def _as_of(sweep: Sweep, taken: list[looks.TakenLook]) -> Sweep:
    """The sweep with the cells that had been asked for at a look."""
    plan = looks.LookPlan.of(sweep.design)
    if plan is None:
        return sweep
    counts = looks.wanted(plan, taken, [v.label for v in sweep.variants])
    known = {v.label: {*plan.seeds[: counts[v.label]]} for v in sweep.variants}
    variants = (
        replace(v, cells=tuple(c for c in v.cells if c.seed in known[v.label]))
        for v in sweep.variants
    )
    return replace(sweep, variants=tuple(variants))


def _rulings(stated: looks.TakenLook, derived: looks.TakenLook) -> Iterator[str]:
    if dict(stated.samples) != dict(derived.samples):
        yield "it was taken of other samples than those in the archive"
    if stated.design != derived.design:
        yield "it was taken by another design"
    by = {r.contrast: r for r in derived.rulings}
    if {r.contrast for r in stated.rulings} != by.keys():
        yield "its contrasts are not those that were open"
        return
    for ruling in stated.rulings:
        for name, value in asdict(ruling).items():
            other = getattr(by[ruling.contrast], name)
            if not (value == other or _same(value, other)):
                yield f"{ruling.contrast}: {name} is {value}, derived {other}"


def _declaration(sweep: Sweep, folder: Path) -> Verified:
    """Whether the declaration is the one that its digest was made of."""
    first: Mapping[str, Any] | None = sweep.design.get("declared")
    if not first:
        return Verified([], [])
    declared = {k: v for k, v in first.items() if k not in ("digest", "frozen")}
    if declaration.digest(declared) != first.get("digest"):
        return Verified([], ["sweep.json: what was declared does not have the digest it states"])
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(float(first["frozen"])))
    return Verified([f"declared {when}, digest {first['digest']}"], [])


def _write(frame: pd.DataFrame, file: Path) -> None:
    plain = frame.map(lambda value: guarded(value) if isinstance(value, str) else value)
    plain.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
