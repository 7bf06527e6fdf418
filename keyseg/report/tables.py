"""Tables as they are read: lines of entries, which the page and `tex` render.

An entry is a value with its interval below it. Fractions are shown in percent. Where a cell of the
design has no result, the line says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pandas as pd

from keyseg.report import printed
from keyseg.report.declared import contrasts as declared
from keyseg.report.measures import BY_NAME, NO_TARGET, colliding
from keyseg.report.store import Sweep, Variant
from keyseg.report.verdict import p_text

MASKS = ("giou", "ciou", *(f"precision@{x}" for x in (0.5, 0.6, 0.7, 0.8, 0.9)))
WORDS = (
    *("keyword_accuracy", "discrepancy_keyword_right_mask_wrong"),
    *("discrepancy_keyword_wrong_mask_right", "empty_rate", "no_seg_rate", "no_key_rate"),
)
BRIEF = (
    *("giou", "ciou", "precision@0.5", "keyword_accuracy"),
    *("discrepancy_keyword_right_mask_wrong", "discrepancy_keyword_wrong_mask_right"),
)
PROTOCOLS = {"teacher_forced": "teacher-forced", "generated": "generated"}
DASH = "–"
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


def results(sweep: Sweep, scores: pd.DataFrame) -> list[Table]:
    """The result table in three panels: masks; keywords and failures; cost."""
    whole = scores[scores["slice"] == ""]
    how = INTERVALS
    if whole["sd"].notna().any():
        how += " With several seeds: their mean, ± their standard deviation."
    chance = whole["majority"].dropna()
    floor = (
        f" ({percent(chance.iloc[0])} by always naming the most frequent)" if len(chance) else ""
    )
    shared = next((colliding(cell.samples) for cell in sweep.finished), nan)
    if isfinite(shared) and shared:
        floor += f"; {percent(shared)} of the keywords share their first token with another"
    words = (
        f"Keyword acc.: KEY's top word is the keyword{floor}. Key right, mask wrong: share of "
        "examples with the right keyword and IoU < 0.5; key wrong, mask right: a wrong keyword and "
        "IoU ≥ 0.5. Empty: no pixel predicted. No SEG, No KEY: answers without the token "
        f"(teacher-forced answers always have both). {how}"
    )
    columns, masks = MASKS, "P@X: share of examples with IoU > X."
    if whole["metric"].isin(NO_TARGET).any():
        columns = (*MASKS, *NO_TARGET)
        masks += (
            " N-acc: share of the examples without a target for which nothing is predicted; "
            "T-acc: share of the others for which something is."
        )
    return [
        _panel(sweep, whole, "results_masks", "Masks", f"{masks} {how}", columns),
        _panel(sweep, whole, "results_words", "Keywords and failures", words, WORDS),
        _cost(sweep),
    ]


def verdicts(sweep: Sweep, found: pd.DataFrame) -> list[Table]:
    """One table a metric of the design: every contrast with both sources of doubt kept apart."""
    protocol = _headline(sweep)
    out = []
    for name in sweep.metrics:
        rows = found[(found["metric"] == name) & (found["protocol"] == protocol)]
        if rows.empty:
            continue
        where = {v.label: v.index for v in sweep.variants}
        lines = [_verdict_line(row, where) for row in rows.to_dict("records")]
        lines += _without_result(sweep, set(rows["contrast"]))
        out.append(
            Table(
                f"verdicts_{name}".replace("@", "_at_"),
                f"Contrasts: {BY_NAME[name].title}",
                _verdict_caption(PROTOCOLS.get(protocol, protocol), name),
                "Contrast",
                (*_SOURCE_TITLES, "Effect size, images / seeds", "Verdict"),
                lines,
                text=frozenset({5}),
            )
        )
    return out


def _without_result(sweep: Sweep, known: set[str]) -> list[Line]:
    """Declared contrasts that nothing can be said on yet, with the reason."""
    out = []
    for contrast in declared(sweep):
        if contrast.name not in known:
            holes = [f"{v.label}: {v.hole}" for v in (contrast.of, contrast.against) if v.hole]
            nothing = [Entry(DASH)] * 6
            reason = "; ".join(holes) or "no examples in common"
            out.append(Line(contrast.name, nothing, contrast.of.index, reason))
    return out


_SOURCE_TITLES = ("Difference", "Test images", "Seeds", "Both")


def _verdict_caption(protocol: str, name: str) -> str:
    mcnemar = (
        " Below the effect sizes: examples that only the first or only the second variant has "
        "above 0.5, and McNemar's exact p (lowest common seed; expressions of one image taken for "
        "independent)."
        if name == "precision@0.5"
        else ""
    )
    return (
        f"First minus second variant, in points, {protocol}, on the same examples. Test images: "
        "these weights, other images (paired bootstrap over images; p by swapping the variants on "
        "whole images). Seeds: other seeds, these images (Student's t; p by flipping the seeds' "
        "signs). Both: other seeds and other images (variance components; Student's t). In "
        "brackets 95 % intervals, not corrected; every p is Holm's over these contrasts, and on "
        "the safe side over both. The "
        "verdict follows p over both, where there is one seed over images. Effect size: mean over "
        "standard deviation (Hedges's g of paired differences)." + mcnemar
    )


def _verdict_line(row: Mapping[Any, Any], where: Mapping[str, int]) -> Line:
    def source(name: str) -> Entry:
        low, high = float(row[f"low_{name}"]), float(row[f"high_{name}"])
        if not (isfinite(low) and isfinite(high)):
            return Entry(DASH)
        ends = f"[{percent(low, signed=True)}, {percent(high, signed=True)}]"
        return Entry(ends, p_text(float(row[f"holm_{name}"])))

    effects = [float(row[f"effect_{name}"]) for name in ("images", "seeds")]
    sizes = " / ".join(f"{e:+.2f}".replace("-", "−") if isfinite(e) else DASH for e in effects)
    odd = ""
    if row["metric"] == "precision@0.5":
        odd = f"{int(row['won'])} : {int(row['lost'])} {p_text(float(row['mcnemar']))}"
    sd = f"± {percent(float(row['sd']))}" if isfinite(float(row["sd"])) else ""
    return Line(
        str(row["contrast"]),
        (
            Entry(percent(float(row["difference"]), signed=True), spread=sd),
            *map(source, ("images", "seeds", "both")),
            Entry(sizes, odd),
            Entry("", word=str(row["verdict"])),
        ),
        where.get(str(row["label"])),
    )


def contrasts(sweep: Sweep, found: pd.DataFrame) -> Table | None:
    """Differences of every measure in brief; None where nothing is held against anything."""
    if found.empty:
        return None
    several = int(found["seeds"].max()) > 1
    over = "seeds and images" if several else "test images, of these weights"
    caption = (
        "First minus second variant, in points, on the same examples and seeds; in brackets the "
        f"95 % interval over {over}; ± the standard deviation of the seeds' differences. The word "
        "follows Holm's p over the contrasts of one column."
    )
    index = {(r["protocol"], r["contrast"], r["metric"]): r for r in found.to_dict("records")}
    where = {v.label: v.index for v in sweep.variants}
    lines = []
    for protocol, title in _protocols(sweep).items():
        rows = found[found["protocol"] == protocol].drop_duplicates("contrast")
        for name, label in zip(rows["contrast"], rows["label"], strict=True):
            found_rows = [index.get((protocol, name, m)) for m in BRIEF]
            entries = [entry(r, "difference") if r else Entry(DASH) for r in found_rows]
            lines.append(Line(str(name), entries, where.get(str(label)), group=title))
    return Table("contrasts", "All differences", caption, "Contrast", titles(BRIEF), lines)


@dataclass(frozen=True)
class Answer:
    """A line of the verdicts on top: its word, the numbers behind it, what they rest on."""

    metric: str
    contrast: str
    word: str
    text: str
    caveat: str
    index: int | None = None


def answers(sweep: Sweep, found: pd.DataFrame) -> list[Answer]:
    """What the sweep says on its metrics, a line a contrast; [] without a contrast."""
    where = {v.label: v.index for v in sweep.variants}
    out = []
    for name in sweep.metrics:
        rows = found[(found["metric"] == name) & (found["protocol"] == _headline(sweep))]
        for row in rows.to_dict("records"):
            text = str(row["sentence"])
            text = text.removeprefix(str(row["verdict"])).lstrip(":, ")
            out.append(
                Answer(
                    BY_NAME[name].title,
                    str(row["contrast"]),
                    str(row["verdict"]),
                    text,
                    str(row["caveat"]),
                    where.get(str(row["label"])),
                )
            )
    return out


def _headline(sweep: Sweep) -> str:
    return sweep.protocols[0] if sweep.protocols else ""


def by_slice(sweep: Sweep, scores: pd.DataFrame, name: str, values: Sequence[str]) -> Table:
    """The result table split by one slice, under the headline protocol."""
    protocol = sweep.protocols[0]
    part = scores[(scores["slice"] == name) & (scores["protocol"] == protocol)]
    groups = {}
    for value in values:
        rows = part[part["group"] == value]
        size = f"{int(rows['examples'].max())} examples" if len(rows) else "no examples"
        chance = percent(rows["majority"].max()) if len(rows) else DASH
        groups[value] = f"{value} ({size}; most frequent first token {chance})"
    return Table(
        f"slices_{name}",
        f"By {name.replace('_', ' ')}",
        f"The same measures by {name.replace('_', ' ')}, {PROTOCOLS.get(protocol, protocol)}. "
        + INTERVALS,
        "Variant",
        titles(BRIEF),
        _lines(sweep.variants, part, BRIEF, groups, "group"),
    )


def published(sweep: Sweep, rows: pd.DataFrame) -> Table | None:
    """Numbers in print of the variants that this sweep measures; None without any."""
    wanted = {v.fusion or v.label: v for v in sweep.variants}
    rows = printed.of(sweep, rows)
    if rows.empty:
        return None
    rows = rows.assign(differs=printed.differs(sweep, rows))
    keys = ["variant", "data", "split", "table", "row", "protocol", "backbone", "source", "differs"]
    wide = rows.pivot_table("value_percent", keys, "metric", sort=False).reset_index()
    wide["order"] = wide["variant"].map({name: v.index for name, v in wanted.items()})
    place = wide[["data", "split"]].agg(" ".join, axis=1).str.strip()
    words = {
        "Data": place,
        "Row in print": wide["row"],
        "Differs from this sweep in": wide["differs"].replace("", "nothing stated"),
        "Protocol": wide["protocol"],
        "Backbone": wide["backbone"],
        "Source": wide["source"],
    }
    # What is the same in every line is said once.
    same = {title: w.iloc[0] for title, w in words.items() if w.nunique() == 1}
    said = "".join(f" {title}: {text}." for title, text in same.items())
    kept = [title for title in words if title not in same]
    lines = []
    for i in wide.sort_values("order", kind="stable").index:
        numbers = [float(wide[k].get(i, nan)) if k in wide else nan for k in ("giou", "ciou")]
        entries = [Entry(printed.number(n) if isfinite(n) else DASH) for n in numbers]
        entries += [Entry(str(words[title][i])) for title in kept]
        variant = wanted[str(wide["variant"][i])]
        lines.append(Line(variant.label, entries, variant.index))
    return Table(
        "published",
        "In print",
        "Copied from publications, percent. Training budgets differ too: read the order of rows "
        f"within one source, not the values against the measured ones.{said}",
        "Variant",
        ("gIoU", "cIoU", *kept),
        lines,
        mark="in print",
        text=frozenset(range(2, 2 + len(kept))),
    )


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """Column titles of measures."""
    return tuple(BY_NAME[name].title for name in names)


def _panel(
    sweep: Sweep,
    whole: pd.DataFrame,
    name: str,
    title: str,
    caption: str,
    names: Sequence[str],
) -> Table:
    lines = _lines(sweep.variants, whole, names, _protocols(sweep), "protocol")
    return Table(name, title, caption, "Variant", titles(names), lines)


def _protocols(sweep: Sweep) -> dict[str, str]:
    """Group titles; one nameless group where nothing is finished, so that holes still show."""
    return {p: PROTOCOLS.get(p, p) for p in sweep.protocols} or {"": ""}


def _lines(
    variants: Sequence[Variant],
    rows: pd.DataFrame,
    names: Sequence[str],
    groups: Mapping[str, str],
    by: str,
    column: str = "value",
) -> list[Line]:
    index = {(r[by], r["label"], r["metric"]): r for r in rows.to_dict("records")}
    lines = []
    for group, title in groups.items():
        for variant in variants:
            found = [index.get((group, variant.label, name)) for name in names]
            entries = [entry(row, column) if row else Entry(DASH) for row in found]
            lines.append(Line(variant.label, entries, variant.index, variant.hole, title))
    return lines


def entry(row: Mapping[Any, Any], column: str) -> Entry:
    """A row of scores or contrasts as an entry; `column`: "value" or "difference"."""
    signed = column == "difference"
    value, low, high, spread = (float(row[k]) for k in (column, "low", "high", "sd"))
    interval = f"[{percent(low, signed=signed)}, {percent(high, signed=signed)}]"
    return Entry(
        percent(value, signed=signed),
        interval if isfinite(low) and isfinite(high) else "",
        f"± {percent(spread)}" if isfinite(spread) else "",
        str(row["verdict"]) if signed else "",
    )


def _cost(sweep: Sweep) -> Table:
    lines = []
    for variant in sweep.variants:
        mean = {
            key: variant.mean(key)
            for key in ("trainable_parameters", "steps", "seconds_per_step", "minutes")
        }
        seeds = ", ".join(str(c.seed) for c in variant.finished) or DASH
        values = [
            quantity(mean["trainable_parameters"]),
            f"{mean['steps']:.0f}" if isfinite(mean["steps"]) else DASH,
            quantity(mean["seconds_per_step"]),
            f"{mean['minutes']:.1f}" if isfinite(mean["minutes"]) else DASH,
            seeds,
        ]
        entries = [Entry(v) for v in values]
        lines.append(Line(variant.label, entries, variant.index, variant.hole))
    return Table(
        "results_cost",
        "Cost",
        "Trainable parameters, optimiser steps, seconds a step and minutes of a whole run "
        "(training and evaluation); means over seeds. Times compare only on one machine.",
        "Variant",
        ("Trainable parameters", "Steps", "Seconds a step", "Minutes in all", "Seeds"),
        lines,
    )
