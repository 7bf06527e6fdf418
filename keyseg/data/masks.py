"""Masks from annotations: COCO segmentations, ReasonSeg polygons, run-length strings.

A mask recipe (`CocoMask`, `ReasonMask`) holds the annotation and draws it when called, so that a
data set of 100,000 expressions is read without drawing one. Polygons are in pixels, (x, y).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.Image import Image as PILImage
from pycocotools import mask as coco

from keyseg.data.example import VOID, Mask
from keyseg.data.files import DataError
from keyseg.data.pictures import check_size

Points = Sequence[Sequence[float]]
_FAR = 100_000
"""Pixels beyond which a coordinate is a mistake: drawing takes time and room in proportion."""


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
        check_size(self.height, self.width)
        for part in self._parts():
            if isinstance(part, dict):
                self._check_run_lengths(part)
            elif not isinstance(part, list) or len(part) % 2 or set(map(type, part)) - {int, float}:
                raise ValueError(f"segmentation part is no x, y list: {str(part)[:60]}")
            elif not _near(part):
                raise ValueError(f"segmentation part with {_odd(part)} for a coordinate")

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

    def area(self) -> float:
        """Pixels of the target, without drawing; overlaps of parts count twice."""
        return sum(map(self._part_area, self._parts()))

    def _part_area(self, part: Any) -> float:
        if isinstance(part, dict):
            return float(coco.area(_compressed(part, self.height, self.width)))
        return polygon_area(np.reshape(part, (-1, 2))) if len(part) >= 6 else 0.0

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
        if isinstance(counts, str | bytes):
            check_run_lengths(counts, self.height, self.width)
        elif not isinstance(counts, list) or set(map(type, counts)) - {int}:
            raise ValueError(f"RLE counts are no list of whole numbers: {str(counts)[:60]}")
        elif sum(counts) != self.height * self.width or min(counts) < 0:
            raise ValueError(f"RLE counts do not add up to {self.height} x {self.width}")


@dataclass(frozen=True)
class ReasonMask:
    """ReasonSeg's `shapes`, drawn as LISA's protocol defines them; no shapes = an empty mask.

    `flag` shapes are dropped. The rest is drawn in order of falling area, outline and fill, so that
    smaller shapes overwrite larger ones; a label with "ignore" in it draws VOID, any other 1.
    ReasonSeg has polygons only; labelme's rectangles and circles are drawn as such.

    Raises:
        ValueError: at once, if a shape has no label or no points, or is of another kind.
    """

    shapes: Sequence[dict[str, Any]]
    height: int
    width: int

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        for shape in self.shapes:
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
                raise ValueError(f"shape without label: {str(shape)[:60]}")
            points = shape.get("points")
            if not (isinstance(points, list) and points and all(map(_is_point, points))):
                raise ValueError(f"shape '{shape['label']}' without points: {str(points)[:60]}")
            flat = [number for point in points for number in point]
            if not _near(flat):
                raise ValueError(f"shape '{shape['label']}' with {_odd(flat)} for a coordinate")
            kind = shape.get("shape_type") or "polygon"
            if kind not in OUTLINES and shape["label"].lower() != "flag":
                raise ValueError(
                    f"shape '{shape['label']}' is a {kind}: only polygons, rectangles and circles "
                    "are drawn"
                )
            if kind in ("rectangle", "circle") and len(points) != 2:
                raise ValueError(
                    f"shape '{shape['label']}': a {kind} has 2 points, not {len(points)}"
                )

    def __call__(self) -> Mask:
        """Draw: uint8 (H, W), values 0, 1 and 255."""
        shapes = self._drawn()
        outlines = [outline(s) for s in shapes]
        areas = [raster_area(points, self.height, self.width) for points in outlines]
        canvas = Image.new("L", (self.width, self.height))
        # Largest first; of two equal ones the later first, as LISA's reversed argsort has it.
        for i in np.argsort(areas, kind="stable")[::-1]:
            value = VOID if "ignore" in shapes[i]["label"].lower() else 1
            draw_polygon(canvas, outlines[i], value)
        return np.array(canvas, np.uint8)

    def target_share(self) -> float:
        """Share of the image inside target polygons, without drawing; overlaps count twice."""
        targets = [outline(s) for s in self._drawn() if "ignore" not in s["label"].lower()]
        area = sum(max(polygon_area(points), 1.0) for points in targets)
        return min(area / (self.height * self.width), 1.0)

    @property
    def says_nothing(self) -> bool:
        """Whether the annotation itself has no shapes, as some of ReasonSeg's have."""
        return not self.shapes

    def digest(self) -> bytes:
        """Hash of the annotation, for the fingerprint of a data set."""
        return _digest(self.shapes, self.height, self.width)

    def _drawn(self) -> list[dict[str, Any]]:
        return [s for s in self.shapes if s["label"].lower() != "flag"]


def _rectangle(points: Points) -> Points:
    (left, top), (right, bottom) = points
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def _circle(points: Points) -> Points:
    (x, y), (x_edge, y_edge) = points
    radius = math.hypot(x_edge - x, y_edge - y)
    turns = [2 * math.pi * i / 360 for i in range(360)]
    return [[x + radius * math.cos(turn), y + radius * math.sin(turn)] for turn in turns]


OUTLINES: dict[str, Callable[[Points], Points]] = {
    "polygon": lambda points: points,
    "rectangle": _rectangle,
    "circle": _circle,
}
"""Of labelme's `shape_type`, which has two corners, or a centre and a point on the edge."""


def outline(shape: dict[str, Any]) -> Points:
    """The polygon that a labelme shape is drawn as."""
    return OUTLINES[shape.get("shape_type") or "polygon"](shape["points"])


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


def polygon_area(points: Points | NDArray[np.float64]) -> float:
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
        ValueError: the run lengths are damaged or of another size, or the mask is too large.
    """
    check_size(height, width)
    if not counts:
        return np.zeros((height, width), np.uint8)
    check_run_lengths(counts, height, width)
    return _decode({"counts": counts.encode(), "size": [height, width]})


def check_run_lengths(counts: str | bytes, height: int, width: int) -> None:
    """Whether compressed run lengths fill a mask of this size, no more and no less.

    pycocotools leaves what they do not fill as the memory was. A number has five bits a byte, the
    lowest first, and from the fourth number on is the difference to the one two before it.

    Raises:
        ValueError: they do not.
    """
    raw = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8)
    bits = raw.astype(np.int64) - 48
    last = np.flatnonzero(bits & 0x20 == 0)
    first = np.concatenate([[0], last[:-1] + 1]).astype(np.int64)
    lengths = last - first + 1
    whole = len(last) > 0 and last[-1] == len(raw) - 1
    if not whole or bits.min() < 0 or bits.max() > 63 or lengths.max() > 12:
        raise ValueError(f"damaged run lengths: {str(counts)[:60]}")
    place = np.arange(len(raw)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((bits & 0x1F) << (5 * place), first)
    numbers -= np.where(bits[last] & 0x10, 1 << (5 * lengths), 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    if runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(f"run lengths do not add up to {height} x {width}: {str(counts)[:60]}")


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


def _near(numbers: Sequence[float]) -> bool:
    """Whether all are numbers (NaN is none), and none is far outside of any image."""
    if not numbers:
        return True
    return min(numbers) >= -_FAR and max(numbers) <= _FAR and all(map(math.isfinite, numbers))


def _odd(numbers: Sequence[float]) -> float:
    """The worst of them, for an error."""
    return next((x for x in numbers if x != x), max(numbers, key=abs))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
