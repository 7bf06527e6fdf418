"""Runs by name: what a person calls them, and where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.config import ConfigError
from keyseg.runs import disk, imported, sweep_directory
from keyseg.runs.run_directory import DONE, RunDirectory

if TYPE_CHECKING:
    import pandas as pd

HELP = "signature, run directory, SWEEP/LABEL or SWEEP/LABEL/SEED: fusion/full/0"


def sweep_names(outputs: Path) -> list[str]:
    """Folders in outputs/ that hold runs."""
    if not outputs.is_dir():
        return []
    return sorted(
        folder.name
        for folder in outputs.iterdir()
        if (folder / "sweep.json").exists() or any(folder.glob("*/run.json"))
    )


def find_finished(outputs: Path, name: str) -> RunDirectory:
    """A finished run by any of its names (`HELP`).

    Raises:
        ConfigError: there is none of this name, there are several, or it is not finished.
    """
    run = find_scored(outputs, name)
    if imported.masks_only(run.info):
        system = imported.of(run.info)["system"]
        raise ConfigError(
            f"run {run.path} holds masks of another system ({system}) and no model: "
            "`keyseg score`, `keyseg report` and `keyseg export predictions` read it"
        )
    if not run.config_file.exists():
        raise ConfigError(f"{run.path} is not a run directory: it has no config.yaml")
    try:
        run.config  # noqa: B018 (read for its errors)
    except ConfigError as error:
        commit = (run.info.get("git") or {}).get("commit") or "unknown"
        raise ConfigError(
            f"{run.config_file} does not fit this version of keyseg ({error}); the run was made "
            f"at commit {commit}"
        ) from error
    if not run.best_file.exists():
        raise ConfigError(f"run {run.path} holds no weights: {run.best_file} is missing")
    checksum = run.info.get("checkpoint_fingerprint")
    if checksum and not disk.sha256(run.best_file).startswith(checksum):
        raise ConfigError(
            f"{run.best_file} is not what the run left (checksum {checksum} in its run.json): "
            "put it back from a copy, or run the cell again with rerun=true"
        )
    return run


def find_scored(outputs: Path, name: str) -> RunDirectory:
    """A finished run by any of its names, of which the results are asked alone.

    Raises:
        ConfigError: there is none of this name, there are several, or it is not finished.
    """
    run = find_run(outputs, name, finished=True)
    if run.status != DONE:
        raise ConfigError(
            f"run {run.path} is not finished (status: {run.status}); "
            f"`keyseg status {run.path.parent.name}` shows where it stands, and the command that "
            "started it goes on with it"
        )
    return run


def own_samples(run: RunDirectory) -> pd.DataFrame:
    """Samples of a finished run's own test.

    Raises:
        ConfigError: it was not read on one: its weights were imported.
    """
    if not run.samples_file.exists():
        raise ConfigError(
            f"run {run.path} was not read on a test of its own (its weights were imported): "
            f"`keyseg evaluate {run.path.parent.name} data=NAME` reads it on others"
        )
    return run.samples()


def find_all_finished(outputs: Path, name: str) -> list[RunDirectory]:
    """Finished runs that a name may mean; a sweep's name, or SWEEP/LABEL, means several.

    Raises:
        ConfigError: there is none that is finished, or one of them cannot be used.
    """
    whole = _runs(outputs / name) if name in sweep_names(outputs) else _matches(outputs, name)
    done = [run for _, run in whole if run.status == DONE]
    if len(done) > 1 or (done and name in sweep_names(outputs)):
        return [find_finished(outputs, str(run.path)) for run in done]
    return [find_finished(outputs, name)]


def find_run(outputs: Path, name: str, *, finished: bool = False) -> RunDirectory:
    """A run by any of its names; it may be in any state. `finished`: one that is done is meant.

    Raises:
        ConfigError: there is none of this name, or there are several.
    """
    folder = Path(name).expanduser()
    if (folder / "config.yaml").exists() or (folder / "run.json").exists():
        return RunDirectory(folder.absolute())
    matches = _matches(outputs, name)
    if finished and len(matches) > 1:
        matches = [pair for pair in matches if pair[1].status == DONE] or matches
    if len(matches) == 1:
        return matches[0][1]
    if matches:
        listed = ", ".join(_unambiguous(matches))
        raise ConfigError(f"{len(matches)} runs are called '{name}'; choose one: {listed}")
    known: list[str] = []
    for sweep in sweep_names(outputs):
        with suppress(ConfigError):  # a damaged sweep.json of another sweep
            known += full_names(outputs / sweep)
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    hint = f"there are: {', '.join(near)}" if near else "there is none yet"
    raise ConfigError(f"there is no run '{name}' in {outputs}; {hint}")


def full_names(sweep: Path) -> list[str]:
    """SWEEP/LABEL/SEED of every run of a sweep.

    Raises:
        ConfigError: its sweep.json cannot be read.
    """
    return [full for full, _ in _runs(sweep)]


def _unambiguous(named: Sequence[Named]) -> list[str]:
    """Names that can be told apart: with the signature where full names are the same."""
    count = Counter(full for full, _ in named)
    return [
        full if count[full] == 1 else f"{full.partition('/')[0]}/{run.path.name} ({run.status})"
        for full, run in named
    ]


Named = tuple[str, RunDirectory]
"""A run with its full name, SWEEP/LABEL/SEED, which several may have."""


def _matches(outputs: Path, name: str) -> list[Named]:
    """Runs that `name` may mean."""
    signatures = [
        (f"{sweep}/{name}", RunDirectory(outputs / sweep / name))
        for sweep in sweep_names(outputs)
        if "/" not in name and (outputs / sweep / name / "run.json").exists()
    ]
    if signatures:  # the same cell in two sweeps: the same config, so the same run
        done = [pair for pair in signatures if pair[1].status == DONE]
        return (done or signatures)[:1]
    sweep, _, rest = name.partition("/")
    if not rest and imported.IMPORTED in sweep_directory.read(outputs / name):
        return _runs(outputs / name)  # one that holds nothing else goes by the folder's name
    return [
        (full, run)
        for full, run in (_runs(outputs / sweep) if rest else [])
        if full == name or full.rpartition("/")[0] == name or f"{sweep}/{run.path.name}" == name
    ]


def _runs(sweep: Path) -> list[Named]:
    """Runs of a sweep; those that are missing on disk are left out."""
    design = sweep_directory.read(sweep)
    cells: list[dict[str, Any]] = [*(design.get("cells") or []), *(design.get("earlier") or [])]
    if not cells:
        folders = [file.parent for file in sorted(sweep.glob("*/run.json"))]
        cells = [RunDirectory(f).info | {"signature": f.name} for f in folders]
    return [
        (
            f"{sweep.name}/{cell.get('label')}/{cell.get('seed')}",
            RunDirectory(sweep / cell["signature"]),
        )
        for cell in cells
        if (sweep / cell["signature"] / "run.json").exists()
    ]
