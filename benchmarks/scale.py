"""What a sweep of hundreds or thousands of cells costs those who start it and look at it.

    python benchmarks/scale.py                            100, 300, 1,000 and 3,000 cells
    python benchmarks/scale.py --cells 1000 --seconds 60

Cells on the embedded weights, all done, with the files that a real one leaves (results made up:
they are counted, not read). Seconds of CPU, child processes included, of: the same command again,
which composes, freezes and looks at every cell (no report); `keyseg status` of the sweep, and of
all sweeps, a line each; `keyseg sync` of runs that are level with a SQLite store. And the share of
a core that following them takes while 64 are at work and the others wait, the commands of SLURM
left out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from pair import PAIR
from rich.console import Console

from keyseg.config import PROJECT
from keyseg.runs import code, convergence, sweep_directory
from keyseg.runs.run_directory import DONE, RUNNING, Row, RunDirectory, now
from keyseg.sweep.cells import Cell, freeze
from keyseg.sweep.compose import Composer
from keyseg.sweep.design import read_design, to_json
from keyseg.sweep.launcher import supervise
from keyseg.sweep.slurm.pool import SlurmPool
from keyseg.sweep.slurm.queue import Job, Key
from keyseg.sweep.supervise import Supervisor

FUSIONS = ("seg_only", "self", "cross", "full")
AT_WORK = 64
NAME = "scale"
STORE = "MLFLOW_TRACKING_URI"


def cells_of(outputs: Path, count: int) -> list[Cell]:
    """The cells of the sweep, with sweep.json."""
    paths = [*PAIR, f"paths.outputs={outputs}"]
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", paths, RunMode.MULTIRUN)

        def compose(overrides: Any) -> DictConfig:
            config = loader.load_sweep_config(master, [*paths, *overrides])
            with open_dict(config):
                config.pop("hydra", None)
            return config

        seeds = range(count // len(FUSIONS))
        plan = read_design(
            [[f"seed={s}", f"fusion={f}"] for s in seeds for f in FUSIONS], name=NAME
        )
        cells = freeze(plan, Composer(compose))
    signatures = [cell.signature for cell in cells]
    numbers = [cell.config.seed for cell in cells]
    (outputs / NAME).mkdir(parents=True)
    sweep_directory.write(outputs / NAME, to_json(plan, signatures, numbers, "", now()))
    return cells


def finish(cell: Cell) -> None:
    """Leave what a cell leaves that is done."""
    run = cell.create()
    began = now() - 600
    steps = cell.config.optim.steps
    every = range(steps // 40, steps + 1, max(1, steps // 40))
    names = ("loss", "text", "bce", "dice", "keyword", "lr", "seconds_per_step", "grad_norm")
    rows = [Row(f"train/{name}", 1 / step, step, began + step) for step in every for name in names]
    scores = ("giou", "ciou", "precision@0.5", "precision@0.9", "keyword_accuracy")
    evaluated = range(0, steps + 1, max(1, steps // 10))
    rows += [Row(f"val/{name}", 0.3, step, began + step) for step in evaluated for name in scores]
    run.log(sorted(rows, key=lambda row: row.step))
    code.record(run, cell.config)
    attempt = {"started": began, "ended": began + 500, "seconds": 500.0, "outcome": DONE}
    layer = {"module": "x" * 60, "parameters": 10**6, "trainable": True, "dtype": "float32"}
    run.update(
        status=DONE,
        attempts=[attempt],
        minutes=8.3,
        threads=1,
        manifest=[layer] * 40,
        summary={"teacher_forced": dict.fromkeys(scores, 0.3)},
        convergence=convergence.of_rows(run.rows(), run.info).to_json(),
    )


def cpu_of(*command: str, store: str, progress: bool = False) -> dict[str, float]:
    """Seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env={**os.environ, STORE: store, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": round(used, 2), "wall": round(time.monotonic() - began, 2)}


def make_level(outputs: Path, cells: list[Cell], store: str) -> None:
    """Send two of the runs; the others are noted as if they had been sent, too."""
    os.environ[STORE] = store
    from keyseg.tracking import parent_run, sync

    parent_run.start(outputs / NAME)
    runs = [RunDirectory(file.parent) for file in sorted((outputs / NAME).glob("*/run.json"))]
    for run in (runs[0], runs[-1]):
        sync.sync(run)
    sent = json.loads((runs[0].path / "mlflow.json").read_bytes())
    for run in runs[1:-1]:
        run.update(mlflow_run_id=sent["run_id"])
        (run.path / "mlflow.json").write_text(json.dumps(sent | {"level": sync._fingerprint(run)}))


def follow(outputs: Path, cells: list[Cell], seconds: float) -> float:
    """Share of a core of a process that follows cells on a cluster."""
    jobs: dict[Key, Job] = {}
    until = float("inf")

    def submit(name: str, asked: Any) -> None:
        for index in range(len(asked)):
            state = RUNNING.upper() if len(jobs) < AT_WORK else "PENDING"
            jobs[name, index] = Job(f"7_{index}", state, "n1", "None")

    def look(names: set[str]) -> Mapping[Key, Job]:
        if time.monotonic() > until:
            raise KeyboardInterrupt
        return jobs

    pool = SlurmPool(
        submit, outputs / NAME, slots=AT_WORK, threads=1, look=look, max_array=lambda: 1000
    )
    supervisor = Supervisor(pool)
    for cell in cells:
        supervisor.add(cell)
    supervisor.step()
    supervisor.step()  # submitted
    for cell in cells[:AT_WORK]:
        cell.open().update(status=RUNNING, attempts=[{"started": now()}])
    with Path(os.devnull).open("w") as nowhere, suppress(KeyboardInterrupt):
        used, until = time.process_time(), time.monotonic() + seconds
        supervise(supervisor, pool, cells, "", Console(file=nowhere))
    return round(100 * (time.process_time() - used) / seconds, 2)


def measure(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """All figures for so many cells."""
    outputs = folder / f"done{count}"
    cells = cells_of(outputs, count)
    for cell in cells:
        finish(cell)
    seeds = f"seed=range(0,{count // len(FUSIONS)})"
    look = cpu_of(
        "run.py",
        "-m",
        *PAIR,
        seeds,
        f"fusion={','.join(FUSIONS)}",
        f"name={NAME}",
        f"paths.outputs={outputs}",
        "hydra/launcher=local",
        "hydra.launcher.report=false",
        store="none",
    )
    keyseg = ("-m", "keyseg", "--outputs", str(outputs))
    status = cpu_of(*keyseg, "status", NAME, store="none")
    overview = cpu_of(*keyseg, "status", store="none")
    store = f"sqlite:///{folder / f'{count}.db'}"
    make_level(outputs, cells, store)
    sync = cpu_of(*keyseg, "sync", NAME, store=store)
    waiting = folder / f"wait{count}"
    share = follow(waiting, cells_of(waiting, count), seconds)
    one = {"look": look, "status": status, "overview": overview, "sync": sync}
    return {**one, "follow_percent": share}


def main() -> None:
    """Print a line for each number of cells, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--seconds", type=float, default=30.0, help="of following")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in options.cells:
            found[count] = one = measure(Path(folder), count, options.seconds)
            glance = one["overview"]
            print(
                f"{count} cells: look {one['look']['cpu']} s of CPU, status "
                f"{one['status']['cpu']} s (of all sweeps {glance['cpu']} s, {glance['wall']} s by "
                f"the clock), sync {one['sync']['cpu']} s, following {one['follow_percent']} % of "
                "a core",
                flush=True,
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
