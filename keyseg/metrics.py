"""Scores as sums and counts (LISA's definitions), and the summary of a table of samples.

Shapes: N masks, H x W pixels. Every sum is a whole number, so that scores do not depend on the
order, the batch size or the number of processes. All scores are shares, 0 to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco

IGNORE = 255
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
RIGHT_MASK = 0.5
"""IoU from which a mask counts as right in the discrepancy rates."""
TOP = 5
_UNIT = 1 << 60
"""IoUs are summed in whole numbers of 1 / _UNIT: exact, whatever the order."""

Array = NDArray[Any]


def intersection_union(pred: Array, target: Array) -> tuple[Array, Array]:
    """Pixels in the intersection and in the union of the foregrounds.

    Args:
        pred: bool (N, H, W) or (H, W).
        target: uint8, same shape: 0, 1, and 255 = pixels that do not count.

    Returns:
        Two int64 arrays, (N,) or, for one mask, ().
    """
    if pred.dtype != np.bool_:
        raise TypeError(f"pred is {pred.dtype}, not bool: compare logits with 0 first")
    if pred.shape != target.shape or pred.ndim not in (2, 3):
        raise ValueError(f"pred {pred.shape} and target {target.shape}: need one (N, H, W)")
    if ((target > 1) & (target != IGNORE)).any():
        # Parts of a mask that were summed where they overlap would never match (value 2).
        raise ValueError(f"target has values other than 0, 1, {IGNORE}: {np.unique(target)}")
    foreground, counted = target == 1, target != IGNORE
    intersection = np.count_nonzero(pred & foreground, axis=(-2, -1))
    union = np.count_nonzero((pred | foreground) & counted, axis=(-2, -1))
    return np.asarray(intersection, np.int64), np.asarray(union, np.int64)


def iou(intersection: ArrayLike, union: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union; 1 where the union is empty: nothing to find, nothing predicted."""
    i, u = np.asarray(intersection, np.int64), np.asarray(union, np.int64)
    return np.where(u == 0, 1.0, i / np.maximum(u, 1))


