"""Pixels of masks that are stored as run lengths, without drawing one."""

from __future__ import annotations

from functools import lru_cache

from pycocotools import mask as coco

from keyseg.data.masks import check_run_lengths
from keyseg.data.pictures import check_size


@lru_cache(maxsize=2**16)
def area(code: str, height: int, width: int) -> int:
    """Pixels of a mask. Every run of a sweep has the same targets: each is read once.

    Raises:
        ValueError: the run lengths are damaged or of another size.
    """
    check_size(height, width)
    if not code:
        return 0
    check_run_lengths(code, height, width)
    return int(coco.area({"size": [height, width], "counts": code.encode()}))


def common(first: str, second: str, height: int, width: int) -> int:
    """Pixels in both masks, which must be whole (`area`)."""
    if not (area(first, height, width) and area(second, height, width)):
        return 0
    runs = [{"size": [height, width], "counts": code.encode()} for code in (first, second)]
    return int(coco.area(coco.merge(runs, intersect=True)))
