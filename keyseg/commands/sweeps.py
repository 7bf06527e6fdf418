"""Sweeps by name, for commands that take one."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from keyseg.config import ConfigError
from keyseg.runs.finding import sweep_names as sweep_names


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
