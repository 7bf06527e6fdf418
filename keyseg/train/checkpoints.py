"""Files of a run's weights, each with a checksum in it: what comes back is what was written.

last.pt             torch's file, and after it one line with the SHA-256 of what stands before it
                    (readers of its format look for its end and pass over what follows)
best.safetensors    the SHA-256 of its tensors in the header's metadata

Files without a checksum are those of older runs; they are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from keyseg.runs import disk
from keyseg.runs.run_directory import DamagedError

_MARK = b"\nsha256:"
_END = len(_MARK) + 64
_KEY = "sha256"


class _Hashed:
    """A file to write to, and the hash of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.sha256()

    def write(self, content: bytes) -> int:
        """To the file and into the hash."""
        self.hash.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        """Of the file."""
        self.file.flush()


def write_last(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint that a run goes on from.

    Raises:
        DiskFullError: there is no room for it.
    """
    with disk.replacing(path) as file:
        hashed = _Hashed(file)
        torch.save(state, cast(BinaryIO, hashed))  # torch only writes to it
        file.write(_MARK + hashed.hash.hexdigest().encode())


def read_last(path: Path) -> dict[str, Any]:
    """The checkpoint, on the CPU; no code in it is run.

    Raises:
        DamagedError: it is not what was written.
    """
    try:
        with path.open("rb") as file:
            content = file.read()
        end = content[-_END:]
        if end.startswith(_MARK):
            digest = hashlib.sha256(memoryview(content)[:-_END]).hexdigest()
            if digest.encode() != end[len(_MARK) :]:
                raise ValueError("its checksum is another")
        del content
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
        return state
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(
            f"{path} is damaged ({reason}): delete it, or begin anew with rerun=true; without it "
            "the run begins at step 0"
        ) from error


def write_best(path: Path, state: dict[str, Tensor]) -> None:
    """Replace what was trained, at its best.

    Raises:
        DiskFullError: there is no room for it.
    """
    disk.replace(path, save(state, {_KEY: _tensors_hash(save(state))}))


def read_best(path: Path) -> dict[str, Tensor]:
    """What was trained, by name, on the CPU.

    Raises:
        DamagedError: it is not what was written.
    """
    try:
        content = path.read_bytes()
        checksum = json.loads(content[8 : _header(content)]).get("__metadata__", {}).get(_KEY)
        if checksum not in (None, _tensors_hash(content)):
            raise ValueError("its checksum is another")
        state: dict[str, Tensor] = load(content)
        return state
    except (OSError, ValueError, SafetensorError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(
            f"{path} is damaged ({reason}): put it back from a copy, or train anew with rerun=true"
        ) from error


def _header(content: bytes) -> int:
    """Where the header of a safetensors file ends."""
    return 8 + int.from_bytes(content[:8], "little")


def _tensors_hash(content: bytes) -> str:
    return hashlib.sha256(memoryview(content)[_header(content) :]).hexdigest()
