"""How busy the tuner keeps its workers, beside a tuner that waits for whole batches.

    python benchmarks/tuner.py                 200 trials, 8 workers, log-normal durations

Both run the project's controller, journal and sampler on the same durations and the same analytic
objective; only the clock is virtual, so that hours of trials take a minute. The alternative asks
for the next batch when the last cell of the one before has ended, which is what the public Optuna
sweeper does. Prints utilisation, time to the same best value, and what the controller itself costs.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna import Trial

from keyseg.config import PROJECT, signature
from keyseg.rundir import DONE, Row, RunDirectory, now
from keyseg.sweep.cells import Cell, frozen
from keyseg.sweep.design import Point
from keyseg.sweep.tune import samplers, storage
from keyseg.sweep.tune.arms import Arm, questions
from keyseg.sweep.tune.control import Controller
from keyseg.sweep.tune.options import options
from keyseg.sweep.tune.quick import with_values
from keyseg.sweep.tune.space import split
from keyseg.sweep.workers import Ended

SPACE = ("loss.keyword.temperature=tag(log,interval(0.05,5))", "loss.bce=interval(0.5,8)")


def _moment(work: tuple[float, RunDirectory]) -> float:
    return work[0]


class VirtualPool:
    """Workers of a virtual clock: a cell takes its duration, and no time at all."""

    def __init__(self, slots: int, durations: np.ndarray) -> None:
        self.slots, self.durations = slots, durations
        self.clock = self.busy = 0.0
        self.started = 0
        self.ended: list[tuple[float, float]] = []
        self.spans: list[tuple[float, float]] = []
        self._at_work: list[tuple[float, RunDirectory]] = []

    def free(self) -> int:
        """How many workers have nothing to do."""
        return self.slots - len(self._at_work)

    def start(self, run: RunDirectory, *, threads: int | None = None) -> None:
        """Give a run to a worker; it will take the next duration."""
        duration = float(self.durations[self.started])
        self.started += 1
        self.busy += duration
        self.spans.append((self.clock, self.clock + duration))
        self._at_work.append((self.clock + duration, run))

    def poll(self) -> list[Ended]:
        """The worker that has ended by now."""
        if not self._at_work or min(self._at_work, key=_moment)[0] > self.clock:
            return []
        _, run = min(self._at_work, key=_moment)
        self._at_work = [work for work in self._at_work if work[1] is not run]
        loss = run.config.loss
        distance = math.log(loss.keyword.temperature / 0.3) ** 2 + math.log(loss.bce / 2) ** 2
        run.log([Row("val/giou", math.exp(-distance), 1, now())])
        run.update(status=DONE)
        self.ended.append((self.clock, math.exp(-distance)))
        return [Ended(run.path, 0)]

    def advance(self) -> None:
        """Move the clock to the next end."""
        if self._at_work:
            self.clock = min(self._at_work, key=_moment)[0]

    def stop(self) -> list[Path]:
        """Nothing runs on after the benchmark."""
        return []


class BatchController(Controller):
    """Asks for the next batch when the last cell of this one has ended."""

    def _fill(self) -> bool:
        return not self.flying and super()._fill()


def tune(
    kind: type[Controller], root: Path, workers: int, durations: np.ndarray, seed: int
) -> tuple[VirtualPool, float]:
    """One study; its pool, and real seconds of the controller per trial."""
    given = options({"n_trials": len(durations)})
    space, fixed = split(OverridesParser.create().parse_overrides(list(SPACE)))
    (question,) = questions(space, fixed, None)
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        base = compose("config")
    checked = frozen(base)
    root.mkdir()
    store = storage.open_storage(root, None)
    pruner = samplers.pruner(given, 1, 1)
    study = storage.open_study(store, "benchmark", given, space, pruner, "base")
    arm = Arm(question, study, given, seed, base)

    def make_cell(arm: Arm, trial: Trial) -> Cell:
        overrides = arm.draw(trial)
        config = with_values(checked, base, trial.params)
        assert config is not None
        key = signature(config)
        point = Point(f"trial {trial.number}", dict(trial.params), 0, overrides)
        return Cell(key, point.label, point, config, root / key)

    pool = VirtualPool(workers, durations)
    controller = kind([arm], pool, make_cell, width=workers)
    poll, worked = pool.poll, 0.0

    def timed() -> list[Ended]:
        nonlocal worked
        began = time.process_time()
        ended = poll()
        worked += time.process_time() - began
        return ended

    pool.poll = timed  # type: ignore[method-assign]
    began = time.process_time()
    while controller.active:
        controller.step()
        pool.advance()
    return pool, (time.process_time() - began - worked) / len(durations)


def main() -> None:
    """Run both on the same durations and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=5.0, help="median of a trial")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of durations")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    durations = 60 * given.minutes * rng.lognormal(0, given.sigma, given.trials)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (("as they end", Controller), ("in batches", BatchController)):
            root = Path(folder) / name.replace(" ", "-")
            found[name] = tune(kind, root, given.workers, durations, given.seed)
    target = min(max(value for _, value in pool.ended) for pool, _ in found.values())
    reached = {}
    print(f"{given.trials} trials, {given.workers} workers, sigma {given.sigma}, seed {given.seed}")
    for name, (pool, seconds) in found.items():
        reached[name] = next(moment for moment, value in pool.ended if value >= target)
        # The last trials of any study run out one by one; until then every worker has work.
        last_start = sorted(moment for moment, _ in pool.ended)[-given.workers]
        used = pool.busy / (given.workers * pool.clock)
        steady = sum(
            min(moment, last_start) - min(begin, last_start) for begin, moment in pool.spans
        ) / (given.workers * last_start)
        print(
            f"{name:12}  utilisation {100 * used:5.1f} % (before the last trials run out "
            f"{100 * steady:5.1f} %)  all after {pool.clock / 60:7.1f} min  "
            f"gIoU {target:.4f} after {reached[name] / 60:7.1f} min  "
            f"controller {1000 * seconds:.1f} ms CPU a trial"
        )
    first, second = (found[name][0].clock for name in found)
    print(f"ratio of total time {second / first:.2f}")
    print(f"ratio of time to the same value {reached['in batches'] / reached['as they end']:.2f}")


if __name__ == "__main__":
    main()
