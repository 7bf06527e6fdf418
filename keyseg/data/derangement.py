"""For a control: gives every expression of a split the KEY of another, the same in every run.

A permutation without fixed points: no expression keeps its own, every one is given once, so that
what is given is as often this or that as before. The other is of another image, and of another
category (keyword) where the split has enough of them. It depends on the split's examples alone:
not on their order, and on no seed, batch, micro-batch or process.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from keyseg.config import ConfigError
from keyseg.data.example import Example
from keyseg.data.files import DataError

_TRIES = 500
"""Places that are looked at to mend one pair; all of them in a small split."""


def check_keywords(who: str, examples: Sequence[Example]) -> None:
    """Whether a split has keywords, for a control that is given them.

    Raises:
        ConfigError: it has none; names the control and an example.
    """
    if not any(e.keyword for e in examples):
        raise ConfigError(
            f"{who} is given the true keyword, and a split of this data ({examples[0].id} and "
            "others) has none: take data with keywords"
        )


def derangement(examples: Sequence[Example]) -> dict[str, Example]:
    """For each example's id, the example whose KEY it is given.

    Raises:
        DataError: one image has more than half of the expressions, so that none of another image
            is left for some of them.
    """
    ordered = sorted(examples, key=lambda e: hashlib.sha256(e.id.encode()).digest())
    image, count = Counter(e.image_id for e in ordered).most_common(1)[0]
    if 2 * count > len(ordered):
        raise DataError(
            f"image {image} has {count} of {len(ordered)} expressions of its split: a control that "
            "takes KEY from another image needs one in which no image has more than half"
        )
    by_category = _mended(ordered, _shifted(ordered, lambda e: e.keyword or ""))
    if not any(_clash(a, b) > 1 for a, b in zip(ordered, by_category, strict=True)):
        return {e.id: other for e, other in zip(ordered, by_category, strict=True)}
    by_image = _mended(ordered, _shifted(ordered, lambda e: e.image_id))
    return {e.id: other for e, other in zip(ordered, by_image, strict=True)}


def _shifted(ordered: Sequence[Example], group: Callable[[Example], str]) -> list[Example]:
    """Each one's other: as far down a list sorted by groups as the largest group is long.

    Two of a group are met only where that has more than half of all.
    """
    sizes = Counter(map(group, ordered))
    places = sorted(
        range(len(ordered)), key=lambda i: (-sizes[group(ordered[i])], group(ordered[i]))
    )
    largest = max(sizes.values())
    others: dict[int, Example] = {}
    for n, place in enumerate(places):
        others[place] = ordered[places[(n + largest) % len(places)]]
    return [others[i] for i in range(len(ordered))]


def _clash(example: Example, other: Example) -> int:
    """0: another image and category; 1: the same category; 2 and more: the same image."""
    same = example.keyword is not None and example.keyword == other.keyword
    return int(same) + 2 * int(example.image_id == other.image_id)


def _mended(ordered: Sequence[Example], others: list[Example]) -> list[Example]:
    """Pairs that clash exchange their others with pairs that do not mind."""
    count = len(ordered)
    rng = np.random.default_rng(count)
    for i in range(count):
        if not (now := _clash(ordered[i], others[i])):
            continue
        tried = range(count) if count <= _TRIES else rng.integers(count, size=_TRIES).tolist()
        for j in tried:
            kept = now + _clash(ordered[j], others[j])
            changed = _clash(ordered[i], others[j]) + _clash(ordered[j], others[i])
            if changed < kept:
                others[i], others[j] = others[j], others[i]
                now = _clash(ordered[i], others[i])
                if not now:
                    break
    return others
