"""The folder of a sweep: sweep.json, which says what was asked, beside the run directories."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from keyseg.runs import disk

TRIALS = "trials.json"
"""The trials of a tuning, beside sweep.json."""


def read(sweep_dir: Path) -> dict[str, Any]:
    """The content of sweep.json; {} where there is none (a folder of runs that belong to none)."""
    try:
        content: dict[str, Any] = json.loads((sweep_dir / "sweep.json").read_bytes())
    except FileNotFoundError:
        return {}
    return content


def write(sweep_dir: Path, content: dict[str, Any]) -> None:
    """Replace sweep.json; a reader sees the old one or the new one."""
    disk.replace(sweep_dir / "sweep.json", json.dumps(content, indent=1).encode())


def lock(sweep_dir: Path, name: str = "sweep", timeout: float = 60) -> filelock.BaseFileLock:
    """Hold this while reading and writing sweep.json, or (by name) while building the report."""
    return filelock.FileLock(sweep_dir / f".{name}.lock", timeout=timeout)


def label_of(factors: Mapping[str, Any]) -> str:
    """`cross`, or `cross · weight=0.5` where more than fusion varies."""
    parts = [str(v) if k == "fusion" else f"{short_key(k)}={_text(v)}" for k, v in factors.items()]
    return " · ".join(parts)


def short_key(key: str) -> str:
    """`loss.keyword.weight` -> `weight`."""
    return re.split(r"[./]", key)[-1]


def _text(value: Any) -> str:
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
