"""Pictures of noise with a rectangle to find: for benchmarks that need no data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from keyseg.data.example import Example


def examples(
    folder: Path, images: int, expressions: int, size: tuple[int, int], query: str, keyword: str
) -> Iterator[Example]:
    """Write `images` PNGs of `size` (height, width); yield `expressions` of each, all the same."""
    height, width = size
    rng = np.random.default_rng(0)
    target = np.zeros(size, np.uint8)
    target[height // 4 : height // 2, width // 4 : width // 2] = 1
    for number in range(images):
        file = folder / f"{height}-{width}-{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
        for k in range(expressions):
            name = f"{number}-{k}"
            yield Example(name, file, str(number), query, False, keyword, None, {}, target.copy)
