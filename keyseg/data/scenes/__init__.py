"""Procedural scenes with real difficulty, written in the public formats: the embedded data set."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from filelock import FileLock

from keyseg.config import ConfigError, resolve_path
from keyseg.data.scenes.write import SPLITS, WRITERS, draw

DONE = "scenes.json"
"""Written last: a folder without it is not complete."""


def prepare(
    root: str | Path, seed: int, refer: Mapping[str, int], reason: Mapping[str, int]
) -> None:
    """Draw and write the data set unless it is there: the same arguments give the same bytes.

    Args:
        root: folder to make; `refer_seg/` and `reason_seg/` below it.
        seed: of all drawing; each split has a stream of its own.
        refer, reason: scenes in each split (train, val, test).

    Raises:
        ConfigError: the folder holds scenes that were made with other arguments.
    """
    folder = resolve_path(root)
    counts = {"refer": dict(refer), "reason": dict(reason)}
    wanted = {"seed": seed, **counts}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if (folder / DONE).exists():
            found = json.loads((folder / DONE).read_text())
            if found != wanted:
                raise ConfigError(
                    f"{folder} holds other scenes ({found}) than asked for ({wanted}): "
                    "set data.root to another folder, or delete this one"
                )
            return
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        total = sum(sum(c.values()) for c in counts.values())
        print(f"drawing {total} scenes into {folder}", file=sys.stderr, flush=True)
        # spawn: a fork would copy the threads' locks of a process that may have loaded torch
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=context) as pool:
            for kind, splits in counts.items():
                name, write = WRITERS[kind]
                drawn = {}
                for split in SPLITS:
                    jobs = [(kind, split, seed, index) for index in range(splits.get(split, 0))]
                    drawn[split] = list(pool.map(draw, jobs, chunksize=32))
                write(temporary / name, drawn)
        (temporary / DONE).write_text(json.dumps(wanted))
        temporary.replace(folder)
