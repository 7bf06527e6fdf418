"""Masks drawn on images: a tint and a contour, at a size that reads on a page and in print.

`draw` gives one picture. A gallery shows many masks on one image: there the image is stored once,
and each mask is a `layer` of four colours, a kilobyte, that the page lays over it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keyseg.data.files import DataError
from keyseg.data.masks import decode_rle
from keyseg.data.pictures import open_rgb

_SMALL, _LARGE = 256, 320
"""Longest side in pixels: masks of smaller images are enlarged to about `_SMALL`, larger images are
reduced, with their masks."""
QUALITY, _WEBP_QUALITY = 84, 78
_PLAIN = " !$*+,-./:;=?@[]_~"
"""What stands as it is in a data URI of text."""
_NONE, _TINT, _EDGE, _OUTLINE = range(4)
"""What a pixel of a layer is. The n-th of several masks has 2 n more, their outline behind all."""
_MOST = 120
"""Masks in one layer: a palette has 256 colours."""
_GREY, _LETTERS, _BRIGHT = 200, 12, 140


@lru_cache(maxsize=64)
def load(path: Path, height: int, width: int) -> tuple[np.ndarray, bool]:
    """(H', W', 3) uint8, upright, reduced to the size of the page, and whether the file was there.

    Upright as the readers of data have it: masks are stored in that orientation, not the file's.
    A file that is absent or broken gives a grey tile of the shape that the samples state.
    """
    try:
        rgb = open_rgb(path)
    except DataError:
        grey = Image.new("RGB", _reduced(width, height), (_GREY, _GREY, _GREY))
        return np.asarray(grey), False
    return np.asarray(rgb.resize(_reduced(*rgb.size), Image.Resampling.BICUBIC)), True


def decode(counts: object, height: int, width: int) -> np.ndarray | None:
    """(H, W) bool of a COCO RLE; None where none is stored, or one that is damaged."""
    if not isinstance(counts, str) or not counts:
        return None
    try:
        return decode_rle(counts, height, width).astype(bool)
    except ValueError:
        return None


def draw_each(image: np.ndarray, masks: Sequence[np.ndarray], colours: Sequence[str]) -> np.ndarray:
    """`draw` with several masks, each tinted and edged in a colour of its own, with its number."""
    out = _paled(image)
    areas = [_fit(mask, image) for mask in masks]
    for step in (_fill, _edge):  # no tint covers an edge
        for area, colour in zip(areas, colours, strict=True):
            step(out, area, colour)
    drawn: np.ndarray = out.clip(0, 255).astype(np.uint8)
    return drawn if len(areas) < 2 else _numbered(drawn, areas, colours)


def _numbered(drawn: np.ndarray, areas: Sequence[np.ndarray], colours: Sequence[str]) -> np.ndarray:
    """A number from 1 in each mask, where it is widest."""
    from scipy.ndimage import distance_transform_edt

    picture = Image.fromarray(drawn)
    pencil = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(_LETTERS, min(picture.size) // 32))
    taken: list[tuple[float, ...]] = []
    for number, (area, colour) in enumerate(zip(areas, colours, strict=True), start=1):
        if not area.any():
            continue
        y, x = np.unravel_index(distance_transform_edt(area).argmax(), area.shape)
        box = _around(pencil, (float(x), float(y)), str(number), font)
        while any(_meet(box, other) for other in taken):  # masks that coincide: beside each other
            x += 1
            box = _around(pencil, (float(x), float(y)), str(number), font)
        taken.append(box)
        ink = "black" if _rgb(colour) @ (0.3, 0.59, 0.11) > _BRIGHT else "white"
        pencil.rounded_rectangle(box, 3, colour)
        pencil.text((float(x), float(y)), str(number), ink, font, anchor="mm")
    return np.asarray(picture)


def _around(
    pencil: ImageDraw.ImageDraw, place: tuple[float, float], text: str, font: Any
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text's patch, with its middle at a place."""
    left, top, right, bottom = pencil.textbbox(place, text, font=font, anchor="mm")
    return left - 3, top - 2, right + 3, bottom + 2


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    beside = one[2] < other[0] or other[2] < one[0]
    return not (beside or one[3] < other[1] or other[3] < one[1])


def _paled(image: np.ndarray) -> np.ndarray:
    grey = image.mean(2, keepdims=True)
    out: np.ndarray = 0.45 * image + 0.35 * grey + 0.2 * 255
    return out


def _fill(out: np.ndarray, area: np.ndarray, colour: str) -> None:
    out[area] = 0.5 * out[area] + 0.5 * _rgb(colour)


def _edge(out: np.ndarray, area: np.ndarray, colour: str) -> None:
    out[_grow(area, 2) & ~area] = _rgb(colour)


def draw(
    image: np.ndarray,
    mask: np.ndarray | None,
    colour: str,
    outline: tuple[np.ndarray, str] | None = None,
) -> np.ndarray:
    """`image` (H', W', 3), paled, with `mask` tinted and edged in `colour`, and an `outline`.

    The mask's edge lies outside of it and the outline inside its own area, so that both are seen
    where they coincide. Masks may be of any size; they are brought to the image's.
    """
    out = _paled(image)
    if mask is not None:
        area = _fit(mask, image)
        _fill(out, area, colour)
        _edge(out, area, colour)
    drawn: np.ndarray = out.clip(0, 255).astype(np.uint8)
    return drawn if outline is None else edge_each(drawn, [outline[0]], [outline[1]])


def edge_each(drawn: np.ndarray, masks: Sequence[np.ndarray], colours: Sequence[str]) -> np.ndarray:
    """A picture with the edge of each mask, which lies inside its own area."""
    out = drawn.copy()
    for mask, colour in zip(masks, colours, strict=True):
        area = _fit(mask, out)
        out[area & ~_shrink(area, 2)] = _rgb(colour).astype(np.uint8)
    return out


def layer(
    image: np.ndarray,
    mask: np.ndarray | Sequence[np.ndarray] | None,
    outline: np.ndarray | None = None,
) -> np.ndarray:
    """(H', W') uint8 of `mask` and `outline` as `draw` has them: nothing, tint, edge or outline.

    Of several masks each is a tint and an edge of its own. For an `image` (H, W, 3); of a small one
    the layer is larger, so that its edges are thin.
    """
    width, height = _size(image.shape[1], image.shape[0])
    drawn = np.full((height, width), _NONE, np.uint8)
    masks = [] if mask is None else [mask] if isinstance(mask, np.ndarray) else mask[:_MOST]
    areas = [_fit(each, drawn) for each in masks]
    for n, area in enumerate(areas):
        drawn[area] = _TINT + 2 * n
    for n, area in enumerate(areas):  # no tint covers an edge
        drawn[_grow(area, 2) & ~area] = _EDGE + 2 * n
    if outline is not None:
        area = _fit(outline, drawn)
        drawn[area & ~_shrink(area, 2)] = _OUTLINE + 2 * max(0, len(masks) - 1)
    return drawn


def layer_uri(drawn: np.ndarray, colour: str | Sequence[str], outline: str) -> str:
    """A data URI of a layer: a PNG whose palette holds its colours and how much they cover.

    `colour`: of the mask, or of each of several."""
    picture = Image.fromarray(drawn, "P")
    of_masks = [colour] if isinstance(colour, str) else list(colour[:_MOST])
    twice = [_rgb(c) for c in of_masks for _ in (_TINT, _EDGE)]
    colours = np.stack([np.zeros(3), *twice, _rgb(outline)])
    picture.putpalette(colours.astype(int).ravel().tolist())
    cover = bytes([0, *[128, 255] * len(of_masks), 255])
    buffer = BytesIO()
    bits = 2 if len(colours) <= 4 else 8
    picture.save(buffer, "PNG", optimize=True, bits=bits, transparency=cover)
    return _uri("png", buffer.getvalue())


def webp_uri(image: np.ndarray) -> str:
    """A data URI of an RGB image, as small as it may be on a page."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=_WEBP_QUALITY, method=6)
    return _uri("webp", buffer.getvalue())


def jpeg_uri(image: np.ndarray) -> str:
    """A data URI of an RGB image."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return _uri("jpeg", buffer.getvalue())


def svg_uri(file: Path) -> str:
    """A data URI of an SVG file as text, which is a quarter shorter than base64."""
    text = " ".join(file.read_text(encoding="utf-8").split())
    return f"data:image/svg+xml,{quote(text, safe=_PLAIN)}"


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _reduced(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LARGE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _size(width: int, height: int) -> tuple[int, int]:
    side = max(width, height)
    scale = max(1, round(_SMALL / side)) if side < _SMALL else min(1.0, _LARGE / side)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fit(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if mask.shape == (height, width):
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    fitted = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR))
    inside: np.ndarray = fitted > 127
    return inside


def _grow(area: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        p = np.pad(area, 1)  # a diamond of this radius: thin enough to look round
        area = p[1:-1, 1:-1] | p[:-2, 1:-1] | p[2:, 1:-1] | p[1:-1, :-2] | p[1:-1, 2:]
    return area


def _shrink(area: np.ndarray, times: int) -> np.ndarray:
    # Beyond the border counts as foreground, so that an edge lies inside the image.
    return ~_grow(~area, times)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
