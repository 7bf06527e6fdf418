"""What is checked before a job starts: weights are there, data can be read. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.data import mix

SPLITS = ("train", "val", "test")
_WHOLE_FILE = 64 * 2**20  # bytes up to which a weights file is hashed whole
_WEIGHTS = (".safetensors", ".pth", ".bin")


def check(configs: Iterable[RunConfig]) -> None:
    """Make the data if the config says how, read every split once, look for the weights.

    Raises:
        ConfigError: a weights file is missing; the message names the key to set.
        DataError: what a reader finds wrong.
    """
    seen = set()
    for cfg in configs:
        key = json.dumps([cfg.data, cfg.model.llava, cfg.model.sam], sort_keys=True)
        if key not in seen:
            seen.add(key)
            check_weights(cfg)
            mix.prepare(cfg.data)
            for split in SPLITS:
                mix.load(cfg.data, split)


def check_weights(cfg: RunConfig) -> None:
    """Whether the backbones' files exist. A hub id is left to the hub's own client."""
    for name, value in (("llava", cfg.model.llava), ("sam", cfg.model.sam)):
        path = Path(weights_path(value))
        if not path.exists() and not (name == "llava" and is_hub_id(value)):
            raise ConfigError(
                f"model.{name}={value}: there is no {path}. Set model.{name} to where the weights "
                f"are, in experiments/model/{cfg.model.name}.yaml or on the command line; "
                "`python -m keyseg.tiny` rebuilds the bundled ones"
            )


def weights_path(name: str) -> str:
    """A file or folder, from the project's root if relative; a hub id as it is."""
    return name if is_hub_id(name) else str(resolve_path(name))


def is_hub_id(name: str) -> bool:
    """`owner/name`, unless a folder is called so."""
    return name.count("/") == 1 and not resolve_path(name).exists() and not name.startswith(".")


def weights_fingerprint(cfg: RunConfig) -> str:
    """16 hex digits over the backbones' files; of large ones the size and both ends."""
    total = hashlib.sha256()
    for name in (cfg.model.llava, cfg.model.sam):
        path = Path(weights_path(name))
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in (f for f in files if f.suffix in _WEIGHTS and f.is_file()):
            size = file.stat().st_size
            with file.open("rb") as data:
                total.update(f"{file.name} {size}".encode())
                if size <= _WHOLE_FILE:
                    total.update(data.read())
                else:
                    total.update(data.read(2**20))
                    data.seek(-(2**20), 2)
                    total.update(data.read())
    return total.hexdigest()[:16]
