"""Runs by name, for commands that take one."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keyseg.commands.sweeps import sweep_names
from keyseg.config import ConfigError
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import DONE, RunDirectory

HELP = "signature, run directory, SWEEP/LABEL or SWEEP/LABEL/SEED: fusion/full/0"


def find_finished(outputs: Path, name: str) -> RunDirectory:
    """A finished run by any of its names (`HELP`).

    Raises:
        ConfigError: there is none of this name, there are several, or it is not finished.
    """
    run = find_run(outputs, name)
    if not run.config_file.exists():
        raise ConfigError(f"{run.path} is not a run directory: it has no config.yaml")
    if run.status != DONE:
        raise ConfigError(
            f"run {run.path} is not finished (status: {run.status}); "
            f"`keyseg status {run.path.parent.name}` shows where it stands, and the command that "
            "started it goes on with it"
        )
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
    return run


def find_run(outputs: Path, name: str) -> RunDirectory:
    """A run by any of its names; it may be in any state.

    Raises:
        ConfigError: there is none of this name, or there are several.
    """
    folder = Path(name).expanduser()
    if (folder / "config.yaml").exists() or (folder / "run.json").exists():
        return RunDirectory(folder.absolute())
    found = _matches(outputs, name)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        listed = ", ".join(found)
        raise ConfigError(f"{len(found)} runs are called '{name}'; choose one: {listed}")
    known = [n for sweep in sweep_names(outputs) for n in _runs(outputs / sweep)]
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    hint = f"there are: {', '.join(near)}" if near else "there is none yet"
    raise ConfigError(f"there is no run '{name}' in {outputs}; {hint}")


def _matches(outputs: Path, name: str) -> dict[str, RunDirectory]:
    """Runs that `name` may mean, by their full names."""
    signatures = {
        f"{sweep}/{name}": RunDirectory(outputs / sweep / name)
        for sweep in sweep_names(outputs)
        if "/" not in name and (outputs / sweep / name / "run.json").exists()
    }
    if len(signatures) > 1:  # the same cell in two sweeps: the same config, so the same run
        done = {k: run for k, run in signatures.items() if run.status == DONE}
        return dict([next(iter((done or signatures).items()))])
    if signatures:
        return signatures
    sweep, _, rest = name.partition("/")
    runs = _runs(outputs / sweep) if rest else {}
    return {
        full: run
        for full, run in runs.items()
        if full == name or full.rpartition("/")[0] == name or f"{sweep}/{run.path.name}" == name
    }


def _runs(sweep: Path) -> dict[str, RunDirectory]:
    """Runs of a sweep as SWEEP/LABEL/SEED; those that are missing on disk are left out."""
    cells: list[dict[str, Any]] = sweep_directory.read(sweep).get("cells") or []
    if not cells:
        folders = [file.parent for file in sorted(sweep.glob("*/run.json"))]
        cells = [RunDirectory(f).info | {"signature": f.name} for f in folders]
    return {
        f"{sweep.name}/{cell.get('label')}/{cell.get('seed')}": RunDirectory(
            sweep / cell["signature"]
        )
        for cell in cells
        if (sweep / cell["signature"] / "run.json").exists()
    }
