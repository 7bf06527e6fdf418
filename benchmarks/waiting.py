"""What logging, tracking and checkpoints cost a training step.

    python benchmarks/waiting.py                            model=tiny on the CPU
    python benchmarks/waiting.py --overrides model=llava_1_5_7b model.init=random \\
        prompt=lisa data=refcocog --steps 20                on a GPU

The same cell is trained twice, in turns of an interval each: bare (nothing is logged, written or
watched), and with all that a run does: a log of every `runtime.log_every` steps into the run
directory, mirrored to MLflow in a SQLite file, the machine's load watched, a checkpoint in every
interval. Val is left out of both. Two figures: the ratio of seconds a step, and the share of the
training that its own thread spends on logs and checkpoints, which the machine's other work blurs
less. On a GPU, also how often an interval waits for the device. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from pair import PAIR

from keyseg.config import PROJECT, RunConfig, validate
from keyseg.data import reading
from keyseg.data.ahead import ahead
from keyseg.data.mix import ImageSampler
from keyseg.runs.provenance import attempt, record
from keyseg.runs.run_directory import RUNNING, Row, RunDirectory, now
from keyseg.tracking.background import mirror
from keyseg.train.build import build
from keyseg.train.device import pick_device
from keyseg.train.trainer import Trainer
from keyseg.worker import system_load


class Arm:
    """A cell that is trained, an interval at a time."""

    def __init__(self, cfg: RunConfig, folder: Path) -> None:
        self.cfg, self.run = cfg, RunDirectory.create(folder, cfg)
        torch.manual_seed(cfg.seed)
        parts = build(cfg, pick_device(cfg.runtime.device))
        optim = cfg.optim
        sampler = ImageSampler(
            reading.read(cfg.data).train, 0, optim.images_per_step, optim.expressions_per_image
        )
        self.trainer = Trainer(parts, sampler, cfg, self.run.checkpoints)
        self.beside: list[float] = []
        """Seconds that the training's thread spent on logs and checkpoints, by interval."""

    def interval(self, steps: int, *, log: bool) -> float:
        """Seconds of so many steps, as `Trainer.fit` takes them."""
        trainer, beside = self.trainer, 0.0
        trainer.model.train()
        batches = ahead(trainer._make_batches, range(trainer.step + 1, trainer.step + steps + 1))
        start = time.perf_counter()
        for batch in batches:
            trainer.step += 1
            trainer._train_step(batch)
            begun = time.perf_counter()
            if log and trainer._count == self.cfg.runtime.log_every:
                for value in trainer._log(1.0):
                    self.run.log([Row(*value, now())])
            if log and trainer.step % steps == 0:
                trainer._save_last()
            beside += time.perf_counter() - begun
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
        trainer._await_checkpoint()
        self.beside.append(beside / taken)
        return taken


def waits(arm: Arm, steps: int) -> int:
    """How often an interval with its logs waits for the GPU; its checkpoint is left out."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer = arm.trainer
        for batch in ahead(trainer._make_batches, range(trainer.step, trainer.step + steps)):
            trainer._train_step(batch)
        list(trainer._log(1.0))
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def followed(run: RunDirectory) -> Iterator[Any]:
    """What follows a run that is at work."""
    run.update(status=RUNNING, attempts=[attempt(record(run), 0)])
    yield mirror(run)
    yield system_load.watch(run)


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25, help="of an interval (25)")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", [*PAIR, "optim.steps=100000", *options.overrides]))
    if cfg.runtime.threads:
        torch.set_num_threads(cfg.runtime.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        bare, full = (Arm(cfg, Path(folder) / "sweep" / name) for name in ("bare", "full"))
        times: dict[str, list[float]] = {"bare": [], "full": []}
        for turn in range(options.rounds + 1):
            pair = {}
            for name in ("bare", "full") if turn % 2 else ("full", "bare"):
                with ExitStack() as held:
                    for context in followed(full.run) if name == "full" else ():
                        held.enter_context(context)
                    arm = {"bare": bare, "full": full}[name]
                    pair[name] = arm.interval(options.steps, log=name == "full")
            print({name: round(taken / options.steps, 4) for name, taken in pair.items()})
            if turn:  # the first round warms up
                for name, taken in pair.items():
                    times[name].append(taken / options.steps)
        gpu = bare.trainer.device.type == "cuda"
        result: dict[str, Any] = {"waits_an_interval": waits(full, options.steps) if gpu else None}
    ratios = [f / b for f, b in zip(times["full"], times["bare"], strict=True)]
    share = full.beside[1:]
    result |= {
        "benchmark": "waiting",
        "device": torch.cuda.get_device_name() if gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "model": cfg.model.name,
        "steps_an_interval": options.steps,
        "log_every": cfg.runtime.log_every,
        "rounds": options.rounds,
        "seconds_per_step": {name: statistics.median(taken) for name, taken in times.items()},
        "times": statistics.median(ratios),
        "times_lowest": min(ratios),
        "times_highest": max(ratios),
        "share_beside": statistics.median(share),
        "share_beside_highest": max(share),
    }
    print(
        f"{result['times']:.3f} times the bare step [{min(ratios):.3f}, {max(ratios):.3f}]; "
        f"logs and checkpoints take {result['share_beside']:.2%} of the training's own thread"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
