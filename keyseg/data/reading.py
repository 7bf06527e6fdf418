"""The data of a cell: made if it is missing, and read once in a process.

Reading takes about as long as importing torch and needs none of it. `begin` therefore forks a
process that reads meanwhile, on another core. If that fails (broken data, no memory, killed),
nothing is lost: `read` reads again, and its errors are the ones a user sees.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from keyseg.data.mix import Source, fingerprint, load_splits, prepare
from keyseg.runs import garbage_collector


@dataclass(frozen=True)
class Data:
    """The sources of each split, and the fingerprint of all."""

    train: list[Source]
    val: list[Source]
    test: list[Source]
    fingerprint: str


_read: dict[str, Data] = {}
_begun: dict[str, tuple[int, IO[bytes]]] = {}


def begin(data_cfg: Mapping[str, Any]) -> None:
    """Have a process read this data, for a later `read`. Call it before anything starts threads."""
    key = _key(data_cfg)
    if key in _read or key in _begun:
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(pickle.dumps(_load(data_cfg), pickle.HIGHEST_PROTOCOL))
        finally:
            os._exit(0)  # nothing of the parent's is ours to clean up, nor to report
    os.close(writer)
    _begun[key] = child, os.fdopen(reader, "rb")


def read(data_cfg: Mapping[str, Any]) -> Data:
    """The data that a `data` group names.

    Raises:
        DataError: what `load_splits` finds wrong. ConfigError: it cannot be made.
    """
    key = _key(data_cfg)
    if key in _begun:
        child, pipe = _begun.pop(key)
        with pipe, garbage_collector.paused(), suppress(EOFError, pickle.UnpicklingError):
            _read[key] = pickle.load(pipe)
        os.waitpid(child, 0)
    if key not in _read:
        _read[key] = _load(data_cfg)
    return _read[key]


def _load(data_cfg: Mapping[str, Any]) -> Data:
    prepare(data_cfg)
    train, val, test = load_splits(data_cfg)
    return Data(train, val, test, fingerprint([*train, *val, *test]))


_DRAWN = ("train_images", "draw", "wrong_masks")
"""Keys of how a cell draws from what is read."""


def _key(data_cfg: Mapping[str, Any]) -> str:
    """What tells one data set from another; how a cell draws from it does not."""
    read = {k: value for k, value in data_cfg.items() if k not in _DRAWN}
    return json.dumps(read, sort_keys=True)
