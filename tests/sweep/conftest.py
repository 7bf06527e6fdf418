import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keyseg.sweep.cells import Cell
from keyseg.sweep.design import Point
from keyseg.sweep.supervise import Supervisor
from keyseg.sweep.workers import LocalPool

WORKER = (sys.executable, str(Path(__file__).with_name("cell_stub.py")))


@pytest.fixture
def make_cell(tmp_path: Path, compose_run) -> Callable[..., Cell]:
    """A cell of one fusion variant below tmp_path."""

    def make_cell(fusion: str, *overrides: str, seed: int = 0) -> Cell:
        config = compose_run(f"fusion={fusion}", f"seed={seed}", *overrides)
        name = f"{fusion}{seed}"
        point = Point(fusion, {"fusion": fusion}, seed, [])
        return Cell(name, fusion, point, config, tmp_path / "t" / name)

    return make_cell


@pytest.fixture
def pool() -> LocalPool:
    """Two workers at a time, quick ones."""
    return LocalPool(2, 1, worker=WORKER, grace=5)


@pytest.fixture
def finish() -> Callable[[Supervisor], dict[str, str]]:
    """Step a supervisor until all cells have an outcome; the outcomes by cell."""

    def finish(supervisor: Supervisor, timeout: float = 60) -> dict[str, str]:
        deadline = time.monotonic() + timeout
        while supervisor.active:
            assert time.monotonic() < deadline, "waited too long"
            supervisor.step()
            time.sleep(0.02)
        return {o.cell.signature: "found" if o.found else o.status for o in supervisor.outcomes}

    return finish
