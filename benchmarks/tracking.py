"""What tracking costs a run, and what a tracking server on PostgreSQL takes from 32 runs at once.

    python benchmarks/tracking.py                     PostgreSQL needed for the second half

Training: the same real cell without MLflow, with a SQLite file, and with a server that takes
connections and never answers; in turns, because the machine's speed drifts. Server: 32 runs log as
fast as a tiny cell does, each with its mirror; beside them the same runs without MLflow. The last
line is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from pair import PAIR

from keyseg.config import PROJECT, RunConfig, validate
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import Row, RunDirectory, now
from keyseg.tracking import parent_run, sync
from keyseg.tracking.background import mirror

sys.path.insert(0, str(PROJECT))
from tests.tracking_server import missing, tracking_server

RUNS, STEPS, PAUSE = 32, 100, 0.1
"""Of the second half: runs at once, steps of each, seconds a step."""

NAMES = ("loss", "text", "bce", "dice", "keyword", "lr", "seconds_per_step")


def config(*overrides: str) -> RunConfig:
    """A cell on the bundled weights and a dozen pictures."""
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        return validate(compose("config", [*PAIR, *overrides]))


def small(folder: Path, steps: int) -> RunConfig:
    """The cell of the first half: a row of every kind at every step."""
    counts = "{train: 8, val: 2, test: 2}"
    return config(
        f"data.root={folder / 'scenes'}",
        f"data.prepare.refer={counts}",
        f"data.prepare.reason={counts}",
        f"optim.steps={steps}",
        "optim.images_per_step=2",
        "runtime.log_every=1",
        "runtime.threads=1",
        "runtime.device=cpu",
        f"optim.eval_every={steps}",
        "evaluation.protocols=[teacher_forced]",
    )


@contextmanager
def hanging() -> Iterator[str]:
    """Address of a server that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def train(folder: Path, cfg: RunConfig, store: str) -> tuple[float, float]:
    """Seconds a step, and seconds of the whole process, of a cell in a process of its own."""
    run = RunDirectory.create(folder, cfg)
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "keyseg.worker", str(run.path)],
        env={**os.environ, "MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return float(run.info["seconds_per_step"]), time.monotonic() - begun


def training(folder: Path, rounds: int, steps: int) -> dict[str, Any]:
    """The first half."""
    cfg = small(folder, steps)
    took: dict[str, list[tuple[float, float]]] = {}
    with hanging() as dead:
        stores = {"none": "none", "sqlite": f"sqlite:///{folder / 'mlflow.db'}", "hanging": dead}
        train(folder / "warm" / "cell", cfg, stores["sqlite"])  # makes data and tables
        for number in range(rounds):
            for name, store in stores.items():
                place = folder / f"{name}-{number}" / "cell"
                took.setdefault(name, []).append(train(place, cfg, store))
                say(f"{name}, round {number + 1}: {took[name][-1][0]:.3f} s a step")
    found: dict[str, Any] = {}
    for name, pairs in took.items():
        steps_took, whole = zip(*pairs, strict=True)
        found[name] = {
            "seconds_per_step": statistics.median(steps_took),
            "spread": [min(steps_took), max(steps_took)],
            "step_ratio_to_none": statistics.median(
                a[0] / b[0] for a, b in zip(pairs, took["none"], strict=True)
            ),
            "whole_seconds": statistics.median(whole),
        }
    return found


def log_rows(run: RunDirectory, took: list[float]) -> None:
    """What a run does with its rows; `took`: seconds of each write."""
    for step in range(1, STEPS + 1):
        begun = time.perf_counter()
        run.log([Row(f"train/{name}", 1 / step, step, now()) for name in NAMES])
        took.append(time.perf_counter() - begun)
        time.sleep(PAUSE)
    run.update(status="done", attempts=[{**run.info["attempts"][0], "ended": now()}])


def at_once(sweep: Path, cfg: RunConfig, *, mirrored: bool) -> dict[str, float]:
    """32 runs in threads: milliseconds of a write, and how late the store had everything."""
    cells = [{"signature": f"r{i}", "label": "full", "seed": i} for i in range(RUNS)]
    sweep.mkdir()
    sweep_directory.write(sweep, {"name": sweep.name, "cells": cells})
    runs = [RunDirectory.create(sweep / str(c["signature"]), cfg, label="full") for c in cells]
    for run in runs:
        run.update(signature=run.path.name, status="running", attempts=[{"started": now()}])
    if mirrored:
        parent_run.start(sweep)
    took: list[float] = []
    late: list[float] = []

    def work(run: RunDirectory) -> None:
        if not mirrored:
            log_rows(run, took)
            return
        with mirror(run, patience=600):
            log_rows(run, took)
            ended = time.monotonic()
        late.append(time.monotonic() - ended)

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    found = {"write_ms": 1000 * statistics.median(took), "seconds": seconds}
    if mirrored:
        assert all(sync.is_level(run) for run in runs), "rows are missing in the store"
        rows = RUNS * STEPS * len(NAMES)
        found |= {
            "late_seconds_median": statistics.median(late),
            "late_seconds_most": max(late),
            "rows": rows,
            "rows_per_second": rows / seconds,
        }
    return found


def server(folder: Path) -> dict[str, Any]:
    """The second half."""
    reason = missing()
    if reason:
        return {"skipped": reason}
    cfg = config()
    with tracking_server(folder) as address:
        os.environ["MLFLOW_TRACKING_URI"] = address
        found = {}
        for name in ("none", "postgres"):
            found[name] = at_once(folder / name, cfg, mirrored=name == "postgres")
            say(f"{RUNS} runs, {name}: {found[name]}")
        return found


def say(text: str) -> None:
    """Progress, beside the figures."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the training (3)")
    parser.add_argument("--steps", type=int, default=30, help="of the cell (30)")
    parser.add_argument("--only", choices=("training", "server"), help="one half")
    options = parser.parse_args()
    halves = {"training": lambda at: training(at, options.rounds, options.steps), "server": server}
    with tempfile.TemporaryDirectory(prefix="keyseg-tracking-") as name:
        found = {
            half: measure(Path(name))
            for half, measure in halves.items()
            if options.only in (None, half)
        }
    for store, figures in found.get("training", {}).items():
        print(f"{store:>8}: {figures['seconds_per_step']:.3f} s a step, ", end="")
        print(f"{figures['step_ratio_to_none']:.2f} of that without MLflow, ", end="")
        print(f"{figures['whole_seconds']:.1f} s in all")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
