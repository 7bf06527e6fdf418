"""Which photograph of COCO a file holds.

COCO's two divisions have the same photographs in other folders, under the same number:
train2014/COCO_train2014_000000000009.jpg is train2017/000000000009.jpg. RefCOCO-M brings its images
along, under COCO's names, perhaps with the annotation's number behind them.
"""

from __future__ import annotations

import re
from pathlib import Path

COCO_IMAGES = "images/mscoco/images/train2014"
"""Where refer data has them, relative to its folder."""

_NAME = re.compile(r"(COCO_([a-z]+\d{4})_\d+)(?:_\d+)?")
_PLACE = re.compile(r"(?:train|val|test)20\d\d/(?:COCO_[a-z]+\d{4}_)?0*(\d+)")


def image_id(image: Path, otherwise: str | None = None) -> str:
    """COCO's folder and name of an image, wherever it lies.

    Of other images `otherwise`, or else their last two folders and name.
    """
    if image.parent.name == Path(COCO_IMAGES).name:
        return f"{image.parent.name}/{image.stem}"
    if named := _NAME.fullmatch(image.stem):
        return f"{named[2]}/{named[1]}"
    return otherwise or f"{'/'.join(image.parent.parts[-2:])}/{image.stem}"


def photograph(image_id: str) -> str:
    """What two images of COCO have in common if they are one photograph; of others, their id."""
    place = _PLACE.fullmatch(image_id)
    return f"COCO {place[1]}" if place else image_id
