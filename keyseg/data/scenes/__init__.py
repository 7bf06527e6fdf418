"""Procedural scenes with real difficulty, written in the public formats: the embedded data set."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from keyseg.config import PROJECT, ConfigError, resolve_path
from keyseg.data.scenes.worlds import PLAIN_WORLD, WORLDS

MARKER_FILE = "scenes.json"
"""Written last: a folder without it is not complete."""


def prepare(
    root: str | Path,
    seed: int,
    refer: Mapping[str, int],
    reason: Mapping[str, int],
    world: str = PLAIN_WORLD,
    no_target: float = 0.0,
) -> None:
    """Draw and write the data set unless it is there: the same arguments give the same bytes.

    Args:
        root: folder to make; `refer_seg/` and `reason_seg/` below it.
        seed: of all drawing; each split has a stream of its own.
        refer, reason: scenes in each split (train, val, test).
        world: what is in them, a key of `worlds.WORLDS`.
        no_target: expressions that fit nothing, for each one that fits something, in a refer set
            of their own (gscenes); from 0 to 1.

    Raises:
        ConfigError: there is no such world, or it has no expressions that fit nothing; or the
            folder holds scenes that were made with other arguments or other code.
    """
    if world not in WORLDS:
        raise ConfigError(f"data.prepare.world={world}: must be one of {', '.join(WORLDS)}")
    if not 0 <= no_target <= 1:
        raise ConfigError(f"data.prepare.no_target={no_target}: must be a share from 0 to 1")
    if no_target and WORLDS[world].fits_nothing is None:
        has = ", ".join(name for name, entry in WORLDS.items() if entry.fits_nothing)
        raise ConfigError(
            f"data.prepare.no_target={no_target}: every expression of world={world} has a target; "
            f"set data.prepare.world to {has}"
        )
    folder = resolve_path(root)
    counts = {"refer": dict(refer), "reason": dict(reason)}
    wanted = {"seed": seed, **counts, "world": world, "no_target": no_target, "code": _code()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if (folder / MARKER_FILE).exists():
            marker = json.loads((folder / MARKER_FILE).read_text())
            if marker != wanted:
                raise ConfigError(
                    f"{folder} holds other scenes ({marker}) than asked for ({wanted}): "
                    "set data.root to another folder, or delete this one"
                )
            return
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        total = sum(sum(c.values()) for c in counts.values())
        print(f"drawing {total} scenes into {folder}", file=sys.stderr, flush=True)
        # A process of its own may fork workers: it has loaded no torch, whose threads' locks a
        # fork would copy. (Workers by spawn would import the caller's main module again.)
        command = [sys.executable, "-m", "keyseg.data.scenes.write", str(temporary)]
        subprocess.run([*command, json.dumps(wanted)], check=True, cwd=PROJECT)
        (temporary / MARKER_FILE).write_text(json.dumps(wanted))
        temporary.replace(folder)


def _code() -> str:
    """8 hex digits over the code that draws: scenes of other code are other scenes."""
    files = sorted(f for f in Path(__file__).parent.iterdir() if f.suffix in (".py", ".toml"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:8]
