"""Where a result came from: code, versions, machine and job, as they are recorded in run.json."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from keyseg.config import GENERATED, PROJECT
from keyseg.runs import packages
from keyseg.runs.private_files import (
    has_a_secret,
    holds_a_secret,
    looks_secret,
    without_passwords,
)
from keyseg.runs.run_directory import RunDirectory, now, without_traces

_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "segment-anything",
    "accelerate",
    "safetensors",
    "hydra-core",
    "omegaconf",
    "mlflow",
    "numpy",
    "pandas",
    "pycocotools",
)

SNAPSHOT = ".keyseg-snapshot.json"
"""In the root of a snapshot of the code: the `Git` of the checkout it was taken of."""

CODE = ("run.py", "keyseg", "hydra_plugins", "experiments", "sweeps", "reports/published")
"""What a run depends on: tests, notes and whatever else lies in a checkout is no code."""

CODE_ENDINGS = (".py", ".yaml", ".yml", ".toml", ".j2", ".css", ".js", ".csv")
"""Of files that are code without git saying so."""

_LARGEST_NEW_FILE = 100_000  # bytes: more is data, not code
_MOST_NEW_FILES = 200


@dataclass(frozen=True)
class Git:
    """State of a checkout. `commit` is None outside of git. `diff`: what HEAD does not hold.

    `branch` and `remote`, where there are any: what is checked out, and the address of `origin`
    without its password.
    """

    commit: str | None
    dirty: bool
    diff: str
    branch: str | None = None
    remote: str | None = None


def git(root: Path = PROJECT) -> Git:
    """Commit and uncommitted changes of what a run depends on, new files of code included.

    Files that look like secrets are left out, and named. Of a snapshot of the code: those of the
    checkout at the moment it was taken.
    """
    if (root / SNAPSHOT).exists():
        return Git(**json.loads((root / SNAPSHOT).read_bytes()))
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return Git(None, False, "")
    changed = _names(root, "diff", "--name-only", "--relative", "-z", "HEAD")
    parts = []
    for name in changed:
        text = _git(root, "diff", "--no-ext-diff", "--relative", "HEAD", "--", name) or ""
        secret = looks_secret(name) or has_a_secret(text.encode(), name)
        parts.append(f"# changed, not kept: {name}\n" if secret else text)
    new = _names(root, "ls-files", "--others", "--exclude-standard", "-z")
    for name in new[:_MOST_NEW_FILES]:
        if not _is_code(root / name, name):
            parts.append(f"# new file, not kept: {name}\n")
            continue
        parts.append(_git(root, "diff", "--no-index", "--", "/dev/null", name) or "")
    diff = "".join(parts)
    where = stated(root)
    return Git(commit.strip(), bool(diff), diff, where["branch"], where["remote"])


def stated(root: Path = PROJECT) -> dict[str, Any]:
    """Commit, branch and remote of a checkout, as run.json has them; not whether it has changes."""
    if (root / SNAPSHOT).exists():
        known = asdict(git(root))
        return {key: known[key] for key in ("commit", "branch", "remote")}
    commit, branch, remote = (
        (_git(root, *asked) or "").strip()
        for asked in (
            ("rev-parse", "HEAD"),
            ("rev-parse", "--abbrev-ref", "HEAD"),
            ("remote", "get-url", "origin"),
        )
    )
    return {
        "commit": commit or None,
        "branch": None if branch in ("", "HEAD") else branch,
        "remote": without_passwords(remote) or None,
    }


def _names(root: Path, *command: str) -> list[str]:
    """Names that a git command lists of what is code."""
    return [n for n in (_git(root, *command, "--", *CODE) or "").split("\0") if n]


def _is_code(file: Path, name: str) -> bool:
    """Whether a file that git does not know is kept."""
    if not file.is_file() or file.suffix not in CODE_ENDINGS or looks_secret(name):
        return False
    return file.stat().st_size <= _LARGEST_NEW_FILE and not holds_a_secret(file)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        installed["cuda"] = torch.version.cuda
    return installed


def hardware() -> dict[str, Any]:
    """Host, processor, memory; GPUs by name where torch is already loaded (loading it is slow)."""
    machine: dict[str, Any] = {
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        machine["gpus"] = [card.name for card in cards]
        machine["gpu_memory_gib"] = [round(card.total_memory / 2**30, 1) for card in cards]
    return machine


def user() -> str:
    """Who this process belongs to: the name, or the number where the machine knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slurm() -> dict[str, str]:
    """What SLURM says of the job that this process belongs to; {} outside of SLURM.

    Without the token that speaks for the user.
    """
    names = sorted(name for name in os.environ if name.startswith("SLURM_"))
    return {name: os.environ[name] for name in names if name != "SLURM_JWT"}


Attempt = dict[str, Any]
"""An entry of `attempts` in run.json: one execution of a run, from its start to its end."""


def attempt(state: Git, gpus: int = 0) -> Attempt:
    """An attempt that begins: who works on the run, since when, on what code and how many GPUs."""
    return {
        "started": now(),
        "host": socket.gethostname(),
        "user": user(),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "git_commit": state.commit,
        "git_dirty": state.dirty,
        "gpus": gpus,
    }


