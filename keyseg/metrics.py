"""What is measured: one table of measures, each a ratio of two sums over examples.

A run's summary, the report's tables and its bootstrap read this table, so that a measure has one
definition. Sums add up over examples, images, slices, resamples and processes, so scores do not
depend on the order, the batch size or the number of processes. The definitions are LISA's (gIoU,
cIoU), gRefCOCO's (N-acc, T-acc), MUSE's with a matching that is not random (muse_det), and the
paper's for the disagreement of keyword and mask.

Shapes: N examples (rows of samples.parquet), H x W pixels. All scores are fractions, 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco

from keyseg.config import GENERATED
from keyseg.data.example import VOID
from keyseg.data.keywords.first_tokens import Collisions, collisions

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
RIGHT_MASK = 0.5
"""IoU from which a mask counts as right where keyword and mask are compared."""
_TOP = 5

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
    if ((target > 1) & (target != VOID)).any():
        # Parts of a mask that were summed where they overlap would never match (value 2).
        raise ValueError(f"target has values other than 0, 1, {VOID}: {np.unique(target)}")
    foreground, counted = target == 1, target != VOID
    intersection = np.count_nonzero(pred & foreground, axis=(-2, -1))
    union = np.count_nonzero((pred | foreground) & counted, axis=(-2, -1))
    return np.asarray(intersection, np.int64), np.asarray(union, np.int64)


def iou(intersection: ArrayLike, union: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union; 1 where the union is empty: nothing to find, nothing predicted."""
    i, u = np.asarray(intersection, np.int64), np.asarray(union, np.int64)
    return np.where(u == 0, 1.0, i / np.maximum(u, 1))


class Examples:
    """Rows of samples.parquet with what the terms of the measures are made of, (N,) each."""

    def __init__(self, samples: pd.DataFrame) -> None:
        self.samples = samples

    def column(self, name: str) -> Array:
        """A column as it is stored."""
        return self.samples[name].to_numpy()

    @cached_property
    def iou(self) -> Array:
        """Of the masks; NaN where a run measured none."""
        if "iou" in self.samples:
            return self.samples["iou"].to_numpy(float)
        return iou(self.samples["intersection"], self.samples["union"])

    @cached_property
    def counted(self) -> Array:
        """Whether an example counts at all: its IoU is a number."""
        return np.isfinite(self.iou)

    @cached_property
    def key_asked(self) -> bool:
        """Whether answers were to hold KEY; else nothing of KEY and keyword is measured."""
        return key_asked(self.samples)

    @cached_property
    def has_keyword(self) -> Array:
        """Whether its keyword is known and asked for; others count in no measure of keywords."""
        known: Array = with_keyword(self.samples).to_numpy() & self.key_asked
        return known

    @cached_property
    def rank(self) -> Array:
        """Words that KEY ranks above the keyword; -1 where it names none, which is wrong."""
        return self.samples["keyword_rank"].fillna(-1).to_numpy()

    @property
    def keyword_right(self) -> Array:
        """Whether KEY's first word is the keyword."""
        right: Array = self.has_keyword & (self.rank == 0)
        return right

    @cached_property
    def noun_asked(self) -> Array:
        """Whether the model was to name the target in its answer, and its noun is known."""
        if "answer_noun" not in self.samples:
            return np.zeros(len(self.samples), bool)
        named = self.samples["answer_noun"].notna() & self.samples["target_noun"].notna()
        asked: Array = named.to_numpy()
        return asked

    @property
    def noun_right(self) -> Array:
        """Whether the noun of the answer is the target's; an answer without a noun is wrong."""
        right: Array = self.noun_asked & (
            self.column("answer_noun") == self.column("target_noun")
            if "answer_noun" in self.samples
            else False
        )
        return right

    @property
    def mask_right(self) -> Array:
        """Whether the IoU is that of a right mask."""
        right: Array = self.iou >= RIGHT_MASK
        return right

    @cached_property
    def target_area(self) -> Array:
        """Pixels of the target; NaN where none is stored."""
        if "target_rle" not in self.samples:
            return np.full(len(self.samples), np.nan)
        names = ("target_rle", "height", "width")
        columns = zip(*(self.samples[name] for name in names), strict=True)
        areas = [_area(c, int(h), int(w)) if c and pd.notna(c) else np.nan for c, h, w in columns]
        return np.array(areas, float)

    @cached_property
    def predicted_area(self) -> Array:
        """Pixels of the prediction that count, from the sums that are stored; NaN: not known."""
        area: Array = self.column("intersection") + self.column("union") - self.target_area
        return area

    def optional(self, name: str) -> Array:
        """A column that not every query has; 0 for all others."""
        if name not in self.samples:
            return np.zeros(len(self.samples))
        column: Array = self.samples[name].fillna(0).to_numpy(float)
        return column

    @property
    def most(self) -> Array:
        """Masks or targets of a query that may have several, whichever are more; 0 for others."""
        return np.maximum(self.optional("n_masks"), self.optional("n_targets"))

    @property
    def may_have_several(self) -> Array:
        """Whether a query may have several targets, so that the answer decides how many."""
        if "n_targets" not in self.samples:
            return np.zeros(len(self.samples), bool)
        several: Array = self.samples["n_targets"].notna().to_numpy()
        return several

    @property
    def rejected(self) -> Array:
        """Whether a token or a score of its own says that there is no target."""
        return self.optional("rejected").astype(bool)

    @property
    def empty(self) -> Array:
        """Whether nothing is predicted; False where that is not known."""
        nothing: Array = self.predicted_area == 0
        return nothing

    @property
    def no_target(self) -> Array:
        """Whether the expression names nothing on purpose (gRefCOCO)."""
        nothing: Array = self.target_area == 0
        return nothing

    @property
    def has_target(self) -> Array:
        """Whether it names something, in data of which some expressions do not."""
        something: Array = (self.target_area > 0) & bool(self.no_target.any())
        return something


