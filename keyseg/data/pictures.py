"""Pictures as models and people see them: upright, 8 bits of red, green and blue.

Every file of a picture is opened here, so that what a file says badly is said well, once.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps
from PIL.Image import Image as PILImage

from keyseg.data.files import DataError

LARGEST = 178_956_970
"""Pixels of the largest picture or mask that is read: Pillow's own limit for files it trusts."""

EXIF_ORIENTATION = 0x0112

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    struct.error,
    OverflowError,
    MemoryError,
    Image.DecompressionBombError,
)
"""What Pillow raises, by format, for a file that is none or not whole."""


@contextmanager
def opened(file: Path | IO[bytes], name: Path | str | None = None) -> Iterator[PILImage]:
    """A picture as its file has it; its pixels may be read inside only. `name`: for errors.

    Raises:
        DataError: it is not a picture, too large, or cut short; names the file.
    """
    shown = name or file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                check_size(picture.height, picture.width)
                yield picture
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{shown} is not an image that can be read ({error})") from error


def open_rgb(file: Path | IO[bytes], name: Path | str | None = None) -> PILImage:
    """A picture in RGB, turned as its EXIF says: masks are drawn on that.

    Raises:
        DataError: it cannot be read, or has values without a range; names the file.
    """
    with opened(file, name) as picture:
        return to_rgb(ImageOps.exif_transpose(picture), picture.format)


def to_rgb(picture: PILImage, form: str | None) -> PILImage:
    """The picture in 8 bits of RGB; 16 bits of grey are scaled, where Pillow would cut them off.

    `form`: of its file, as Pillow names it.

    Raises:
        ValueError: its values (32 bits, floats) have no range that says what is white.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and form in ("PNG", "PPM")):
        grey = (np.asarray(picture).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"mode {picture.mode}: 32 bits a pixel have no range that says what is white; "
            "save it with 8 or 16 bits"
        )
    return picture.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as it is seen: its EXIF orientation applied, as OpenCV does.

    Raises:
        DataError: the file is not an image.
    """
    with opened(path) as picture:
        turned = picture.getexif().get(EXIF_ORIENTATION, 1) >= 5
        size = picture.height, picture.width
        return (size[1], size[0]) if turned else size


def check_size(height: Any, width: Any) -> None:
    """Whether a picture or mask may be of this size.

    Raises:
        ValueError: it is none, or larger than `LARGEST`.
    """
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise ValueError(f"{height} x {width} is no height and width in pixels")
    if height * width > LARGEST:
        megapixels = height * width / 1e6
        raise ValueError(
            f"{height} x {width} is {megapixels:,.0f} megapixels, more than the "
            f"{LARGEST / 1e6:.0f} that are read"
        )
