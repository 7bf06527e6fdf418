"""How busy the tuner keeps its workers, beside a tuner that waits for whole batches.

    python benchmarks/tuner.py                 200 trials, 8 workers, log-normal durations

Both run the project's controller, journal and sampler on the same durations and the same analytic
objective; only the clock is virtual, so that hours of trials take a minute. The alternative asks
for the next batch when the last cell of the one before has ended, which is what the public Optuna
sweeper does. Prints utilisation, time to the same best value, and what the controller itself costs,
also with 1,000 trials in the study already.

The last trials of any budget run out one by one. How much of the workers' time that takes depends
on the durations alone; it is given for many draws of them, from a plain list schedule.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from optuna import Trial
from optuna.trial import create_trial
from pair import PAIR

from keyseg.config import PROJECT, signature
from keyseg.runs.run_directory import DONE, Row, RunDirectory, now
from keyseg.sweep.cells import Cell, frozen
from keyseg.sweep.compose import Composer
from keyseg.sweep.design import Point
from keyseg.sweep.pool import Ended
from keyseg.sweep.tune import samplers, storage
from keyseg.sweep.tune.control import Controller
from keyseg.sweep.tune.options import options
from keyseg.sweep.tune.space import split
from keyseg.sweep.tune.studies import WARM, Arm, questions

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
    kind: type[Controller],
    root: Path,
    workers: int,
    durations: np.ndarray,
    seed: int,
    *,
    history: int = 0,
) -> tuple[VirtualPool, float]:
    """One study; its pool, and seconds of CPU of the controller per trial.

    `history`: trials that are in the study before.
    """
    given = options({"n_trials": len(durations)})
    space, fixed = split(OverridesParser.create().parse_overrides(list(SPACE)))
    (question,) = questions(space, fixed, None)

    def composed(overrides: Sequence[str]) -> DictConfig:
        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            return compose("config", [*PAIR, *overrides])

    base, composer = composed([]), Composer(composed)
    root.mkdir()
    store = storage.open_storage(root, None)
    pruner = samplers.pruner(given, 1, 1)
    study = storage.open_study(store, "benchmark", given, space, pruner, "base")
    arm = Arm(question, study, given, seed, base)
    fill(arm, history, np.random.default_rng(seed))

    def make_cell(arm: Arm, trial: Trial) -> Cell:
        overrides = arm.draw(trial)
        config = frozen(composer(overrides))
        key = signature(config)
        point = Point(f"trial {trial.number}", dict(trial.params), 0, overrides)
        return Cell(key, point.label, point, config, root / key)

    pool: Any = VirtualPool(workers, durations)
    controller = kind([arm], pool, make_cell, width=workers)
    poll, worked = pool.poll, 0.0

    def timed() -> list[Ended]:
        nonlocal worked
        began = time.process_time()
        ended = poll()
        worked += time.process_time() - began
        return ended

    pool.poll = timed
    began = time.process_time()
    while controller.active:
        controller.step()
        pool.advance()
    return pool, (time.process_time() - began - worked) / len(durations)


def fill(arm: Arm, count: int, rng: np.random.Generator) -> None:
    """Add trials that somebody else has paid for, with values drawn at random."""
    kinds: dict[str, Any] = {d.key: d.distribution for d in arm.question.space}
    for _ in range(count):
        params = {
            key: float(np.exp(rng.uniform(np.log(d.low), np.log(d.high))))
            for key, d in kinds.items()
        }
        arm.study.add_trial(
            create_trial(
                params=params, distributions=kinds, value=rng.uniform(), user_attrs={WARM: "x"}
            )
        )


def scheduled(durations: np.ndarray, workers: int) -> float:
    """Utilisation where each worker takes the next duration the moment it is free."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + float(duration))
    return float(durations.sum()) / (workers * max(free))


def main() -> None:
    """Run both on the same durations and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=5.0, help="median of a trial")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of durations")
    parser.add_argument("--history", type=int, default=1000, help="trials before the overhead's")
    parser.add_argument("--draws", type=int, default=100, help="of durations, for the schedule")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    durations = 60 * given.minutes * rng.lognormal(0, given.sigma, given.trials)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (("as they end", Controller), ("in batches", BatchController)):
            root = Path(folder) / name.replace(" ", "-")
            found[name] = tune(kind, root, given.workers, durations, given.seed)
        _, later = tune(
            Controller,
            Path(folder) / "later",
            given.workers,
            durations[:50],
            given.seed,
            history=given.history,
        )
    target = min(max(value for _, value in pool.ended) for pool, _ in found.values())
    result: dict[str, Any] = dict(vars(given))
    result["target_giou"] = target
    print(f"{given.trials} trials, {given.workers} workers, sigma {given.sigma}, seed {given.seed}")
    for name, (pool, seconds) in found.items():
        # The last trials of any study run out one by one; until then every worker has work.
        last_start = max(begin for begin, _ in pool.spans)
        row = {
            "utilisation": pool.busy / (given.workers * pool.clock),
            "until_last_start": sum(
                min(end, last_start) - min(begin, last_start) for begin, end in pool.spans
            )
            / (given.workers * last_start),
            "minutes": pool.clock / 60,
            "minutes_to_target": next(m for m, value in pool.ended if value >= target) / 60,
            "cpu_ms_per_trial": 1000 * seconds,
        }
        result[name] = row
        print(
            f"{name:12}  utilisation {row['utilisation']:.1%} (until the last trial starts "
            f"{row['until_last_start']:.1%})  all after {row['minutes']:.1f} min  "
            f"gIoU {target:.4f} after {row['minutes_to_target']:.1f} min  "
            f"controller {row['cpu_ms_per_trial']:.1f} ms CPU a trial"
        )
    ours, theirs = (found[name][0] for name in found)
    result["ratio_of_total_time"] = theirs.clock / ours.clock
    result["ratio_of_time_to_target"] = (
        result["in batches"]["minutes_to_target"] / result["as they end"]["minutes_to_target"]
    )
    print(f"ratio of total time {result['ratio_of_total_time']:.2f}")
    print(f"ratio of time to the same value {result['ratio_of_time_to_target']:.2f}")
    result["cpu_ms_per_trial_with_history"] = 1000 * later
    print(f"controller with {given.history} trials in the study {1000 * later:.1f} ms CPU a trial")
    schedule = {}
    for trials in (given.trials, 5 * given.trials):
        drawn = [
            scheduled(np.random.default_rng(i).lognormal(0, given.sigma, trials), given.workers)
            for i in range(given.draws)
        ]
        schedule[trials] = {"mean": float(np.mean(drawn)), "sd": float(np.std(drawn, ddof=1))}
        print(
            f"a schedule without a gap, {trials} trials, {given.draws} draws of durations: "
            f"utilisation {np.mean(drawn):.1%} ± {np.std(drawn, ddof=1):.1%}"
        )
    result["schedule"] = schedule
    print(json.dumps(result))


if __name__ == "__main__":
    main()
