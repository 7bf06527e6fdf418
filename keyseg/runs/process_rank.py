"""Which of a run's processes this one is, as the program that started it says.

torchrun and `accelerate launch` set RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT; `srun` says the same in words of its own. Light: torch is not needed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

_FIRST_PORT, _PORTS = 20000, 10000


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """0 for the first process, and for one that is alone."""
    return int(_known(environment).get("RANK", "0"))


def count(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes take part."""
    return int(_known(environment).get("WORLD_SIZE", "1"))


def count_here(environment: Mapping[str, str] = os.environ) -> int:
    """How many of them are on this machine."""
    return int(_known(environment).get("LOCAL_WORLD_SIZE", "1"))


def from_srun(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What torchrun would set, from what srun sets; {} where it is set, or for one process."""
    # srun's own variables: those of the job are also there where srun started nothing
    processes = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if processes == 1 or "WORLD_SIZE" in environment:
        return {}
    # `2(x3)`: two on each of three nodes
    here = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    job, step = (int(environment.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": here[0] if here else str(processes),
        "MASTER_ADDR": _first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(_FIRST_PORT + (job + step) % _PORTS),  # two jobs may share a node
    }


def _known(environment: Mapping[str, str]) -> Mapping[str, str]:
    return {**environment, **from_srun(environment)}


def _first_host(nodes: str) -> str:
    """`gpu[03-04],cpu1` -> `gpu03`."""
    if not any(sign in nodes for sign in "[,"):
        return nodes
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]
