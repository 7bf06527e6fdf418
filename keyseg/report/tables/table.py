"""Tables as they are read: lines of entries, which the page and `tex` render.

An entry is a value with its interval below it. Fractions are shown in percent. Where a cell of the
design has no result, the line says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from keyseg.config import GENERATED, TEACHER_FORCED
from keyseg.metrics import BY_NAME, OF_KEY
from keyseg.report.stats.margin import number
from keyseg.report.stats.verdict import ALPHA, NO_DIFFERENCE, SMALLER_THAN
from keyseg.report.store import Sweep, VariantResult

BRIEF = (
    "giou",
    "ciou",
    "precision@0.5",
    "keyword_accuracy",
    "discrepancy_keyword_right_mask_wrong",
    "discrepancy_keyword_wrong_mask_right",
)
PROTOCOL_TITLES = {TEACHER_FORCED: "teacher-forced", GENERATED: "generated"}
DASH = "–"
NOT_ASKED = "not asked"
"""In the place of a measure of KEY where answers hold none."""
INTERVALS = (
    "Percent; in brackets the 95 % interval over test examples (bootstrap over images), absent "
    "where no example differs."
)


@dataclass(frozen=True)
class Entry:
    """One cell of a table: the value, its interval, its spread over seeds, a word of judgement."""

    value: str
    interval: str = ""
    spread: str = ""
    word: str = ""


@dataclass(frozen=True)
class Line:
    """One line. `index`: the variant's colour, None = no swatch; `hole`: why values are absent."""

    label: str
    entries: Sequence[Entry]
    index: int | None = None
    hole: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table. `name` is its file's name, `mark` says where its numbers are from.

    `header` has one title per entry, `head` stands over the labels; `text` marks columns of words,
    which are set flush left.
    """

    name: str
    title: str
    caption: str
    head: str
    header: Sequence[str]
    lines: Sequence[Line]
    mark: str = "measured"
    text: frozenset[int] = frozenset()

    def spreads(self, column: int) -> bool:
        """Whether some entry of a column has a spread: the others leave room for one."""
        return any(line.entries[column].spread for line in self.lines)


def percent(value: float, *, signed: bool = False) -> str:
    """0.5832 -> "58.3"; a dash for NaN; a real minus sign, and none on a rounded zero."""
    if not isfinite(value):
        return DASH
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def quantity(value: float, digits: int = 3) -> str:
    """1234567 -> "1.23 M", 4321 -> "4.32 k", 0.51234 -> "0.512"; a dash for NaN."""
    if not isfinite(value):
        return DASH
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """Column titles of measures."""
    return tuple(BY_NAME[name].title for name in names)


def entry(row: Mapping[Any, Any], column: str) -> Entry:
    """A row of scores or contrasts as an entry; `column`: "value" or "difference"."""
    signed = column == "difference"
    value, low, high, spread = (float(row[k]) for k in (column, "low", "high", "sd"))
    interval = f"[{percent(low, signed=signed)}, {percent(high, signed=signed)}]"
    return Entry(
        percent(value, signed=signed),
        interval if isfinite(low) and isfinite(high) else "",
        f"± {percent(spread)}" if isfinite(spread) else "",
        word(row) if signed else "",
    )


def measured(variant: VariantResult, name: str, row: Mapping[Any, Any] | None) -> Entry:
    """A variant's value of a measure as an entry; `row` of scores, None where there is none."""
    if not_asked(name, variant):
        return Entry(NOT_ASKED)
    return entry(row, "value") if row else Entry(DASH)


def not_asked(measure: str, *variants: VariantResult) -> bool:
    """Whether it is a measure of KEY, and some variant's answers hold none."""
    return measure in OF_KEY and not all(v.key_asked for v in variants)


def word(row: Mapping[Any, Any]) -> str:
    """The verdict of a row of contrasts, with the margin that the difference is shown to keep.

    And with the steps that it speaks of, if it speaks of no more than that.
    """
    said, margin = str(row["verdict"]), float(row["margin"])
    if said in ("better", "worse", "higher", "lower") and float(row["holm_equivalence"]) <= ALPHA:
        said = f"{said}, < {number(margin)}"
    elif said == NO_DIFFERENCE:
        said = f"{said} > {number(margin)}"
    elif said == SMALLER_THAN:
        said = f"{said} {number(margin)}"
    return f"{said} {row['at']}" if row["at"] else said


def protocols(sweep: Sweep) -> dict[str, str]:
    """Group titles; one nameless group where nothing is finished, so that holes still show."""
    return {p: PROTOCOL_TITLES.get(p, p) for p in sweep.protocols} or {"": ""}
