"""Sweeps by name, and where their reports are, for commands that take one."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from keyseg.config import ConfigError, PathsConfig, resolve_path
from keyseg.runs.finding import sweep_names as sweep_names
from keyseg.runs.run_directory import stored_config


def find_sweep(outputs: Path, name: str) -> Path:
    """The folder of a sweep.

    Raises:
        ConfigError: there is none of this name; says which one is near.
    """
    known = sweep_names(outputs)
    if name in known:
        return outputs / name
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = f" Sweeps: {', '.join(known)}" if known else " There is no sweep yet."
    raise ConfigError(f"there is no sweep '{name}' in {outputs}.{hint}{listed}")


def report_folder(sweep_dir: Path, out: str | None) -> Path:
    """Where the reports are that a sweep wrote or will write: `out`, else its own paths.reports.

    `out` counts from where one stands, as all paths on a command line do.
    """
    if out is not None:
        return Path(out).expanduser().absolute()
    for file in sorted(sweep_dir.glob("*/config.yaml"), key=lambda f: f.parent.is_symlink()):
        with suppress(ConfigError, KeyError, TypeError):  # a damaged cell is the report's to tell
            return resolve_path(str(stored_config(file)["paths"]["reports"]))
    return resolve_path(PathsConfig.reports)
