"""One example: one image, one expression, one mask or several. What every reader yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""Value of pixels that count neither as target nor as background."""

NAMELESS = "target"
"""What an answer calls an object that has neither a text nor a keyword (most of ReasonSeg)."""

Mask = NDArray[np.uint8]
"""(H, W), values 0, 1 and VOID."""

_SMALL, _LARGE = 0.02, 0.10
"""Share of the image that a target covers: below SMALL it is small, from LARGE on large."""

TEXTS = ("all", "first")
"""Which expressions of a target count."""

EACH, UNION = OF_TARGETS = ("each", "union")
"""Of data.targets: whether the targets of a query have a mask each, or one together."""

PLACE = "{seg}"
"""Where an answer that comes with the data has the tokens of its targets."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Target:
    """One of the targets of a query. name: what an answer calls it; None = the keyword does."""

    name: str | None
    keyword: str | None
    load_mask: Callable[[], Mask] = field(repr=False)


@dataclass(frozen=True)
class Example:
    """One image, one expression, one mask; or several, where a query may have several targets.

    `id` is the target's, "-" and the number of the expression, from 0, among the target's own.
    `image_id` is the cluster: the same for all expressions of an image, in whatever data set of
    the same folder. `text` names the target in the answer ("the red ball"); None = the keyword.
    `targets` are those of a query that may have any number of them, in the order in which an answer
    names them; `load_mask` is their union then. None = the query has one mask. `answer` says them
    in the data's own words, with `PLACE` after each; None = the prompt's template does.
    """

    id: str
    image: Path
    image_id: str
    query: str
    is_sentence: bool
    keyword: str | None
    text: str | None
    slices: dict[str, str]
    load_mask: Callable[[], Mask] = field(repr=False)
    targets: tuple[Target, ...] | None = None
    answer: str | None = None

    @property
    def no_target(self) -> bool:
        """Whether the expression names nothing on purpose, as its reader says."""
        return self.slices.get("targets") == "none"

    def mask(self) -> Mask:
        """Target, uint8 (H, W) at the image's size, values 0, 1 and 255 = ignore."""
        return self._checked(self.load_mask)

    def masks(self) -> list[Mask]:
        """A mask for each SEG of the answer: of each target, or the one of `mask`."""
        if not self.targets:
            return [self.mask()]
        return [self._checked(target.load_mask) for target in self.targets]

    def keywords(self) -> list[str | None]:
        """The keyword for each SEG of the answer."""
        return [target.keyword for target in self.targets] if self.targets else [self.keyword]

    def _checked(self, load: Callable[[], Mask]) -> Mask:
        mask = load()
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise TypeError(
                f"mask of {self.id}: uint8 (H, W) expected, not {mask.dtype} {mask.shape}"
            )
        return mask

    def columns(self, protocol: str) -> dict[str, Any]:
        """What a row of samples.parquet says of it, whatever was predicted."""
        return {
            "id": self.id,
            "image_id": self.image_id,
            "image": str(self.image),
            "query": self.query,
            "keyword": self.keyword,
            "text": self.text,
            "protocol": protocol,
            **{f"slice_{name}": value for name, value in self.slices.items()},
        }


def several_targets(data_cfg: Mapping[str, Any]) -> bool:
    """Whether queries of this `data` group may have several targets, with a mask each."""
    return data_cfg.get("targets") == EACH


def size_slice(share: float) -> str:
    """Slice by the share of the image that the target covers: empty, small, medium or large."""
    if share <= 0:
        return "empty"
    if share < _SMALL:
        return "small"
    return "medium" if share < _LARGE else "large"


def length_slice(query: str) -> str:
    """Slice by words: short (up to 3), medium (4 to 9) or long (10 and more)."""
    words = len(query.split())
    if words <= 3:
        return "short"
    return "medium" if words <= 9 else "long"


def scored(examples: Sequence[Example], texts: str) -> list[Example]:
    """The expressions that count of each target: "all", or the "first" alone."""
    return [e for e in examples if texts == "all" or e.id.endswith("-0")]


def distractor_slice(number: int) -> str:
    """Slice by how many other objects of the target's category are in the image: 0, 1, 2, 3+."""
    return str(number) if number < 3 else "3+"


def first_or_all(texts: str, of: Sequence[_T]) -> Sequence[_T]:
    """The expressions of a target that count, by the protocol key `texts`: "all" or "first"."""
    if texts not in TEXTS:
        raise ValueError(f"texts={texts}: must be one of {', '.join(TEXTS)}")
    return of[:1] if texts == "first" else of
