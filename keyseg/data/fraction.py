"""A part of the training images, to see how much data a variant needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keyseg.config import ALL
from keyseg.data.files import DataError
from keyseg.data.mix import Source, groups

_STREAM = 3
"""First element of the generator's seed; `ImageSampler` has those below."""


def fewer(sources: Sequence[Source], images: float | str, seed: int) -> list[Source]:
    """The sources with the examples of some images only, drawn at random over all of them.

    A smaller number is a part of a larger one, and every variant gets the same at the same seed.
    A source of which no image is drawn is left out.

    Args:
        sources: of the train split.
        images: how many, a share of all below 1, or `ALL`.
        seed: of the run.

    Raises:
        DataError: there are not so many.
    """
    if images == ALL:
        return list(sources)
    every = list(dict.fromkeys(g.image for source in sources for g in groups(source.examples)))
    if isinstance(images, float) and images < 1:
        images = max(1, round(images * len(every)))
    if int(images) > len(every):
        raise DataError(
            f"data.train_images={images}: train has {len(every)} images; give fewer, or {ALL}"
        )
    order = np.random.default_rng((_STREAM, seed)).permutation(len(every))
    kept = {every[i] for i in order[: int(images)]}
    cut = [Source([e for e in s.examples if e.image in kept], s.weight) for s in sources]
    return [source for source in cut if source.examples]
