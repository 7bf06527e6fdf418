"""Variants by their factors: which has some values, and which two an entry of `contrasts` compares.

A sweep checks a design by these rules before anything runs, and a report reads it by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Factors = Mapping[str, Any]
"""What makes a variant: the values of the swept keys."""


def matches(variant: Factors, wanted: Factors) -> bool:
    """Whether a variant has these values; text and number are the same, as on a command line.

    A factor that was dropped, because it cannot matter here, is as good with any value.
    """
    return all(str(variant[key]) == str(value) for key, value in wanted.items() if key in variant)


def compared(
    of: Factors, against: Factors, variants: Sequence[Factors]
) -> Iterator[tuple[int, int]]:
    """Places of the pairs that an entry compares; factors that it does not name are equal."""
    for i, one in enumerate(variants):
        if not matches(one, of):
            continue
        rest = {k: v for k, v in one.items() if k not in {*of, *against}}
        for j, other in enumerate(variants):
            if j != i and matches(other, {**rest, **against}):
                yield i, j
