"""The cells of a design, each with its config composed, checked and frozen before any starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from keyseg.config import (
    NOT_IN_SIGNATURE,
    ConfigError,
    RunConfig,
    resolve_path,
    signature,
    validate,
)
from keyseg.runs import targets, trunk
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.design import Design, Point

Compose = Callable[[Sequence[str]], DictConfig]
"""From the overrides of a cell to its composed config."""


@dataclass(frozen=True)
class Cell:
    """One point of a sweep with its frozen config. `path`: its run directory.

    `rerun`: it is to run again though there are results.
    """

    signature: str
    label: str
    point: Point
    config: RunConfig
    path: Path
    rerun: bool = False

    @property
    def title(self) -> str:
        """Label and seed: unique within a sweep."""
        return f"{self.label} · seed {self.config.seed}"

    def open(self) -> RunDirectory:
        """The run directory as it is."""
        return RunDirectory(self.path)

    def create(self) -> RunDirectory:
        """The run directory, made where it is missing."""
        return RunDirectory.create(
            self.path,
            self.config,
            label=self.label,
            factors=self.point.factors,
            sweep=self.path.parent.name,
        )


def freeze(design: Design, compose: Compose) -> list[Cell]:
    """Compose and check the config of every cell.

    Raises:
        ConfigError: a cell's config is wrong, or two cells are the same run; names the overrides.
    """
    cells: list[Cell] = []
    first: dict[str, Point] = {}
    for point in design.points:
        try:
            config = frozen(compose(point.overrides))
        except ConfigError as error:
            raise ConfigError(f"cell {' '.join(point.overrides)}: {error}") from error
        cell = cell_of(config, point, design.name)
        if cell.signature in first:
            raise ConfigError(
                f"two cells are the same run: '{' '.join(first[cell.signature].overrides)}' and "
                f"'{' '.join(point.overrides)}' (a value given twice, or a key that cannot change "
                f"a result: {', '.join(NOT_IN_SIGNATURE)})"
            )
        first[cell.signature] = point
        cells.append(cell)
    return cells


def in_turn(cells: Sequence[Cell]) -> list[Cell]:
    """The order in which cells start: as in the design, small budgets of a trunk before large ones.

    A cell goes on from where the next smaller budget began to decay (`runs.trunk`), if that cell
    has come so far. Cells of other trunks stand between the two, so that nobody has to wait.
    """
    return sorted(cells, key=lambda c: c.config.optim.steps if trunk.key(c.config) else 0)


def cell_of(config: RunConfig, point: Point, sweep: str) -> Cell:
    """The cell of a frozen config in the folder of a sweep."""
    key = signature(config)
    return Cell(key, point.label, point, config, resolve_path(config.paths.outputs) / sweep / key)


def frozen(composed: DictConfig) -> RunConfig:
    """A composed config, checked, without what concerns this invocation only.

    `rerun`, `stale`, `reuse`, `dry` and `detach` are orders to whoever starts the run; a worker
    that goes on after it was killed must not read them again.
    """
    config = validate(composed)
    targets.trust(config)
    config.rerun = config.dry = config.detach = False
    config.stale, config.reuse = "ask", True
    return config
