"""Masks drawn on images, as the page holds them: in its own text."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from keyseg.data.overlay import decode as decode
from keyseg.data.overlay import draw as draw
from keyseg.data.overlay import load as load

QUALITY = 84


def jpeg_uri(image: np.ndarray) -> str:
    """A data URI of an RGB image."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_uri(file: Path) -> str:
    """A data URI of an SVG or PNG file."""
    kind = {".svg": "svg+xml", ".png": "png"}[file.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
