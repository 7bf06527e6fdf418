"""Masks that lie beside the images as pictures: 0 is background, any other value the target."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keyseg.data.example import Mask
from keyseg.data.files import DataError
from keyseg.data.pictures import opened


@dataclass(frozen=True)
class MaskFile:
    """A mask in a picture of one channel, of the size of its image."""

    path: Path
    height: int
    width: int

    def __call__(self) -> Mask:
        """Read: uint8 (H, W), values 0 and 1.

        Raises:
            DataError: it is no picture of one channel, or of another size than the image.
        """
        with opened(self.path) as picture:
            drawn = np.asarray(picture)
        if drawn.ndim != 2:
            raise DataError(f"{self.path}: a mask has one channel, not {drawn.shape[-1]}")
        if drawn.shape != (self.height, self.width):
            raise DataError(
                f"{self.path} is {drawn.shape} (height, width), its image "
                f"{(self.height, self.width)}"
            )
        return np.asarray(drawn != 0, np.uint8)

    def digest(self) -> bytes:
        """Hash of the file, for the fingerprint of a data set."""
        return hashlib.sha256(self.path.read_bytes()).digest()
