"""Where a result came from: code, versions, machine and job, as they are recorded in run.json."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from keyseg.config import PROJECT
from keyseg.rundir import RunDirectory, now

PACKAGES = (
    *("torch", "torchvision", "transformers", "peft", "segment-anything", "accelerate"),
    *("safetensors", "hydra-core", "omegaconf", "mlflow", "numpy", "pandas", "pycocotools"),
)

SNAPSHOT = ".keyseg-snapshot.json"
"""In the root of a snapshot of the code: the `Git` of the checkout it was taken of."""

_LARGEST_NEW_FILE = 100_000  # bytes: more is data, not code
_MOST_NEW_FILES = 200


@dataclass(frozen=True)
class Git:
    """State of a checkout. `commit` is None outside of git. `diff`: what HEAD does not hold."""

    commit: str | None
    dirty: bool
    diff: str


def git(root: Path = PROJECT) -> Git:
    """Commit and uncommitted changes of a checkout, new files that git does not ignore included.

    Of a snapshot of the code: those of the checkout at the moment it was taken.
    """
    if (root / SNAPSHOT).exists():
        return Git(**json.loads((root / SNAPSHOT).read_bytes()))
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return Git(None, False, "")
    parts = [_git(root, "diff", "--no-ext-diff", "HEAD") or ""]
    new = (_git(root, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    for name in [n for n in new if n][:_MOST_NEW_FILES]:
        file = root / name
        if not file.is_file() or file.stat().st_size > _LARGEST_NEW_FILE:
            parts.append(f"# new file, not kept: {name}\n")
            continue
        parts.append(_git(root, "diff", "--no-index", "--", "/dev/null", name) or "")
    diff = "".join(parts)
    return Git(commit.strip(), bool(diff), diff)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Host, processor, memory; GPUs by name where torch is already loaded (loading it is slow)."""
    found: dict[str, Any] = {
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = range(torch.cuda.device_count())
        found["gpus"] = [torch.cuda.get_device_name(i) for i in count]
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slurm() -> dict[str, str]:
    """What SLURM says of the job that this process belongs to; {} outside of SLURM."""
    return {key: value for key, value in sorted(os.environ.items()) if key.startswith("SLURM_")}


def attempt(state: Git) -> dict[str, Any]:
    """First fields of an entry in `attempts`: who works on the run, since when, on what code."""
    return {
        "started": now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "git_commit": state.commit,
        "git_dirty": state.dirty,
    }


def record(run: RunDirectory) -> Git:
    """Write code, versions and machine into run.json, and uncommitted changes as code.diff."""
    state = git()
    diff = run.path / "code.diff"
    if state.diff:
        diff.write_text(state.diff)
    else:
        diff.unlink(missing_ok=True)
    run.update(
        git={"commit": state.commit, "dirty": state.dirty},
        versions=versions(),
        hardware=hardware(),
        slurm=slurm(),
    )
    return state


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command; None where git or a repository is missing."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotepath=off", *arguments],
            cwd=root,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # `diff --no-index` exits with 1 where the files differ, which they always do here.
    if done.returncode not in ((0, 1) if "--no-index" in arguments else (0,)):
        return None
    return done.stdout.decode(errors="replace")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cost_unit(infos: Iterable[Mapping[str, Any]]) -> str:
    """`CPU` where every run.json given recorded its hardware and none had a GPU, else `GPU`."""
    hardware = [info.get("hardware") for info in infos]
    return "CPU" if hardware and all(h and not h.get("gpus") for h in hardware) else "GPU"