@lru_cache(maxsize=2**16)
def _area(counts: str, height: int, width: int) -> float:
    """Every run of a sweep has the same targets: each is decoded once."""
    return float(coco.area({"size": [height, width], "counts": counts.encode()}))


def with_keyword(samples: pd.DataFrame) -> pd.Series[bool]:
    """Which examples have a keyword."""
    return samples["keyword"].notna() & (samples["keyword"] != "")


def key_asked(samples: pd.DataFrame) -> bool:
    """Whether answers were to hold KEY; those from before there was a choice were."""
    return "key_asked" not in samples or bool(samples["key_asked"].all())


@dataclass(frozen=True)
class Term:
    """What each example adds to a sum. `of`: (N,) numbers or bools."""

    name: str
    of: Callable[[Examples], Array]


@dataclass(frozen=True)
class Measure:
    """Sum of one term over the examples, divided by the sum of another.

    `better`: +1 higher is better, -1 lower is better, 0 neither. `generated`: says something only
    where the model writes the answer itself; the summary of another protocol leaves it out.
    """

    name: str
    title: str
    numerator: Term
    denominator: Term
    better: int
    explanation: str
    generated: bool = False


def _above(threshold: float) -> Term:
    return Term(f"above_{threshold}", lambda e: e.iou > threshold)


EXAMPLES = Term("examples", lambda e: e.counted)
_KEYWORDS = Term("has_keyword", lambda e: e.has_keyword)
_NOUNS = Term("noun_asked", lambda e: e.noun_asked)

