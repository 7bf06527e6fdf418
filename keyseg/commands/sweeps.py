"""Sweeps by name, for commands that take one."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from keyseg.config import ConfigError


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


def sweep_names(outputs: Path) -> list[str]:
    """Folders in outputs/ that hold runs."""
    if not outputs.is_dir():
        return []
    return sorted(
        folder.name
        for folder in outputs.iterdir()
        if (folder / "sweep.json").exists() or any(folder.glob("*/run.json"))
    )