def ended(begun: Attempt, outcome: str, moment: float | None = None) -> Attempt:
    """An attempt with its end (now, if not said), its outcome, its seconds and its GPU-hours."""
    end = now() if moment is None else moment
    closed = {**begun, "ended": end, "outcome": outcome}
    if begun.get("started"):
        closed["seconds"] = end - begun["started"]
        closed["gpu_hours"] = closed["seconds"] / 3600 * begun.get("gpus", 0)
    return closed


def attempts_so_far(run: RunDirectory) -> list[Attempt]:
    """The attempts before one that begins now; the last may have been killed without a word.

    That one ended when it was last seen: by its rows, its samples of the machine, its checkpoint.
    Where none left a checkpoint, no result goes back to them.
    """
    attempts = list(run.info.get("attempts") or [])
    if attempts and "ended" not in attempts[-1]:
        traces = (run.metrics_file, run.system_file, run.last_file)
        seen = [file.stat().st_mtime for file in traces if file.exists()]
        last = max([attempts[-1].get("started") or 0.0, *seen])
        attempts[-1] = ended(attempts[-1], "killed", last)
    return attempts if run.last_file.exists() else without_traces(attempts)


def cost(attempts: Iterable[Attempt]) -> dict[str, float]:
    """Minutes and GPU-hours of all attempts."""
    finished = [a for a in attempts if a.get("seconds")]
    return {
        "minutes": sum(a["seconds"] for a in finished) / 60,
        "gpu_hours": sum(a.get("gpu_hours", 0.0) for a in finished),
    }


SILENT = 0.5
"""Share of generated answers without SEG from which on a run is spoken of: it gives no masks."""


def silence(info: Mapping[str, Any]) -> float:
    """Share of a run's generated answers without SEG; 0 where it was not asked to write any."""
    generated = (info.get("summary") or {}).get(GENERATED) or {}
    return float(generated.get("no_seg_rate") or 0.0)


def hours(info: Mapping[str, Any]) -> float:
    """GPU-hours of a run.json, its broken-off attempts included; NaN where none has ended.

    An attempt costs its seconds times its GPUs; where it had none (CPU-hours, see `cost_unit`),
    times its processes, however many threads each has.
    """
    ended = [a for a in info.get("attempts") or [] if a.get("seconds")]
    if ended:
        seconds = (a["seconds"] * (a.get("gpus") or a.get("processes") or 1) for a in ended)
        return float(sum(seconds)) / 3600
    minutes = info.get("minutes")  # of a run from before attempts were timed
    if not isinstance(minutes, int | float):
        return float("nan")
    return minutes / 60 * (info.get("processes") or 1)


def described(info: Mapping[str, Any]) -> dict[str, str]:
    """What run.json knows of machine, versions, job and attempts, a line each, for people."""
    hardware, slurm = info.get("hardware") or {}, info.get("slurm") or {}
    lines = {
        "host": hardware.get("host"),
        "hardware": " · ".join(
            [
                *hardware.get("gpus", ()),
                *([f"{hardware['cores']} cores, {hardware['cpu']}"] if hardware else ()),
                *([f"{hardware['memory_gib']} GiB"] if hardware else ()),
            ]
        ),
        "versions": " · ".join(f"{k} {v}" for k, v in (info.get("versions") or {}).items()),
        "packages": " · ".join(
            f"{name} {package['version'] or ''} ({package['source'] or 'installed'})"
            for name, package in (info.get("packages") or {}).items()
        ),
        "slurm_partition": slurm.get("SLURM_JOB_PARTITION"),
        "gpu_hours": f"{info['gpu_hours']:.3f}" if info.get("gpu_hours") else None,
    }
    for number, one in enumerate(info.get("attempts") or [], start=1):
        job = f", job {one['slurm_job_id']}" if one.get("slurm_job_id") else ""
        spent = f"{one['seconds']:.0f} s, " if one.get("seconds") else ""
        gpu = f"{one['gpu_hours']:.3f} GPU-hours, " if one.get("gpu_hours") else ""
        outcome = one.get("outcome") or "at work"
        lines[f"attempt_{number}"] = f"{one.get('host')}{job}: {spent}{gpu}{outcome}"
    return {name: line for name, line in lines.items() if line}


def record(run: RunDirectory) -> Git:
    """Write code, versions and machine into run.json, and uncommitted changes as code.diff."""
    state = git()
    diff = run.path / "code.diff"
    if state.diff:
        diff.write_text(state.diff)
    else:
        diff.unlink(missing_ok=True)
    run.update(
        git={"commit": state.commit, "dirty": state.dirty, **_place(state)},
        versions=versions(),
        packages=packages.described(run.config),
        hardware=hardware(),
        slurm=slurm(),
    )
    return state


def _place(state: Git) -> dict[str, str]:
    known = {"branch": state.branch, "remote": state.remote}
    return {key: value for key, value in known.items() if value}


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
    """`CPU` where every run given that was begun recorded its hardware without a GPU, else `GPU`.

    Whatever waits says nothing of the machine that it will have.
    """
    begun = [info for info in infos if info.get("attempts") or info.get("hardware")]
    hardware = [info.get("hardware") for info in begun]
    return "CPU" if hardware and all(h and not h.get("gpus") for h in hardware) else "GPU"
