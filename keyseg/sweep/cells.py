"""The cells of a design, each with its config composed, checked and frozen before any starts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from keyseg.config import (
    NOT_IN_SIGNATURE,
    PROTOCOLS,
    ConfigError,
    RunConfig,
    resolve_path,
    signature,
    validate,
)
from keyseg.runs import targets, trunk
from keyseg.runs.run_directory import RunDirectory
from keyseg.runs.titles import title_of
from keyseg.sweep import start
from keyseg.sweep.design import Design, Point

Composed = Callable[[Sequence[str]], DictConfig | RunConfig]
"""From the overrides of a cell to its config, composed, or checked, too."""

Say = Callable[[str], None]
"""Shows a line to the user."""


class Progress:
    """Says `composing cells: 40 of 200` every few seconds."""

    every = 3.0  # seconds

    def __init__(self, what: str, total: int, say: Say) -> None:
        self._what, self._total, self._say = what, total, say
        self._count, self._said = 0, time.monotonic()

    def step(self) -> None:
        """The next one begins."""
        if time.monotonic() - self._said > self.every:
            self._said = time.monotonic()
            self._say(f"{self._what}: {self._count} of {self._total}")
        self._count += 1


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
        return title_of(self.label, self.config.seed)

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

    def begin(self) -> RunDirectory | None:
        """`create`, with nothing in it where the cell is to run again.

        None while another process works on it.
        """
        if self.rerun and self.path.is_symlink():
            self.path.unlink()  # to the run of another sweep, which keeps its results
        run = self.open()
        if run.busy:
            return None
        if self.rerun and run.path.exists():
            run.begin_anew()
            trunk.forget(run, self.config)
        return self.create()


def freeze(design: Design, compose: Composed, say: Say = lambda text: None) -> list[Cell]:
    """Compose and check the config of every cell; `say` hears of it where that takes long.

    Raises:
        ConfigError: a cell's config is wrong, or two cells are the same run; names the overrides.
    """
    cells: list[Cell] = []
    first: dict[str, Point] = {}
    progress = Progress("composing cells", len(design.points), say)
    for point in design.points:
        progress.step()
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


GIVEN, BY_SEED = "given", "by_seed"
ORDERS = (GIVEN, BY_SEED)
"""As in the design; or all variants of one seed before the next seed, shuffled within a seed."""


def in_turn(cells: Sequence[Cell], order: str = GIVEN) -> list[Cell]:
    """The order in which cells start: by `order`, small budgets of a trunk before large ones.

    By seed, a sweep that is slow or interrupted has an even picture early, and no variant always
    starts first. The same cells are always shuffled in the same way.

    A cell goes on from where the next smaller budget began to decay (`runs.trunk`), if that cell
    has come so far. Cells of other trunks stand between the two, so that nobody has to wait.
    """
    started = _by_seed(cells) if order == BY_SEED else cells
    return sorted(started, key=lambda c: c.config.optim.steps if trunk.key(c.config) else 0)


def _by_seed(cells: Sequence[Cell]) -> list[Cell]:
    seeds: dict[int, list[Cell]] = {}
    for cell in cells:
        seeds.setdefault(cell.config.seed, []).append(cell)
    for seed, group in seeds.items():
        group.sort(key=lambda cell: cell.signature)  # shuffled alike, in whatever order they came
        random.Random(seed).shuffle(group)
    return [cell for group in seeds.values() for cell in group]


def cell_of(config: RunConfig, point: Point, sweep: str) -> Cell:
    """The cell of a frozen config in the folder of a sweep."""
    key = signature(config)
    return Cell(key, point.label, point, config, resolve_path(config.paths.outputs) / sweep / key)


def check_scored(cells: Iterable[Cell]) -> None:
    """Whether the cells of a sweep, or a run of its own, will have scores: a tuner's trials do not.

    Raises:
        ConfigError: one will not.
    """
    for cell in cells:
        if not cell.config.evaluation.protocols:
            raise ConfigError(
                "evaluation.protocols=[]: nothing would read the test split, and the run would end "
                f"without a score: give {' or '.join(PROTOCOLS)}, or both (a tuner's trials, which "
                "have none, are told so by hydra.sweeper.trial_overrides; a sweep of which val is "
                "all you want, by hydra.launcher.report=false)"
            )


def frozen(composed: DictConfig | RunConfig) -> RunConfig:
    """A composed config, checked, without what concerns this invocation only.

    One that is typed has been checked, and is changed in place. `rerun`, `stale`, `reuse`, `dry`,
    `detach`, `until` and `notify` are orders to whoever starts the run; a worker that goes on after
    it was killed must not read them again.
    """
    config = composed if isinstance(composed, RunConfig) else validate(composed)
    targets.trust(config)
    config.rerun = config.dry = config.detach = False
    config.stale, config.reuse, config.until, config.notify = "ask", True, None, None
    config.optim.steps = round(config.optim.steps * config.optim.times)
    config.optim.times = 1
    start.settle(config)
    return config
