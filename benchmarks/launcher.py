"""What launching costs, beside plain submitit and beside Hydra's submitit launcher.

    python benchmarks/launcher.py                        on this machine
    python benchmarks/launcher.py --cluster slurm        on the SLURM that `sbatch` finds

The same tiny cell (bundled backbones, a dozen pictures, two steps) is launched by each in turn, all
in one run: alone, for the seconds from submission to the first step and from the cell's end to when
the launcher knows of it; and eight of them, for cells per minute, one per job and packed. Plain
submitit calls the cell's own function from a script of a few lines. Hydra's launcher is installed
from PyPI into a temporary folder (--no-hydra leaves it out). MLflow is off in all of them.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pair import PAIR

from keyseg.config import PROJECT
from keyseg.runs.run_directory import DONE, RunDirectory

SMALL = (
    "data.prepare.refer={train: 6, val: 3, test: 3}",
    "optim.steps=2",
    "optim.eval_every=2",
    "data.prepare.reason={train: 6, val: 3, test: 3}",
    "evaluation.protocols=[]",
    "optim.images_per_step=2",
    "optim.expressions_per_image=1",
    "evaluation.val_images=3",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.log_every=1",
)

PLAIN = """
import sys, time
from pathlib import Path
import submitit

def work(path):
    from keyseg.worker.cell import run_cell
    from keyseg.runs.run_directory import RunDirectory
    run_cell(RunDirectory(path))

folder, cluster, at_once, *paths = sys.argv[1:]
executor = submitit.AutoExecutor(folder, cluster=cluster)
executor.update_parameters(
    timeout_min=60, slurm_array_parallelism=int(at_once), cpus_per_task=1, mem_gb=2
)
print("submit", flush=True)
jobs = executor.map_array(work, paths)
for job in jobs:
    job.result()
    print("known", flush=True)
"""

HYDRA = """
import os, sys
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=os.environ["EXPERIMENTS"], config_name="config")
def app(cfg):
    from pathlib import Path
    from keyseg.worker.cell import run_cell
    from keyseg.runs.run_directory import RunDirectory
    from keyseg.sweep.cells import frozen
    config = frozen(cfg)
    run_cell(RunDirectory.create(Path(os.environ["RUNS"]) / str(config.seed), config))

