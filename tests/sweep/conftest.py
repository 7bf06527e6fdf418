import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from keyseg.config import signature
from keyseg.sweep.cells import Cell, frozen
from keyseg.sweep.design import Point
from keyseg.sweep.local.pool import LocalPool
from keyseg.sweep.supervise import Supervisor
from keyseg.sweep.tune import enqueue, samplers, storage
from keyseg.sweep.tune.control import Controller
from keyseg.sweep.tune.options import options
from keyseg.sweep.tune.prune import Judge
from keyseg.sweep.tune.space import split
from keyseg.sweep.tune.studies import Arm, questions

WORKER = (sys.executable, str(Path(__file__).with_name("cell_stub.py")))
ANALYTIC = (sys.executable, "-S", "-E", str(Path(__file__).with_name("analytic_worker.py")))
SPACE = ("loss.keyword.temperature=tag(log,interval(0.05,5))", "loss.bce=interval(0.5,8)")


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
        return {o.cell.signature: "found" if o.before else o.status for o in supervisor.outcomes}

    return finish


class Bench:
    """A study in a folder, and controllers of it that come and go."""

    def __init__(
        self, root: Path, base, texts=SPACE, *, worker=ANALYTIC, hook=None, **values
    ) -> None:
        self.root = root
        self.worker = worker
        self.hook = hook
        self.base = OmegaConf.create(OmegaConf.to_container(base))
        self.options = options({"n_trials": 8, **values})
        space, fixed = split(OverridesParser.create().parse_overrides(list(texts)))
        self.questions = questions(space, fixed, self.options.tune_per)

    def arms(self) -> list[Arm]:
        self.root.mkdir(exist_ok=True)
        store = storage.open_storage(self.root, self.options.storage)
        found = []
        for q in self.questions:
            pruner = samplers.pruner(self.options, 4, 1)
            study = storage.open_study(store, f"t{q.label}", self.options, q.space, pruner, "base")
            found.append(Arm(q, study, self.options, 0, self.base, self.hook))
            enqueue.enqueue(found[-1], self.options)
        return found

    def cell(self, arm: Arm, trial: optuna.Trial) -> Cell:
        overrides = arm.draw(trial)
        config = self.base.copy()
        for override in OverridesParser.create().parse_overrides(
            [o for o in [*arm.question.fixed, *overrides] if not o.startswith("fusion")]
        ):
            OmegaConf.update(config, override.key_or_group, override.value())
        checked = frozen(config)
        key = signature(checked)
        point = Point(f"{arm.label} {trial.number}", dict(trial.params), 0, overrides)
        return Cell(key, point.label, point, checked, self.root / arm.label / key)

    def controller(self, workers: int = 1) -> Controller:
        pool = LocalPool(workers, 1, worker=self.worker, grace=5)
        judge = Judge(self.options) if self.options.pruner != "none" else None
        return Controller(
            self.arms(),
            pool,
            self.cell,
            width=workers,
            judge=judge,
            same_errors=self.options.same_errors,
            max_failure_rate=self.options.max_failure_rate,
        )

    def run(
        self, workers: int = 1, each=lambda controller: None, *, patience: float = 120
    ) -> list[optuna.trial.FrozenTrial]:
        controller = self.controller(workers)
        controller.adopt()
        deadline = time.monotonic() + patience
        try:
            while controller.active:
                assert time.monotonic() < deadline, "waited too long"
                controller.step()
                each(controller)
                time.sleep(0.002)
        except BaseException:
            controller.supervisor.stop()
            raise
        return [t for arm in controller.arms for t in arm.study.trials]

    def starts(self) -> dict[str, int]:
        return {
            f.parent.name: len(f.read_text().splitlines()) for f in self.root.glob("**/starts.txt")
        }


@pytest.fixture
def make_bench() -> type[Bench]:
    """Studies in any folder, of any config."""
    return Bench


@pytest.fixture
def bench(tmp_path, compose_run) -> Callable[..., Bench]:
    """A study of the default config; workers score by a formula (analytic_worker.py)."""
    return functools.partial(Bench, tmp_path / "s", OmegaConf.structured(compose_run()))
