"""Frozen features: what the frozen encoders see of an image, computed once and kept on disk.

All cells of a sweep, and all jobs and nodes that share the folder, read the same files:

    <folder>/<encoder>-<key>/key.json                all that the numbers depend on but the image
                             3f/3f0c...safetensors   one image, named by a hash of its content

An image that was changed, other weights or another preprocessing have other names, so nothing in
the folder can be stale; a damaged file fails its checksum and is computed again. Files appear
whole (written aside, then renamed): any number of processes may read and write at the same time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from keyseg.data.pictures import open_rgb
from keyseg.model.backbones.encoders import Encoder, Features, Levels, joined, stacked

Seen = tuple[Levels, tuple[int, int]]
"""What an encoder says of an image, and the image's (height, width)."""

_FORMAT = 1
_COUNT_AGAIN = 256
"""Files written until the folder is measured again: others write to it too."""


@dataclass
class Store:
    """A folder of features, for any number of encoders.

    limit: bytes that the folder may hold. Beyond it nothing more is stored: to throw out what was
    not used for longest would throw out, epoch after epoch, just what comes next.
    """

    folder: Path
    limit: float
    damaged: int = 0
    problem: str | None = None
    """Why storing has ended, if it has."""
    _bytes: float = field(default=0.0, repr=False)
    _until_count: int = field(default=0, repr=False)

    def size(self) -> int:
        """Bytes that the folder holds now."""
        return stored_bytes(self.folder)

    def path(self, encoder: Encoder, image: str) -> Path:
        """Where the features of an image (its hash) are, or will be."""
        return self.folder / folder_name(encoder) / image[:2] / f"{image}.safetensors"

    def read(self, encoder: Encoder, image: str) -> Seen | None:
        """Features and the image's (height, width); None where there are none, or damaged ones."""
        path = self.path(encoder, image)
        try:
            with safe_open(path, framework="pt") as file:
                levels = tuple(file.get_tensor(name) for name in _names(len(file.keys())))
                note = file.metadata()
            size = (int(note["height"]), int(note["width"]))
            if int(note["checksum"]) == _checksum(levels, size):
                return levels, size
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            pass  # cut short, or no such file at all
        self.damaged += 1
        return None

    def write(self, encoder: Encoder, image: str, features: Levels, size: tuple[int, int]) -> None:
        """Keep features. A folder that is full or cannot be written is no error: see `problem`."""
        if self.problem is None:
            try:
                self._write(self.path(encoder, image), encoder, features, size)
            except (OSError, SafetensorError) as error:
                self.problem = f"{self.folder}: {error}"

    def _write(self, path: Path, encoder: Encoder, features: Levels, size: tuple[int, int]) -> None:
        nbytes = sum(level.nbytes for level in features)
        if self._until_count == 0:
            self._bytes, self._until_count = self.size(), _COUNT_AGAIN
            if not (about := self.folder / folder_name(encoder) / "key.json").exists():
                about.parent.mkdir(parents=True, exist_ok=True)
                about.write_text(json.dumps(encoder.key, indent=1, sort_keys=True))
        if self._bytes + nbytes > self.limit:
            self.problem = f"{self.folder} holds runtime.features_gib={self.limit / 2**30:g}"
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        note = {"height": str(size[0]), "width": str(size[1])}
        note["checksum"] = str(_checksum(features, size))
        aside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
        try:
            save_file(dict(zip(_names(len(features)), features, strict=True)), aside, note)
            aside.replace(path)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        self._bytes += nbytes
        self._until_count -= 1


def stored_bytes(folder: Path) -> int:
    """Bytes of all files in a folder of features."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # another process has renamed it
                total += (Path(where) / name).stat().st_size
    return total


def folder_name(encoder: Encoder) -> str:
    """Name of an encoder's folder: all that its output depends on is in the hash."""
    key = json.dumps({"format": _FORMAT, **encoder.key}, sort_keys=True)
    return f"{encoder.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


class FrozenFeatures:
    """From image files to features: read from the store, or computed and stored."""

    def __init__(self, language: Encoder, mask: Encoder, store: Store | None = None) -> None:
        self.encoders = (language, mask)
        self.store = store
        self.computed = 0
        """Images times encoders that were not found in the store."""

    def __call__(self, images: Sequence[Path]) -> Features:
        """Features of images, in their order.

        Raises:
            OSError: an image cannot be read.
        """
        known: dict[int, tuple[list[Levels], tuple[int, int]]] = {}
        # Cells that train in step ask for the same images at the same time: each begins elsewhere
        # and looks again before it computes, so that they share the work.
        begin = os.getpid() % len(images)
        for i in [*range(begin, len(images)), *range(begin)]:
            known[i] = self._of(images[i], self.encoders)
        parts = [known[i] for i in range(len(images))]
        language, mask = ([levels[k] for levels, _ in parts] for k in range(2))
        return Features(joined(language), stacked(mask), [size for _, size in parts])

    def language(self, images: Sequence[Path]) -> tuple[Levels, list[tuple[int, int]]]:
        """What the language side sees of images, levels (ΣP, W), and their sizes: where no mask is
        drawn on them.

        Raises:
            OSError: an image cannot be read.
        """
        parts = [self._of(image, self.encoders[:1]) for image in images]
        return joined([levels[0] for levels, _ in parts]), [size for _, size in parts]

    def missing(self, images: Sequence[Path]) -> list[Path]:
        """Images that are not in the store with all their features. Looks at names only."""
        store = self.store
        if store is None:
            return list(images)
        hashes = ((image, content_hash(image.read_bytes())) for image in images)
        return [
            image
            for image, digest in hashes
            if not all(store.path(encoder, digest).exists() for encoder in self.encoders)
        ]

    def fill(self, images: Iterable[Path]) -> Iterator[Path]:
        """See images one by one, for the store; yields each. Ends where nothing more is stored."""
        for image in images:
            self._of(image, self.encoders)
            yield image
            if self.store is None or self.store.problem:
                return

    def _of(self, image: Path, encoders: Sequence[Encoder]) -> tuple[list[Levels], tuple[int, int]]:
        content = image.read_bytes()
        digest = content_hash(content) if self.store else ""
        picture: Tensor | None = None
        seen, size = [], (0, 0)
        for encoder in encoders:
            kept = self.store.read(encoder, digest) if self.store else None
            if kept is None:
                if picture is None:
                    picture = read_image(io.BytesIO(content), image)
                kept = encoder(picture), (picture.shape[1], picture.shape[2])
                self.computed += 1
                if self.store:
                    self.store.write(encoder, digest, *kept)
            levels, size = kept
            seen.append(levels)
        return seen, size


def read_image(file: Any, name: Path | None = None) -> Tensor:
    """An image as uint8 (3, H, W), turned as its EXIF says (masks are drawn on that).

    Raises:
        DataError: it cannot be read; says `name`, or the file.
    """
    return torch.from_numpy(np.array(open_rgb(file, name))).permute(2, 0, 1)


def content_hash(content: bytes) -> str:
    """32 hex digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _names(count: int) -> list[str]:
    """Of the levels in a file."""
    return ["features", *(f"features.{n}" for n in range(1, count))]


def _checksum(levels: Levels, size: tuple[int, int]) -> int:
    """Of the numbers and of all that says how to read them."""
    value = 0
    for level in levels:
        form = repr((level.dtype, tuple(level.shape), size)).encode()
        data = level.contiguous().view(torch.uint8).numpy().data
        value = zlib.crc32(data, zlib.crc32(form, value))
    return value
