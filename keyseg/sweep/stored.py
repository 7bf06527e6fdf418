"""The cells of a sweep as its files have them, for who goes on with it without its command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError, RunConfig, signature
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.cells import Cell
from keyseg.sweep.design import Point


def stored_cells(sweep_dir: Path, sweep: Mapping[str, Any]) -> list[Cell]:
    """All cells of a sweep.json, planned ones among them, variant by variant.

    A cell that was never begun has the config of another seed of its variant, with its own seed.

    Raises:
        ConfigError: a config is missing, or that is not the config it was planned with.
    """
    known: dict[str, RunConfig] = {}
    entries = [*(sweep.get("cells") or []), *(sweep.get("planned") or [])]
    cells = [_cell(sweep_dir, entry, known) for entry in entries]
    place = {label: i for i, label in enumerate(dict.fromkeys(cell.label for cell in cells))}
    return sorted(cells, key=lambda cell: place[cell.label])


def _cell(sweep_dir: Path, entry: Mapping[str, Any], known: dict[str, RunConfig]) -> Cell:
    label, path = str(entry["label"]), sweep_dir / entry["signature"]
    run = RunDirectory(path)
    if label not in known or run.config_file.exists():
        try:
            config = run.config
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path}: {label} has no config.yaml; the command of the sweep, given again, "
                "writes it"
            ) from error
    else:
        config = replace(known[label], seed=entry["seed"])
        if signature(config) != entry["signature"]:
            raise ConfigError(
                f"{label} seed {entry['seed']} was planned with a config that differs from that of "
                "its other seeds; the command of the sweep, given again, composes it"
            )
    known.setdefault(label, config)
    point = Point(label, dict(entry["factors"]), entry["seed"], list(entry["overrides"]))
    return Cell(entry["signature"], label, point, config, path)
