"""The environment of a worker: which of the cores and GPUs it uses.

Imports next to nothing, so that a job on a node can start its worker at once.
"""

from __future__ import annotations

import os
from pathlib import Path

_CODE = str(Path(__file__).resolve().parents[2])
"""Where this package lies: the checkout, or the snapshot that a job runs."""

# glibc returns large blocks to the system at once and asks for them again at once; with these it
# keeps them, which takes a good part off the time of a step on the CPU.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}

NO_CUDA_AT_IMPORT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""With this torch counts GPUs without touching them; a process that has touched one cannot be
forked (keyseg.worker.several)."""


def worker_environment(threads: int, gpu: str | None = None) -> dict[str, str]:
    """This process's environment with what one worker may use in it."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **limits, **MALLOC, **NO_CUDA_AT_IMPORT}
    environment |= {"KEYSEG_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    # The worker runs this checkout's code, also where another one is installed.
    paths = [_CODE, os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment
