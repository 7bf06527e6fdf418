"""Masks from annotations: COCO segmentations, ReasonSeg polygons, run-length strings.

A mask recipe (`CocoMask`, `ReasonMask`) holds the annotation and draws it when called, so that a
data set of 100,000 expressions is read without drawing one. Polygons are in pixels, (x, y).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError
from PIL.Image import Image as PILImage
from pycocotools import mask as coco

from keyseg.data.example import VOID, Mask
from keyseg.data.files import DataError

Points = Sequence[Sequence[float]]
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class CocoMask:
    """A COCO `segmentation`: polygons, or run lengths (crowds), compressed or not, or none.

    Several parts are united: parts that overlap count once.

    Raises:
        ValueError: at once, if the annotation is not of one of these forms or sizes.
    """

    segmentation: Any
    height: int
    width: int

    def __post_init__(self) -> None:
        for part in self._parts():
            if isinstance(part, dict):
                self._check_run_lengths(part)
            elif not isinstance(part, list) or len(part) % 2 or set(map(type, part)) - {int, float}:
                raise ValueError(f"segmentation part is no x, y list: {str(part)[:60]}")

    def __call__(self) -> Mask:
        """Draw: uint8 (H, W), values 0 and 1."""
        size = (self.height, self.width)
        # Parts of fewer than three points enclose nothing; pycocotools takes them for boxes.
        parts = [p for p in self._parts() if isinstance(p, dict) or len(p) >= 6]
        if not parts:
            return np.zeros(size, np.uint8)
        try:
            runs = [
                coco.frPyObjects([p], *size)[0] if isinstance(p, list) else _compressed(p, *size)
                for p in parts
            ]
            return _decode(coco.merge(runs))
        except ValueError as error:
            raise DataError(
                f"damaged run lengths for a mask of {size}: {str(self.segmentation)[:60]}"
            ) from error

    def digest(self) -> bytes:
        """Hash of the annotation, for the fingerprint of a data set."""
        return _digest(self.segmentation, self.height, self.width)

    def _parts(self) -> list[Any]:
        if isinstance(self.segmentation, dict):
            return [self.segmentation]
        if not isinstance(self.segmentation, list):
            raise ValueError(f"segmentation is {type(self.segmentation).__name__}, not list or RLE")
        return self.segmentation

    def _check_run_lengths(self, runs: dict[str, Any]) -> None:
        size, counts = runs.get("size"), runs.get("counts")
        if list(size or ()) != [self.height, self.width]:
            raise ValueError(f"RLE size {size} is not the image's [{self.height}, {self.width}]")
        if isinstance(counts, list):
            if sum(counts) != self.height * self.width or min(counts) < 0:
                raise ValueError(f"RLE counts do not add up to {self.height} x {self.width}")
        elif not isinstance(counts, str | bytes):
            raise ValueError(f"RLE counts are {type(counts).__name__}, not a list or a string")


@dataclass(frozen=True)
class ReasonMask:
    """ReasonSeg's `shapes`, drawn as LISA's protocol defines them; no shapes = an empty mask.

    `flag` shapes are dropped. The rest is drawn in order of falling area, outline and fill, so that
    smaller shapes overwrite larger ones; a label with "ignore" in it draws VOID, any other 1.

    Raises:
        ValueError: at once, if a shape has no label or no points.
    """

    shapes: Sequence[dict[str, Any]]
    height: int
    width: int

    def __post_init__(self) -> None:
        for shape in self.shapes:
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
                raise ValueError(f"shape without label: {str(shape)[:60]}")
            points = shape.get("points")
            if not (isinstance(points, list) and points and all(map(_is_point, points))):
                raise ValueError(f"shape '{shape['label']}' without points: {str(points)[:60]}")

    def __call__(self) -> Mask:
        """Draw: uint8 (H, W), values 0, 1 and 255."""
        shapes = self._drawn()
        areas = [raster_area(s["points"], self.height, self.width) for s in shapes]
        canvas = Image.new("L", (self.width, self.height))
        # Largest first; of two equal ones the later first, as LISA's reversed argsort has it.
        for i in np.argsort(areas, kind="stable")[::-1]:
            value = VOID if "ignore" in shapes[i]["label"].lower() else 1
            draw_polygon(canvas, shapes[i]["points"], value)
        return np.array(canvas, np.uint8)

    def target_share(self) -> float:
        """Share of the image inside target polygons, without drawing; overlaps count twice."""
        targets = [s["points"] for s in self._drawn() if "ignore" not in s["label"].lower()]
        area = sum(max(polygon_area(points), 1.0) for points in targets)
        return min(area / (self.height * self.width), 1.0)

    def digest(self) -> bytes:
        """Hash of the annotation, for the fingerprint of a data set."""
        return _digest(self.shapes, self.height, self.width)

    def _drawn(self) -> list[dict[str, Any]]:
        return [s for s in self.shapes if s["label"].lower() != "flag"]


def draw_polygon(canvas: PILImage, points: Points, value: int) -> None:
    """Fill a polygon and draw its outline, one pixel wide, corners cut down to whole pixels.

    Equal to OpenCV's polylines + fillPoly but for single pixels on the outline, in slivers, where a
    polygon crosses itself, and where it leaves the image. It takes two tricks: Pillow fills without
    the outline where both have one colour, and the two break the ties of a line in opposite
    directions, so that lines are drawn from right to left here.
    """
    corners = [(int(x), int(y)) for x, y in points]
    pencil = ImageDraw.Draw(canvas)
    if len(corners) > 2:
        pencil.polygon(corners, fill=value)
    pencil.point(corners, fill=value)
    for side in zip(corners, [*corners[1:], corners[0]], strict=True):
        pencil.line([max(side), min(side)], fill=value)


def raster_area(points: Points, height: int, width: int) -> int:
    """Pixels that `draw_polygon` sets on an image of this size. Draws only the bounding box."""
    xs, ys = [int(x) for x, _ in points], [int(y) for _, y in points]
    left, top = max(min(xs), 0), max(min(ys), 0)
    right, bottom = min(max(xs) + 1, width), min(max(ys) + 1, height)
    if left >= right or top >= bottom:
        return 0
    box = Image.new("L", (right - left, bottom - top))
    draw_polygon(box, [(x - left, y - top) for x, y in zip(xs, ys, strict=True)], 1)
    return int(np.count_nonzero(np.asarray(box)))


def polygon_area(points: Points) -> float:
    """Area inside a polygon in square pixels, by the shoelace formula."""
    x, y = np.asarray(points, np.float64).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def encode_rle(mask: np.ndarray[Any, Any]) -> str:
    """COCO run lengths of a mask (H, W); whatever is not 0 counts. The inverse of `decode_rle`."""
    return encode_columns(np.ascontiguousarray(mask.T != 0, np.uint8)[None])[0]


def encode_columns(masks: np.ndarray[Any, Any]) -> list[str]:
    """COCO run lengths of masks whose columns are their rows: uint8 (N, W, H), C order, 0 or 1.

    This is how pycocotools wants them; others are copied, one by one.
    """
    return [bytes(runs["counts"]).decode("ascii") for runs in coco.encode(masks.transpose(2, 1, 0))]


def decode_rle(counts: str, height: int, width: int) -> Mask:
    """Mask (H, W) of 0 and 1 from run lengths; the empty string is the empty mask.

    Raises:
        ValueError: the run lengths are damaged or of another size.
    """
    if not counts:
        return np.zeros((height, width), np.uint8)
    return _decode({"counts": counts.encode(), "size": [height, width]})


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as it is seen: its EXIF orientation applied, as OpenCV does.

    Raises:
        DataError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} is not an image that can be read ({error})") from error


def _compressed(runs: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    counts = runs["counts"]
    if isinstance(counts, list):
        return dict(coco.frPyObjects({"counts": counts, "size": [height, width]}, height, width))
    return {
        "size": [height, width],
        "counts": counts.encode() if isinstance(counts, str) else counts,
    }


def _decode(runs: dict[str, Any]) -> Mask:
    with warnings.catch_warnings():
        # pycocotools 2.0.11 predates NumPy 2's copy keyword; what it returns is right.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return np.asarray(coco.decode(runs), np.uint8)


def _digest(*parts: Any) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