@dataclass
class MaskScores:
    """Sums over masks, from which the scores follow. `a + b` scores both parts together."""

    count: int = 0
    intersection: int = 0
    union: int = 0
    iou_units: int = 0
    above: dict[float, int] = field(default_factory=lambda: dict.fromkeys(THRESHOLDS, 0))
    empty_targets: int = 0
    empty_found: int = 0
    empty_predictions: int = 0
    targets_missed: int = 0

    def add(self, intersection: ArrayLike, union: ArrayLike, target: ArrayLike) -> None:
        """Count masks by their pixels in intersection, union and target (ints, or (N,) each).

        The prediction's pixels follow: intersection + union - target. None of the three counts
        ignored pixels.
        """
        columns = (np.atleast_1d(np.asarray(c, np.int64)) for c in (intersection, union, target))
        i, u, t = np.broadcast_arrays(*columns)
        p = i + u - t
        if ((i < 0) | (i > np.minimum(t, p))).any():
            raise ValueError("intersection, union and target areas do not fit together")
        self.count += i.size
        self.intersection += int(i.sum())
        self.union += int(u.sum())
        for a, b in zip(i.tolist(), u.tolist(), strict=True):
            self.iou_units += a * _UNIT // b if b else _UNIT
        values = iou(i, u)
        for x in THRESHOLDS:
            self.above[x] += int(np.count_nonzero(values > x))
        self.empty_targets += int(np.count_nonzero(t == 0))
        self.empty_found += int(np.count_nonzero((t == 0) & (p == 0)))
        self.empty_predictions += int(np.count_nonzero(p == 0))
        self.targets_missed += int(np.count_nonzero((t > 0) & (p == 0)))

    def add_masks(self, pred: Array, target: Array) -> None:
        """Count masks: pred bool and target uint8, both (N, H, W) or (H, W), 255 ignored."""
        area = np.count_nonzero(target == 1, axis=(-2, -1))
        self.add(*intersection_union(pred, target), area)

    def __add__(self, other: MaskScores) -> MaskScores:
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in vars(self)
            if name != "above"
        }
        above = {x: self.above[x] + other.above[x] for x in THRESHOLDS}
        return MaskScores(**sums, above=above)

    @property
    def giou(self) -> float:
        """Mean IoU over masks; an empty target counts 1 if nothing is predicted, else 0."""
        return _share(self.iou_units, self.count * _UNIT)

    @property
    def ciou(self) -> float:
        """Sum of intersections over sum of unions; 1 if there is not one foreground pixel."""
        return _share(self.intersection, self.union) if self.union or not self.count else 1.0

    def precision(self, threshold: float) -> float:
        """Share of masks with an IoU above the threshold, one of `THRESHOLDS`."""
        return _share(self.above[threshold], self.count)

    @property
    def n_acc(self) -> float:
        """gRefCOCO: share of empty targets for which nothing is predicted."""
        return _share(self.empty_found, self.empty_targets)

    @property
    def t_acc(self) -> float:
        """gRefCOCO: share of the other targets for which something is predicted."""
        targets = self.count - self.empty_targets
        return _share(targets - self.targets_missed, targets)

    @property
    def empty_rate(self) -> float:
        """Share of masks in which nothing is predicted."""
        return _share(self.empty_predictions, self.count)

    def summary(self) -> dict[str, float]:
        """giou, ciou, precision@X, empty_rate, examples; n_acc and t_acc if a target is empty."""
        scores = {"giou": self.giou, "ciou": self.ciou}
        scores |= {f"precision@{x}": self.precision(x) for x in THRESHOLDS}
        scores |= {"empty_rate": self.empty_rate, "examples": float(self.count)}
        if self.empty_targets:
            scores |= {"n_acc": self.n_acc, "t_acc": self.t_acc}
        return scores


@dataclass(frozen=True)
class Collisions:
    """How far the first tokens of keywords, which the keyword loss takes for targets, tell apart.

    keywords: how many there are. distinct: different ones. colliding: those that share their first
    token with a different keyword. majority: those with the most frequent first token, which is
    what a model that always says it would get right.
    """

    keywords: int
    distinct: int
    colliding: int
    majority: int


def shared_tokens(keywords: Iterable[str], tokens: Iterable[str]) -> dict[str, list[str]]:
    """{first token: its keywords} where it has several; those with the most examples first."""
    by_token: dict[str, Counter[str]] = {}
    for keyword, token in zip(keywords, tokens, strict=True):
        by_token.setdefault(token, Counter())[keyword] += 1
    several = [(token, found) for token, found in by_token.items() if len(found) > 1]
    several.sort(key=lambda item: -item[1].total())
    return {token: [keyword for keyword, _ in found.most_common()] for token, found in several}


def collisions(keywords: Iterable[str], tokens: Iterable[str]) -> Collisions:
    """Count keywords by their first tokens, given beside them."""
    words, firsts = list(keywords), list(tokens)
    shared = shared_tokens(words, firsts)
    return Collisions(
        keywords=len(words),
        distinct=len(set(words)),
        colliding=sum(token in shared for token in firsts),
        majority=max(Counter(firsts).values(), default=0),
    )


