"""The fingerprint of a data set without reading it, where nothing was touched since it was read.

Reading takes seconds to minutes, and is only needed to tell whether finished cells saw the same
data. So it is remembered under paths.data what the files looked like when they were read: names,
sizes and times of annotations and masks, names of photographs (whose content is no part of the
fingerprint, and which are many).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError, resolve_path
from keyseg.data import mix
from keyseg.data.files import DataError
from keyseg.runs import code, disk

FINGERPRINTS_FILE = "fingerprints.json"
_PHOTOGRAPHS = (".jpg", ".jpeg")


def fingerprint(data_cfg: Mapping[str, Any], memory: Path) -> str | None:
    """What `reading.read` would find, or None where the data cannot be read any more.

    Args:
        data_cfg: the `data` group. Data that is missing is not made.
        memory: the folder that remembers (paths.data).
    """
    try:
        key, look = _key(data_cfg), _look(data_cfg)
        known = _read(memory / FINGERPRINTS_FILE).get(key) or {}
        if look is not None and known.get("files") == look:
            return str(known["fingerprint"])
        splits = [s for s in mix.SPLITS if s in data_cfg["splits"]]
        fingerprint = mix.fingerprint(
            [s for split in mix.load_splits(data_cfg, splits) for s in split]
        )
    except (DataError, ConfigError, OSError):
        return None
    remember(data_cfg, memory, fingerprint)
    return fingerprint


def remember(data_cfg: Mapping[str, Any], memory: Path, fingerprint: str) -> None:
    """Keep a fingerprint that was just made of the data."""
    look = _look(data_cfg)
    if look is None:
        return
    memory.mkdir(parents=True, exist_ok=True)
    known = _read(memory / FINGERPRINTS_FILE) | {
        _key(data_cfg): {"files": look, "fingerprint": fingerprint}
    }
    disk.replace(memory / FINGERPRINTS_FILE, json.dumps(known, indent=1).encode())


def _key(data_cfg: Mapping[str, Any]) -> str:
    """The config and the readers' code: other code may make other examples of the same files."""
    read = tuple(sorted({str(spec["_target_"]) for spec in data_cfg["sources"].values()}))
    return _hash([data_cfg, code.of(read).fingerprint])


def _look(data_cfg: Mapping[str, Any]) -> str | None:
    """What the folders of all sources look like; None where a source does not name its folder."""
    roots = [spec.get("root") for spec in data_cfg["sources"].values()]
    if not all(roots):
        return None
    folders = sorted({resolve_path(root) for root in roots})
    return _hash([sorted(_entries(folder, "")) for folder in folders])


def _entries(folder: Path, prefix: str) -> Iterator[tuple[Any, ...]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                yield from _entries(Path(entry.path), f"{name}/")
            elif name.lower().endswith(_PHOTOGRAPHS):
                yield (name,)
            else:
                stat = entry.stat()
                yield (name, stat.st_size, stat.st_mtime_ns)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
