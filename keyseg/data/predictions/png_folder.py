"""A folder of PNG masks, named by example (`ReasonSeg/val/1-0.png`, or `1-0.png`) or by image.

Set pixels are 255 or 1, others 0. Anything between is no mask: a threshold would be a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image as PILImage

from keyseg.data.example import Mask
from keyseg.data.files import DataError
from keyseg.data.pictures import opened
from keyseg.data.predictions.prediction import ForeignPrediction

_MOST = 1_000_000


def read(folder: Path) -> list[ForeignPrediction]:
    """The predictions; files are opened when they are drawn.

    Raises:
        DataError: there is no PNG, or a file that is none.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if len(files) > _MOST:
        raise DataError(f"{folder} holds more than {_MOST:,} files")
    others = [p for p in files if p.suffix.lower() != ".png"]
    if others:
        raise DataError(f"{others[0]} is no PNG: a folder of predictions holds masks alone")
    if not files:
        raise DataError(f"{folder} holds no .png")
    names = (p.relative_to(folder).with_suffix("").as_posix() for p in files)
    return [
        ForeignPrediction(str(p), PngMask(p), name=n) for p, n in zip(files, names, strict=True)
    ]


@dataclass(frozen=True)
class PngMask:
    """A mask in a file."""

    file: Path

    def __call__(self, height: int, width: int) -> Mask:
        """Read: uint8 (H, W), 0 and 1.

        Raises:
            DataError: it is of another size, or has values that are neither set nor not.
        """
        with opened(self.file) as picture:
            if (picture.height, picture.width) != (height, width):
                raise DataError(
                    f"{self.file}: mask of {picture.height} x {picture.width} for an image of "
                    f"{height} x {width}"
                )
            return _binary(self._values(picture))

    def _values(self, picture: PILImage) -> np.ndarray:
        """(H, W); of a coloured picture the one channel that all others equal."""
        values = np.asarray(picture)
        if values.ndim == 3:
            colours = values[..., : 3 if values.shape[2] == 4 else None]
            if (colours != colours[..., :1]).any():
                raise DataError(f"{self.file} is coloured: a mask has 0 and 255, or 0 and 1")
            values = colours[..., 0]
        odd = values[(values != 0) & (values != 1) & (values != 255)]
        if odd.size or {1, 255} <= set(np.unique(values).tolist()):
            raise DataError(
                f"{self.file} has the value {odd.flat[0] if odd.size else '1 beside 255'}: a mask "
                "has 0 and 255, or 0 and 1"
            )
        return values


def _binary(values: np.ndarray) -> Mask:
    return np.asarray(values != 0, np.uint8)
