"""Wall time of a sweep with and without what its cells share, and of a cell as they grow in number.

    python benchmarks/sweep.py                       fusion=cross,self,full, then 1, 3, 6, 12 cells
    python benchmarks/sweep.py --counts 1 3 6        half of the time
    python benchmarks/sweep.py --steps 100 --test    as long as the default's cells

Shared: what the frozen encoders see (each image once for all cells, from an empty store), imports,
data and backbones (a worker takes several cells). Not shared: the encoders in every step of every
cell, a process for each cell. The same command line through the local launcher, alternately, in one
run; scenes are drawn before the clock starts; no report, no MLflow, no test split without --test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from pair import PAIR

from keyseg.config import PROJECT, resolve_path, validate
from keyseg.data.mix import prepare
from keyseg.runs.run_directory import DONE, RunDirectory

COUNTS = (1, 3, 6, 12)
VARIANTS = "fusion=cross,self,full"


def seconds(overrides: list[str], cells: int, root: str, *, shared: bool) -> float:
    """Of one sweep, from the command to its end."""
    slots = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(PROJECT / "run.py"),
            "-m",
            *PAIR,
            *overrides,
            "name=bench",
            "hydra/launcher=local",
            "hydra.launcher.report=false",
            f"hydra.launcher.cells_per_job={-(-cells // slots) if shared else 1}",
            f"runtime.features={str(shared).lower()}",
            "runtime.show_progress=false",
            f"paths.data={folder}/data",
            f"paths.outputs={folder}/outputs",
            f"data.root={root}",
        ]
        start = time.perf_counter()
        done = subprocess.run(
            command,
            env={**os.environ, "MLFLOW_TRACKING_URI": "none"},
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.perf_counter() - start
        runs = Path(folder).glob("outputs/bench/*/run.json")
        finished = sum(RunDirectory(file.parent).status == DONE for file in runs)
    if done.returncode or finished != cells:
        raise RuntimeError(
            f"{finished} of {cells} cells: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return taken


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--val-images", type=int, default=20)
    parser.add_argument("--test", action="store_true", help="read the test split, too")
    parser.add_argument("--counts", type=int, nargs="*", default=list(COUNTS))
    options = parser.parse_args()
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", [*PAIR]))
    prepare(cfg.data)
    root = str(resolve_path(cfg.data["root"]))
    few = [f"optim.steps={options.steps}", f"evaluation.val_images={options.val_images}"]
    few += ["optim.eval_every=1000", f"optim.warmup={options.steps // 10}"]
    few += [] if options.test else ["evaluation.protocols=[]"]
    result: dict[str, Any] = {"benchmark": "sweep", "device": "cpu", "cores": os.cpu_count()}
    result |= {"steps": options.steps, "command": " ".join(sys.argv)}
    for name, shared in (("apart", False), ("shared", True)):
        result[f"variants_{name}_seconds"] = seconds([VARIANTS, *few], 3, root, shared=shared)
    result["variants_times"] = result["variants_apart_seconds"] / result["variants_shared_seconds"]
    print(f"{VARIANTS}: {result['variants_times']:.2f} times as fast shared")
    print("cells   seconds a cell: apart, shared")
    result["seconds_a_cell"] = {}
    for count in options.counts:
        seeds = "seed=" + ",".join(map(str, range(count)))
        grid = [seeds if count > 1 else "fusion=full", *few]
        pair = [seconds(grid, count, root, shared=shared) / count for shared in (False, True)]
        result["seconds_a_cell"][str(count)] = dict(zip(("apart", "shared"), pair, strict=True))
        print(f"{count:5}   {pair[0]:8.1f} {pair[1]:8.1f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