_OWN: tuple[Measure, ...] = (
    Measure("giou", "gIoU", Term("iou", lambda e: e.iou), EXAMPLES, 1, "mean IoU over examples"),
    Measure(
        "ciou",
        "cIoU",
        Term("intersection", lambda e: e.column("intersection")),
        Term("union", lambda e: e.column("union")),
        1,
        "summed intersection over summed union",
    ),
    *(
        Measure(f"precision@{x}", f"P@{x}", _above(x), EXAMPLES, 1, f"share with IoU > {x}")
        for x in THRESHOLDS
    ),
    Measure(
        "keyword_accuracy",
        "Keyword acc.",
        Term("keyword_right", lambda e: e.keyword_right),
        _KEYWORDS,
        1,
        "KEY's top word is the keyword",
    ),
    Measure(
        f"keyword_accuracy_top{_TOP}",
        f"Keyword top {_TOP}",
        Term("keyword_near", lambda e: e.has_keyword & (e.rank >= 0) & (e.rank < _TOP)),
        _KEYWORDS,
        1,
        f"the keyword is among KEY's top {_TOP} words",
    ),
    Measure(
        "discrepancy_keyword_right_mask_wrong",
        "Key right, mask wrong",
        Term("right_wrong", lambda e: e.keyword_right & (e.iou < RIGHT_MASK)),
        _KEYWORDS,
        -1,
        f"share with the right keyword and IoU < {RIGHT_MASK}",
    ),
    Measure(
        "discrepancy_keyword_wrong_mask_right",
        "Key wrong, mask right",
        Term("wrong_right", lambda e: e.has_keyword & ~e.keyword_right & e.mask_right),
        _KEYWORDS,
        -1,
        f"share with a wrong keyword and IoU ≥ {RIGHT_MASK}",
    ),
    Measure(
        "noun_accuracy",
        "Noun acc.",
        Term("noun_right", lambda e: e.noun_right),
        _NOUNS,
        1,
        "the answer's noun is the target's",
        generated=True,
    ),
    Measure(
        "noun_right_mask_wrong",
        "Noun right, mask wrong",
        Term("noun_right_wrong", lambda e: e.noun_right & (e.iou < RIGHT_MASK)),
        _NOUNS,
        -1,
        f"share with the right noun and IoU < {RIGHT_MASK}",
        generated=True,
    ),
    Measure(
        "noun_wrong_mask_right",
        "Noun wrong, mask right",
        Term("noun_wrong_right", lambda e: e.noun_asked & ~e.noun_right & e.mask_right),
        _NOUNS,
        -1,
        f"share with a wrong noun and IoU ≥ {RIGHT_MASK}",
        generated=True,
    ),
    Measure(
        "empty_rate",
        "Empty",
        Term("empty", lambda e: e.empty),
        Term("known_mask", lambda e: ~np.isnan(e.predicted_area)),
        -1,
        "share of empty predicted masks",
    ),
    Measure(
        "no_seg_rate",
        "No SEG",
        Term("no_seg", lambda e: ~e.column("has_seg").astype(bool) & ~e.rejected),
        EXAMPLES,
        -1,
        "share of answers without SEG",
        generated=True,
    ),
    Measure(
        "no_key_rate",
        "No KEY",
        Term(
            "no_key",
            lambda e: ~e.column("has_key").astype(bool) & e.key_asked & ~e.rejected,
        ),
        Term("key_asked", lambda e: e.counted & e.key_asked),
        -1,
        "share of answers without KEY",
        generated=True,
    ),
    Measure(
        "n_acc",
        "N-acc",
        Term("nothing_found", lambda e: e.no_target & e.empty),
        Term("no_target", lambda e: e.no_target),
        1,
        "no-target examples left empty",
    ),
    Measure(
        "t_acc",
        "T-acc",
        Term("something_found", lambda e: e.has_target & (e.predicted_area > 0)),
        Term("has_target", lambda e: e.has_target),
        1,
        "the others not left empty",
    ),
    Measure(
        "muse_det_giou",
        "gIoU (muse_det)",
        Term("matched_iou", lambda e: e.optional("matched_iou")),
        Term("most_masks", lambda e: e.most),
        1,
        "IoU of matched masks over all masks or targets, whichever are more",
    ),
    Measure(
        "muse_det_ciou",
        "cIoU (muse_det)",
        Term("matched_intersection", lambda e: e.optional("matched_intersection")),
        Term("matched_union", lambda e: e.optional("matched_union")),
        1,
        "summed intersection over summed union of matched masks",
    ),
    Measure(
        "muse_det_keyword",
        "Keyword acc. (muse_det)",
        Term("keywords_right", lambda e: e.optional("keywords_right")),
        Term("keywords_known", lambda e: e.optional("keywords_known")),
        1,
        "share of targets whose mask's KEY names them",
    ),
    Measure(
        "muse_det_count",
        "Right count",
        Term(
            "right_count",
            lambda e: e.may_have_several & (e.optional("n_masks") == e.optional("n_targets")),
        ),
        Term("may_have_several", lambda e: e.may_have_several),
        1,
        "share of answers with as many masks as targets",
        generated=True,
    ),
)
NO_TARGET = ("n_acc", "t_acc")
"""Measures of data in which some expressions name nothing on purpose; absent elsewhere."""
OF_NOUN = ("noun_accuracy", "noun_right_mask_wrong", "noun_wrong_mask_right")
"""Measures of what the model calls the target in the answer that it writes; absent where it writes
none, or is not to name it."""

OF_SEVERAL = ("muse_det_giou", "muse_det_ciou", "muse_det_keyword", "muse_det_count")
"""Measures of data whose queries may have several targets, with a mask each; absent elsewhere."""
SOME_DATA = (NO_TARGET, OF_NOUN, OF_SEVERAL)
"""Families of measures that not all data have."""

# All of these grow with every measure; nobody holds a copy.
MEASURES: list[Measure] = []
BY_NAME: dict[str, Measure] = {}
OF_KEY: set[str] = set()
"""Measures of KEY and its keyword: not asked where answers hold no KEY."""
TERMS: dict[str, Term] = {}
COLUMNS: list[str] = []
"""Names of the terms, in the order of the sums' columns."""
NUMERATORS: list[int] = []
DENOMINATORS: list[int] = []
"""Columns of each measure's two terms."""


