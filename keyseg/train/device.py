"""Where a cell computes: the device that a config names, looked for."""

from __future__ import annotations

import os
from typing import Any

import torch

from keyseg.config import ConfigError

_GPUS_OF_JOB = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
"""Variables by which SLURM says which GPUs a job has."""


def pick_device(name: str, key: str = "runtime.device") -> torch.device:
    """ "auto": a GPU if there is one. `key`: what a message calls the name.

    Raises:
        ConfigError: torch sees no such device, or SLURM gave this job a GPU, and torch sees none.
    """
    if name != "auto":
        return _present(name, key)
    if torch.cuda.is_available():
        return torch.device("cuda")
    given = next((f"{v}={os.environ[v]}" for v in _GPUS_OF_JOB if os.environ.get(v)), None)
    if given:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise ConfigError(
            f"SLURM gave this job a GPU ({given}), and torch {torch.__version__} sees none: it is "
            f"built without CUDA (here: CUDA {torch.version.cuda}), the node's driver is too old "
            f"(`nvidia-smi`), or CUDA_VISIBLE_DEVICES ({visible}) was changed in "
            "hydra.launcher.setup. runtime.device=cpu computes on the CPU all the same"
        )
    return torch.device("cpu")


def _present(name: str, key: str) -> torch.device:
    """The device of that name, if this machine has it."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{key}={name}: {str(error).splitlines()[0]}") from error
    if device.type == "cpu":
        return device
    module: Any = getattr(torch, device.type, None)  # torch.cuda, torch.mps, torch.xpu, ...
    asked = (
        module if hasattr(module, "is_available") else getattr(torch.backends, device.type, None)
    )
    if asked is None or not asked.is_available():
        raise ConfigError(
            f"{key}={name}: torch {torch.__version__} sees no such device here; auto takes a GPU "
            "if there is one"
        )
    count = module.device_count() if hasattr(module, "device_count") else 1
    if device.index is not None and device.index >= count:
        raise ConfigError(f"{key}={name}: torch sees {count} here, counted from 0")
    return device
