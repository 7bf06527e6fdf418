"""What CLIP gets of an image that is no square: its middle, all of it padded, or squashed.

The public processors crop: of 640 x 480 pixels CLIP then never sees columns 0-79 and 560-639,
while SAM sees all of the image and the target may lie there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CROP, PAD, SQUASH = "crop", "pad", "squash"


def clip_pixels(image_processor: Any, view: str, picture: Tensor) -> Tensor:
    """Picture uint8 (3, H, W) -> CLIP's pixels (3, S, S), as a processor of its family makes them.

    `view`: "crop" as the processor does; "pad" to a square in the processor's mean colour; "squash"
    to a square.
    """
    more: dict[str, Any] = {}
    if view == PAD:
        picture = padded(picture, image_processor.image_mean)
    elif view == SQUASH:
        crop = image_processor.crop_size
        size = {"height": int(crop["height"]), "width": int(crop["width"])}
        more = {"size": size, "do_center_crop": False}
    pixels: Tensor = image_processor([picture], return_tensors="pt", **more)["pixel_values"][0]
    return pixels


def padded(picture: Tensor, colour: Any) -> Tensor:
    """In the middle of a square (3, N, N); `colour`: three shares of 255."""
    _, height, width = picture.shape
    side = max(height, width)
    fill = torch.tensor([round(255 * float(c)) for c in colour], dtype=picture.dtype)
    square = fill[:, None, None].repeat(1, side, side)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = picture
    return square


def seen_slice(target: Tensor, view: str) -> str:
    """Slice by how much of a target (H, W), True = target, CLIP sees: all, most, part or none.

    Of a cropped image that is the middle square. "most" is half and more.
    """
    whole = int(target.count_nonzero())
    if view != CROP or not whole:
        return "all"
    height, width = target.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    seen = int(target[top : top + side, left : left + side].count_nonzero())
    if seen == whole:
        return "all"
    return "most" if 2 * seen >= whole else "part" if seen else "none"
