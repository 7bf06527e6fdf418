"""What one job asks SLURM for: the options of `hydra/launcher=slurm`, and the checks of them."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from keyseg.config import ConfigError


@dataclass
class SlurmOptions:
    """What one job asks SLURM for; null = the cluster's default.

    `time`: minutes; a cell that needs longer goes on in the next job. `memory`: like 16G.
    `gpus`: of one job, a number, or a kind and a number as a100:2. `processes`: of one cell; 1, or
    one for each of its GPUs, started by srun with torch's RANK, WORLD_SIZE and LOCAL_RANK
    (`cpus_per_task` is of each). `nodes`: of one cell; of several, `gpus` and `memory` are of each
    node, and every GPU has its process (one a node where there are none). `mem_per_gpu`,
    `cpus_per_gpu`: in the place of `memory` and `cpus_per_task`. `gres`, `exclude` (nodes),
    `comment`: as in sbatch.
    `cells_per_job`: cells that a job works on, one after the other, on one load of the imports.
    `array_parallelism`: jobs of a sweep at the same time. `setup`: shell lines before the worker
    starts (module load ...); the first that fails ends the job. `sbatch`: other options, as
    {mail-type: END}. `srun`: arguments of srun. `use_srun`: false starts the worker without it.
    `python`: command of Python on the nodes, where it is not the one that submits (apptainer exec
    IMAGE python). `signal_delay`: seconds before the end at which a job is told to write its
    checkpoint. `report_job`: options of the job that makes the report when nobody waits for it,
    where they are not those of the cells without GPUs, as {partition: cpu}. `max_attempts`: of a
    cell whose node was lost; errors in the code are not tried again. `poll`: seconds between
    questions to SLURM. `avoid_nodes`: leave out nodes on which two cells in a row failed while
    others did well.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: Any = None
    processes: int = 1
    nodes: int = 1
    cpus_per_task: int = 2
    memory: str | None = None
    time: int = 240
    cells_per_job: int = 1
    array_parallelism: int = 64
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    srun: list[str] = field(default_factory=list)
    signal_delay: int = 120
    report_job: dict[str, Any] = field(default_factory=dict)
    max_attempts: int = 3
    poll: float = 2.0
    gres: str | None = None
    exclude: str | None = None
    comment: str | None = None
    mem_per_gpu: str | None = None
    cpus_per_gpu: int | None = None
    use_srun: bool = True
    python: str | None = None
    avoid_nodes: bool = True

    @property
    def gpu_count(self) -> int | None:
        """GPUs of one job; None where none are asked for by `gpus`."""
        return None if self.gpus is None else int(str(self.gpus).rpartition(":")[2])

    @property
    def per_node(self) -> int:
        """Processes of a cell on each of its nodes."""
        return self.processes if self.nodes == 1 else self.gpu_count or 1

    @property
    def together(self) -> bool:
        """Whether a cell has several processes."""
        return self.nodes * self.per_node > 1

    @property
    def asks_for_gpus(self) -> bool:
        """Whether a job has GPUs of its own, by whichever option."""
        return bool(self.gpu_count) or "gpu" in f"{self.gres} {self.sbatch}"

    @property
    def threads(self) -> int:
        """Cores of one process."""
        if self.cpus_per_gpu is None:
            return self.cpus_per_task
        return max(1, self.cpus_per_gpu * (self.gpu_count or 1) // self.per_node)

    @property
    def interpreter(self) -> list[str]:
        """The command of Python on the nodes, in words."""
        return shlex.split(self.python) if self.python else [sys.executable]


_POSITIVE = (
    "cpus_per_task",
    "time",
    "cells_per_job",
    "array_parallelism",
    "max_attempts",
    "poll",
    "processes",
    "nodes",
    "cpus_per_gpu",
)


def check(options: SlurmOptions) -> None:
    """Whether the options make sense.

    Raises:
        ConfigError: one does not; names the key.
    """
    for name in _POSITIVE:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ConfigError(f"hydra.launcher.{name}={value}: must be above 0")
    kind, _, number = str(options.gpus).rpartition(":")
    if options.gpus is not None and (not number.isdigit() or (int(number) == 0 and kind)):
        raise ConfigError(
            f"hydra.launcher.gpus={options.gpus}: give a number, or a kind and a number: a100:2"
        )
    if options.signal_delay >= 60 * options.time:
        raise ConfigError(
            f"hydra.launcher.signal_delay={options.signal_delay} s leaves nothing of "
            f"hydra.launcher.time={options.time} min"
        )
    if options.processes not in (1, options.gpu_count):
        raise ConfigError(
            f"hydra.launcher.processes={options.processes}: must be 1, or as many as "
            f"hydra.launcher.gpus={options.gpus}"
        )
    if options.together and options.cells_per_job > 1:
        raise ConfigError(
            f"hydra.launcher.cells_per_job={options.cells_per_job}: cells of several processes "
            "have a job each"
        )
    if options.together and not options.use_srun:
        raise ConfigError(
            "hydra.launcher.use_srun=false: srun starts the "
            f"{options.nodes * options.per_node} processes of a cell (hydra.launcher.processes)"
        )
    for name in ("mem_per_gpu", "cpus_per_gpu"):
        if getattr(options, name) is not None and not options.gpu_count and not options.gres:
            raise ConfigError(
                f"hydra.launcher.{name}={getattr(options, name)}: there are no GPUs; give "
                "hydra.launcher.gpus too"
            )
    if options.mem_per_gpu is not None and options.memory is not None:
        raise ConfigError(
            f"hydra.launcher.memory={options.memory} and mem_per_gpu={options.mem_per_gpu}: "
            "SLURM takes one of them"
        )
    report_options(options)


def report_options(options: SlurmOptions) -> SlurmOptions:
    """What the report's job asks for: like a cell without GPUs, but for `report_job`.

    Raises:
        ConfigError: `report_job` names an option that does not exist.
    """
    known = {f.name for f in fields(SlurmOptions)}
    for name in options.report_job:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"; meant {near[0]}?" if near else ""
            raise ConfigError(f"hydra.launcher.report_job.{name}: there is no such option{meant}")
    no_gpu: dict[str, Any] = {"gpus": None, "gres": None, "mem_per_gpu": None, "cpus_per_gpu": None}
    plain = replace(options, **no_gpu, processes=1, nodes=1, cells_per_job=1)
    return replace(plain, **options.report_job)
