"""The table of a tuning while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keyseg.sweep.cells import Cell
from keyseg.sweep.status import CellStatus, Watch
from keyseg.sweep.supervise import Outcome
from keyseg.sweep.tune.control import Controller


class TrialTable:
    """Rows of the table: cells in flight first; those that ended are not read again."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._watches: dict[Path, Watch] = {}
        self._ended: list[CellStatus] = []

    def rows(self, ended: Sequence[Outcome]) -> list[CellStatus]:
        """The table now; `ended`: since the last call."""
        for outcome in ended:
            watch = self._watches.pop(outcome.cell.path, None)
            watch = watch or _watch(outcome.cell)
            self._ended.append(watch.read(outcome.status))
        states = self.controller.supervisor.states()
        flying = self.controller.flying
        for path, flight in flying.items():
            if path not in self._watches:
                self._watches[path] = _watch(flight.cell)
        at_work = [self._watches[path].read(states.get(path)) for path in flying]
        return [*self._ended, *at_work]


def _watch(cell: Cell) -> Watch:
    config = cell.config
    tests = bool(config.evaluation.protocols)
    return Watch(cell.open(), cell.label, config.optim.steps, tests=tests)
