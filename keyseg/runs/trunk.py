"""The beginning that trainings of several budgets have in common, trained once.

With `optim.schedule=wsd` two cells that differ in `optim.steps` alone are the same training up to
where the shorter one begins to decay. There it leaves its state in the sweep's folder,

    trunks/KEY/STEP/    last.pt, best.safetensors, metrics.jsonl, origin.json

and a cell with a larger budget that has not begun yet goes on from it, as a killed one goes on from
its own checkpoint: its results are those of a training from the first step. Nobody waits: where
there is no state yet a cell trains the beginning itself. The farthest state is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock

from keyseg.config import RunConfig, signature
from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory

_FINGERPRINTS = ("data_fingerprint", "weights_fingerprint")
_WAIT = 60.0  # seconds


def key(cfg: RunConfig) -> str | None:
    """What cells with the same beginning have in common; None where nobody may branch off."""
    if cfg.optim.schedule != "wsd" or cfg.optim.until != "steps":
        return None
    return signature(replace(cfg, optim=replace(cfg.optim, steps=0)))


def leave(run: RunDirectory, cfg: RunConfig, step: int) -> None:
    """Leave the state of `step`: the run's last checkpoint is of it, and so are its last rows."""
    name = key(cfg)
    if name is None:
        return
    with _hold(run, name) as folder:
        if folder is None or any(known >= step for known, _ in _states(folder)):
            return
        made = folder / f".{step}"
        shutil.rmtree(made, ignore_errors=True)  # of a process that was killed here
        made.mkdir()
        with disk.explained(made):
            for file in (run.last_file, run.best_file):
                if file.exists():
                    _link(file, made / file.name)
            shutil.copyfile(run.metrics_file, made / "metrics.jsonl")
        info = run.info
        origin = {name: info.get(name) for name in ("signature", *_FINGERPRINTS)}
        origin |= {"step": step, "attempts": _attempts(info)}
        disk.replace(made / "origin.json", json.dumps(origin).encode())
        shorter = [path for _, path in _states(folder)]
        made.rename(folder / str(step))
        for path in shorter:
            shutil.rmtree(path, ignore_errors=True)


def take(run: RunDirectory, cfg: RunConfig, most: int) -> dict[str, Any] | None:
    """Begin a run that has no checkpoint with the farthest state of up to `most` steps.

    Returns:
        Where it is from: signature and step, and the code of the attempts; None where no state is
        there that is of the same code, data and backbones.
    """
    name = key(cfg)
    last = run.last_file
    if name is None or last.exists() or run.info.get("keep_val_iou"):
        return None
    with _hold(run, name) as folder:
        states = [state for state in _states(folder) if state[0] <= most] if folder else []
        if not states:
            return None
        state = max(states)[1]
        origin: dict[str, Any] = json.loads((state / "origin.json").read_bytes())
        if not _same(origin, run.info):
            return None
        disk.replace(run.metrics_file, (state / "metrics.jsonl").read_bytes())
        for file in (run.best_file, last):  # the checkpoint last: with it the run has begun
            if (state / file.name).exists():
                _link(state / file.name, file)
        return {name: origin.get(name) for name in ("step", "signature", "attempts")}


def forget(run: RunDirectory, cfg: RunConfig) -> None:
    """Remove what cells like this one have left: they are to be trained anew."""
    if (name := key(cfg)) is not None:
        with _hold(run, name) as folder:
            for _, path in _states(folder) if folder else ():
                shutil.rmtree(path, ignore_errors=True)


def _attempts(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By which code the attempts worked that a state goes back to."""
    own = [a for a in info.get("attempts") or [] if not a.get("superseded")]
    before = (info.get("trunk") or {}).get("attempts") or []
    return [*before, *({name: a.get(name) for name in ("git_commit", "code")} for a in own)]


def _same(origin: Mapping[str, Any], info: Mapping[str, Any]) -> bool:
    now = _attempts(info)[-1:]
    code = {a.get("code") for a in [*(origin.get("attempts") or []), *now]}
    fingerprints = all(origin.get(name) == info.get(name) for name in _FINGERPRINTS)
    return fingerprints and len(code) < 2


@contextmanager
def _hold(run: RunDirectory, name: str) -> Iterator[Path | None]:
    """The folder of a trunk, for one process at a time; None where another does not let go."""
    folder = run.path.parent / "trunks" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=_WAIT)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield None
        return
    try:
        yield folder
    finally:
        lock.release()


def _states(folder: Path) -> list[tuple[int, Path]]:
    return [(int(path.name), path) for path in folder.iterdir() if path.name.isdecimal()]


def _link(source: Path, target: Path) -> None:
    """The same file under a second name: checkpoints are replaced, never written into."""
    made = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        os.link(source, made)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, made)
    made.replace(target)