app()
print("known", flush=True)
"""


@dataclass
class Launch:
    """One launch of some cells. Moments are seconds since the epoch."""

    submitted: float
    known: list[float]
    first_steps: list[float]
    ended: list[float]
    cpu: float
    """Seconds of all processes, the launching one among them; on a cluster only of that one."""

    @property
    def to_first_step(self) -> float:
        """Seconds from submission to the first step of the first cell."""
        return min(self.first_steps) - self.submitted

    @property
    def to_known(self) -> float:
        """Seconds from the last end of a cell to when the launcher knows of it."""
        return max(self.known) - max(self.ended)

    @property
    def cells_per_minute(self) -> float:
        """From submission until all are known."""
        return 60 * len(self.ended) / (max(self.known) - self.submitted)


class Bench:
    """A place for runs, and the three ways to launch them."""

    def __init__(self, root: Path, cluster: str, at_once: int, hydra_path: Path | None) -> None:
        self.root, self.cluster, self.at_once, self.hydra_path = root, cluster, at_once, hydra_path
        self.count = 0
        self.cpu = 0.0

    def ours(self, cells: int, per_job: int = 1) -> Launch:
        """`python run.py -m`."""
        place = self._place("ours")
        limit = "array_parallelism" if self.cluster == "slurm" else "n_jobs"
        command = [
            sys.executable,
            str(PROJECT / "run.py"),
            "-m",
            f"hydra/launcher={self.cluster}",
            f"seed={','.join(map(str, range(cells)))}",
            "fusion=self",
            "name=ours",
            f"hydra.launcher.cells_per_job={per_job}",
            f"hydra.launcher.{limit}={self.at_once}",
            "hydra.launcher.report=false",
            f"paths.outputs={place}",
            *self._small(),
        ]
        if self.cluster == "slurm":
            command += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.memory=2G"]
            command += ["hydra.launcher.features=false"]
        lines = self._run(command, place)
        submitted = next(moment for moment, line in lines if line.startswith("sweep ours"))
        known = [moment for moment, line in lines if " done after " in line]
        return self._launch(submitted, known, place.glob("ours/*/run.json"), cells)

    def plain(self, cells: int) -> Launch:
        """submitit by itself, with the function that our worker calls, too."""
        place = self._place("plain")
        runs = [RunDirectory.create(place / str(seed), self._config(seed)) for seed in range(cells)]
        (place / "plain.py").write_text(PLAIN)
        options = [str(place / "jobs"), self.cluster, str(self.at_once)]
        paths = [str(run.path) for run in runs]
        lines = self._run([sys.executable, str(place / "plain.py"), *options, *paths], place)
        submitted = next(moment for moment, line in lines if line == "submit")
        known = [moment for moment, line in lines if line == "known"]
        return self._launch(submitted, known, place.glob("*/run.json"), cells)

    def hydra(self, cells: int) -> Launch:
        """Hydra's submitit launcher, with the same function."""
        place = self._place("hydra")
        (place / "app.py").write_text(HYDRA)
        limit = [f"hydra.launcher.array_parallelism={self.at_once}"]
        command = [
            sys.executable,
            str(place / "app.py"),
            "-m",
            f"hydra/launcher=submitit_{self.cluster}",
            "hydra.launcher.timeout_min=60",
            "hydra.launcher.cpus_per_task=1",
            "hydra.launcher.mem_gb=2",
            *(limit if self.cluster == "slurm" else ()),
            f"seed={','.join(map(str, range(cells)))}",
            "fusion=self",
            f"hydra.sweep.dir={place}",
            *self._small(),
        ]
        lines = self._run(command, place)
        pickles = list(place.rglob("*_submitted.pkl"))
        submitted = min(file.stat().st_mtime for file in pickles)
        known = [moment for moment, line in lines if line == "known"]
        return self._launch(submitted, known, place.glob("*/run.json"), cells)

    # -- inside -----------------------------------------------------------------------------

    def _place(self, name: str) -> Path:
        self.count += 1
        place = self.root / f"{name}-{self.count}"
        place.mkdir()
        return place

    def _small(self) -> list[str]:
        return [*PAIR, *SMALL, f"paths.data={self.root / 'data'}"]

    def _config(self, seed: int):  # type: ignore[no-untyped-def]
        from hydra import compose, initialize_config_dir

        from keyseg.config import validate

        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            return validate(compose("config", ["fusion=self", f"seed={seed}", *self._small()]))

    def _run(self, command: Sequence[str], place: Path) -> list[tuple[float, str]]:
        """Lines that a command prints, with the moment of each."""
        paths = [str(PROJECT), *([str(self.hydra_path)] if self.hydra_path else [])]
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": "none",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "EXPERIMENTS": str(PROJECT / "experiments"),
            "RUNS": str(place),
        }
        before = _cpu_of_children()
        lines = []
        with (place / "stderr.txt").open("w") as errors:
            process = subprocess.Popen(
                command,
                cwd=place,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert process.stdout is not None
            for line in process.stdout:
                lines.append((time.time(), line.strip()))
        if process.wait() != 0:
            told = (place / "stderr.txt").read_text()[-2000:]
            raise SystemExit(f"{command}\n{told}\n" + "\n".join(text for _, text in lines[-20:]))
        self.cpu = _cpu_of_children() - before
        return lines

    def _launch(self, submitted: float, known: list[float], found, cells: int) -> Launch:  # type: ignore[no-untyped-def]
        runs = [RunDirectory(file.parent) for file in found]
        assert len(runs) == cells, f"{len(runs)} of {cells} cells ran"
        assert all(run.status == DONE for run in runs)
        firsts = [min(r.time for r in run.rows() if r.step >= 1) for run in runs]
        ended = [run.info["attempts"][-1]["ended"] for run in runs]
        return Launch(submitted, known, firsts, ended, self.cpu)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def hydra_launcher(folder: Path) -> Path | None:
    """Install Hydra's launcher into a folder; None, and a word why, where that does not work."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(folder), "hydra-submitit-launcher==1.2.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return folder
    print(f"Hydra's submitit launcher left out: {done.stderr.strip().splitlines()[-1]}")
    return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cluster", choices=("local", "slurm"), default="local")
    parser.add_argument("--repeats", type=int, default=3, help="launches of one cell by each")
    parser.add_argument("--cells", type=int, default=8, help="for cells per minute")
    parser.add_argument("--at-once", type=int, default=2, help="jobs at the same time")
    parser.add_argument("--no-hydra", action="store_true", help="leave Hydra's launcher out")
    parser.add_argument("--folder", type=Path, help="shared with the nodes (a temporary one)")
    given = parser.parse_args()
    figures: dict[str, Any] = {k: v for k, v in vars(given).items() if k != "folder"}
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        root = Path(temporary)
        hydra_path = None if given.no_hydra else hydra_launcher(root / "hydra")
        bench = Bench(root, given.cluster, given.at_once, hydra_path)
        ways = {"keyseg": bench.ours, "submitit": bench.plain}
        if hydra_path:
            ways["hydra-submitit-launcher"] = bench.hydra
        bench.ours(1)  # makes the data, and fills the caches of disk and features
        alone: dict[str, list[Launch]] = {name: [] for name in ways}
        for _ in range(given.repeats):  # in turn: what else the machine does hits all of them
            for name, launch in ways.items():
                alone[name].append(launch(1))
        for name, launches in alone.items():
            first = [launch.to_first_step for launch in launches]
            known = [launch.to_known for launch in launches]
            total = [a + b for a, b in zip(first, known, strict=True)]
            cpu = [launch.cpu for launch in launches]
            print(
                f"{name:24} submit to first step {_spread(first)} s, end to known "
                f"{_spread(known)} s, together {_spread(total)} s, CPU {_spread(cpu)} s"
            )
            figures[name] = {"first_step": first, "known": known, "together": _median(total)}
            figures[name] |= {"cpu": cpu}
        several = {
            "one cell per job": bench.ours(given.cells),
            "packed": bench.ours(given.cells, per_job=-(-given.cells // given.at_once)),
        }
        for name, made in several.items():
            rate, each = made.cells_per_minute, made.cpu / given.cells
            print(
                f"{given.cells} cells, {name:17} {rate:6.2f} cells a minute, {each:.1f} s CPU each"
            )
            figures[name] = {"cells_per_minute": rate, "cpu_per_cell": each}
        gain = several["packed"].cells_per_minute / several["one cell per job"].cells_per_minute
        figures["packing_gain"] = gain
        print(f"packing: {gain:.2f} times the cells a minute")
    print(json.dumps(figures))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float]) -> str:
    return f"{_median(values):6.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