def keyword_scores(
    ranks: ArrayLike, keywords: ArrayLike, ious: ArrayLike, tokens: ArrayLike | None = None
) -> dict[str, float]:
    """Keyword accuracy, its majority-class baseline, and how often keyword and mask disagree.

    Args:
        ranks: int (N,), 0 = right; -1 = none was predicted, which is wrong.
        keywords: str or None (N,), the true ones. Examples without one do not count.
        ious: float (N,), of the masks.
        tokens: str (N,), the keywords' first tokens, by which right and wrong are told; None (old
            results) = the keywords themselves.

    Returns:
        `keyword_majority` is the accuracy of always saying the commonest first token of these
        examples; `keyword_collisions` the share whose first token is another keyword's as well.
        Every value is NaN where no example has a keyword.
    """
    truth = np.asarray(keywords, object)
    known = pd.notna(truth)
    rank, good_mask = np.asarray(ranks)[known], np.asarray(ious)[known] >= RIGHT_MASK
    n, right = len(rank), rank == 0
    first = truth if tokens is None else np.asarray(tokens, object)
    found = collisions(truth[known], first[known])
    return {
        "keyword_accuracy": _share(np.count_nonzero(right), n),
        f"keyword_accuracy_top{TOP}": _share(np.count_nonzero((rank >= 0) & (rank < TOP)), n),
        "keyword_majority": _share(found.majority, n),
        "keyword_collisions": _share(found.colliding, n),
        "discrepancy_keyword_right_mask_wrong": _share(np.count_nonzero(right & ~good_mask), n),
        "discrepancy_keyword_wrong_mask_right": _share(np.count_nonzero(~right & good_mask), n),
    }


def summarise(samples: pd.DataFrame) -> dict[str, float]:
    """Scores of one protocol from its rows of samples.parquet.

    The generated protocol adds `no_seg_rate` and `no_key_rate`: answers without the token. Where
    answers were not to hold KEY (`key_asked` is false), there is no score of keyword or KEY at all.

    Raises:
        ValueError: no rows, a missing column, or rows of several protocols.
    """
    needed = {"intersection", "union", "target_rle", "height", "width", "keyword", "keyword_rank"}
    if missing := sorted(needed - set(samples.columns)):
        raise ValueError(f"samples have no column {', '.join(missing)}")
    if samples.empty:
        raise ValueError("no samples: nothing to score")
    protocols = samples["protocol"].unique().tolist() if "protocol" in samples else []
    if len(protocols) > 1:
        raise ValueError(f"samples of several protocols ({', '.join(protocols)}): take one")
    scores = MaskScores()
    scores.add(samples["intersection"], samples["union"], _target_areas(samples))
    ious = iou(samples["intersection"], samples["union"])
    summary = scores.summary()
    tokens = samples.get("keyword_token")
    asked = key_asked(samples)
    if asked:
        summary |= keyword_scores(samples["keyword_rank"], samples["keyword"], ious, tokens)
    if protocols == ["generated"]:
        summary["no_seg_rate"] = float((~samples["has_seg"].astype(bool)).mean())
        if asked:
            summary["no_key_rate"] = float((~samples["has_key"].astype(bool)).mean())
    return summary


def key_asked(samples: pd.DataFrame) -> bool:
    """Whether answers were to hold KEY; those from before there was a choice were."""
    return "key_asked" not in samples or bool(samples["key_asked"].all())


def summarise_by(samples: pd.DataFrame, slice_name: str) -> dict[str, dict[str, float]]:
    """`summarise` for each value of a slice ("style", "size", ...), in order of the values.

    Raises:
        ValueError: the samples do not have this slice.
    """
    column = f"slice_{slice_name}"
    if column not in samples:
        known = [str(c).removeprefix("slice_") for c in samples if str(c).startswith("slice_")]
        raise ValueError(f"samples have no slice '{slice_name}'; they have: {', '.join(known)}")
    return {str(value): summarise(rows) for value, rows in samples.groupby(column, sort=True)}


def _target_areas(samples: pd.DataFrame) -> NDArray[np.int64]:
    columns = (samples[name] for name in ("target_rle", "height", "width"))
    areas = [
        int(coco.area({"counts": runs.encode(), "size": [int(h), int(w)]})) if runs else 0
        for runs, h, w in zip(*columns, strict=True)
    ]
    return np.array(areas, np.int64)


def _share(part: int | np.integer[Any], whole: int) -> float:
    return int(part) / whole if whole else float("nan")