def register(measure: Measure) -> None:
    """Add a measure: from then on summaries, tables and bootstrap have it.

    Raises:
        ValueError: another measure has the name, or another term has that of one of its terms.
    """
    if BY_NAME.get(measure.name) == measure:
        return
    if measure.name in BY_NAME:
        title = BY_NAME[measure.name].title
        raise ValueError(f"measure {measure.name}: there is one of this name, '{title}'")
    for term in (measure.numerator, measure.denominator):
        if TERMS.setdefault(term.name, term) != term:
            raise ValueError(f"measure {measure.name}: its term {term.name} is another's as well")
    COLUMNS[:] = TERMS
    MEASURES.append(measure)
    BY_NAME[measure.name] = measure
    if measure.denominator.name in ("has_keyword", "key_asked", "keywords_known"):
        OF_KEY.add(measure.name)
    NUMERATORS.append(COLUMNS.index(measure.numerator.name))
    DENOMINATORS.append(COLUMNS.index(measure.denominator.name))


for _measure in _OWN:
    register(_measure)


def further() -> list[Measure]:
    """Measures that other packages registered."""
    return MEASURES[len(_OWN) :]


def terms(samples: pd.DataFrame) -> pd.DataFrame:
    """What each example adds to every sum: `COLUMNS` (float), index as in `samples`.

    An example without a finite IoU counts in no sum; one without a keyword in no sum of keywords,
    and one whose answer has no KEY names no word, which is wrong. Where the target was not stored,
    it is not known whether the prediction is empty. N-acc and T-acc exist where some example of the
    table has no target.
    """
    examples = Examples(samples)
    columns = {name: term.of(examples) for name, term in TERMS.items()}
    frame = pd.DataFrame(columns, index=samples.index).astype(float)
    return frame.where(pd.Series(examples.counted, index=samples.index), 0.0)


def ratios(sums: Array) -> Array:
    """(..., len(COLUMNS)) sums -> (..., len(MEASURES)) values; NaN where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Array = sums[..., NUMERATORS] / sums[..., DENOMINATORS]
    return value


def majority(samples: pd.DataFrame) -> float:
    """Keyword accuracy of always naming the most frequent first token of these examples."""
    counts = _keywords(samples)
    return counts.majority / counts.keywords if counts.keywords else float("nan")


def colliding(samples: pd.DataFrame) -> float:
    """Share of keywords whose first token is another keyword's too; NaN where none was stored."""
    counts = _keywords(samples)
    known = counts.keywords and "keyword_token" in samples
    return counts.colliding / counts.keywords if known else float("nan")


def _keywords(samples: pd.DataFrame) -> Collisions:
    rows = samples[with_keyword(samples)]
    # Results from before first tokens were stored are told apart by whole keywords.
    tokens = rows["keyword_token" if "keyword_token" in rows else "keyword"]
    return collisions(rows["keyword"], tokens)


def summarise(samples: pd.DataFrame) -> dict[str, float]:
    """Scores of one protocol from its rows of samples.parquet: every measure that applies.

    `examples` is their number; `keyword_majority` the accuracy of always saying the commonest first
    token of these examples; `keyword_collisions` the share whose first token is another keyword's
    as well. NaN where nothing counts, as keyword accuracy where no example has a keyword. Where
    answers were to hold no KEY, there is no score of KEY and keyword at all.

    Raises:
        ValueError: no rows, a missing column, rows of several protocols, or counts of pixels that
            cannot be.
    """
    needed = {"intersection", "union", "target_rle", "height", "width", "keyword", "keyword_rank"}
    if missing := sorted(needed - set(samples.columns)):
        raise ValueError(f"samples have no column {', '.join(missing)}")
    if samples.empty:
        raise ValueError("no samples: nothing to score")
    protocols = samples["protocol"].unique().tolist() if "protocol" in samples else []
    if len(protocols) > 1:
        raise ValueError(f"samples of several protocols ({', '.join(protocols)}): take one")
    _check_pixels(Examples(samples))
    # Sums are rounded once, at their end: the same bits whatever the order of the rows.
    sums = {name: math.fsum(column) for name, column in terms(samples).items()}
    summary, asked = {}, key_asked(samples)
    for measure in MEASURES:
        if measure.generated and protocols != [GENERATED]:
            continue
        if measure.name in NO_TARGET and not sums["no_target"]:
            continue
        if measure.name in OF_KEY and not asked:
            continue
        if measure.name in OF_NOUN and not sums["noun_asked"]:
            continue
        if measure.name in OF_SEVERAL and not sums["may_have_several"]:
            continue
        whole = sums[measure.denominator.name]
        summary[measure.name] = sums[measure.numerator.name] / whole if whole else math.nan
    if asked:
        summary |= {"keyword_majority": majority(samples), "keyword_collisions": colliding(samples)}
    return summary | {"examples": float(len(samples))}


def _check_pixels(examples: Examples) -> None:
    both, target = examples.column("intersection"), examples.target_area
    if ((both < 0) | (both > target) | (both > examples.predicted_area)).any():
        raise ValueError("intersection, union and target areas do not fit together")


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
