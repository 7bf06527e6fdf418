"""Tables of differences: every contrast with its sources of doubt, and the verdicts on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pandas as pd

from keyseg.metrics import BY_NAME
from keyseg.report.stats.collapse import FALLEN_SHARE, rate
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.margin import sentence
from keyseg.report.stats.registration import EXPLORATORY
from keyseg.report.stats.verdict import NO_DIFFERENCE, NO_RESULT, SMALLER_THAN, p_text
from keyseg.report.store import Sweep
from keyseg.report.tables.table import (
    BRIEF,
    DASH,
    NOT_ASKED,
    PROTOCOL_TITLES,
    Entry,
    Line,
    Table,
    entry,
    not_asked,
    percent,
    protocols,
    titles,
    word,
)


def verdicts(sweep: Sweep, results: pd.DataFrame) -> list[Table]:
    """One table a metric of the design: every contrast with both sources of doubt kept apart."""
    protocol = sweep.headline
    out = []
    for name in sweep.metrics:
        rows = results[(results["metric"] == name) & (results["protocol"] == protocol)]
        if rows.empty:
            continue
        where = {v.label: v.index for v in sweep.variants}
        lines = [_verdict_line(row, where) for row in rows.to_dict("records")]
        out.append(
            Table(
                f"verdicts_{name}".replace("@", "_at_"),
                f"Contrasts: {BY_NAME[name].title}",
                _verdict_caption(PROTOCOL_TITLES.get(protocol, protocol), name),
                "Contrast",
                (*_SOURCE_TITLES, "Median", "Effect size, images / seeds", "Verdict"),
                lines,
                text=frozenset({6}),
            )
        )
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
        "verdict follows p over both, where there is one seed over images. All of this is about "
        "trainings that succeeded. Median: of all seeds' differences, collapsed trainings among "
        "them, between two of which it lies with the confidence given (exact, these images). "
        "Effect size: mean over standard deviation (Hedges's g of paired differences)." + mcnemar
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
    if row["metric"] == "precision@0.5" and isfinite(float(row["won"])):
        odd = f"{int(row['won'])} : {int(row['lost'])} {p_text(float(row['mcnemar']))}"
    sd = f"± {percent(float(row['sd']))}" if isfinite(float(row["sd"])) else ""
    about = [
        str(row[key]) for key in ("look", "training", "collapsed") if isinstance(row[key], str)
    ]
    about += [EXPLORATORY] if row["declared"] == EXPLORATORY else []
    return Line(
        str(row["contrast"]),
        (
            Entry(percent(float(row["difference"]), signed=True), spread=sd),
            *map(source, ("images", "seeds", "both")),
            _median(row),
            Entry(sizes, odd),
            Entry("", "; ".join(filter(None, about)), word=word(row)),
        ),
        where.get(str(row["label"])),
        str(row["hole"]),
    )


def _median(row: Mapping[Any, Any]) -> Entry:
    value, low, high = (float(row[key]) for key in ("median", "low_median", "high_median"))
    if not (isfinite(low) and isfinite(high)):
        return Entry(percent(value, signed=True))
    ends = f"[{percent(low, signed=True)}, {percent(high, signed=True)}]"
    return Entry(
        percent(value, signed=True), f"{ends} {100 * float(row['confidence_median']):.3g} %"
    )


def contrasts(sweep: Sweep, results: pd.DataFrame) -> Table | None:
    """Differences of every measure in brief; None where nothing is held against anything."""
    if results.empty:
        return None
    known = results.loc[results["verdict"] != NO_RESULT, "seeds"]
    over = (
        "seeds and images"
        if len(known) == 0 or known.max() > 1
        else "test images, of these weights"
    )
    if len(known) and known.min() < 2 <= known.max():
        over += " (of one seed: images alone)"
    caption = (
        "First minus second variant, in points, on the same examples and seeds; in brackets the "
        f"95 % interval over {over}; ± the standard deviation of the seeds' differences. The word "
        "follows Holm's p over the contrasts of one column."
    )
    index = {(r["protocol"], r["contrast"], r["metric"]): r for r in results.to_dict("records")}
    where = {v.label: v.index for v in sweep.variants}
    sides = {c.name: c.variants for c in declared(sweep)}
    lines = []
    for protocol, title in protocols(sweep).items():
        rows = results[results["protocol"] == protocol].drop_duplicates("contrast")
        for row in rows.to_dict("records"):
            name, hole = str(row["contrast"]), str(row["hole"])
            if row["verdict"] == NO_RESULT:
                entries = [Entry(DASH)] * len(BRIEF)
                hole = f"{NO_RESULT}: {hole}"
            else:
                own = [index.get((protocol, name, m)) for m in BRIEF]
                entries = [
                    Entry(NOT_ASKED)
                    if not_asked(measure, *sides[name])
                    else (entry(r, "difference") if r else Entry(DASH))
                    for measure, r in zip(BRIEF, own, strict=True)
                ]
            lines.append(Line(name, entries, where.get(str(row["label"])), hole, title))
    return Table("contrasts", "All differences", caption, "Contrast", titles(BRIEF), lines)


@dataclass(frozen=True)
class Conclusion:
    """A line of the verdicts on top: its word, the numbers behind it, what they rest on.

    `hole`: what the result lacks of the design; the text says it where there is no result.
    `training`: whether both sides had converged. `second`: how many trainings collapsed, and what
    all of them say; "" where none did. `look`: which look decided, where seeds come by looks.
    `exploratory`: whether it was declared after the first submit. `verdict`: the word without the
    steps that it is limited to.
    """

    metric: str
    contrast: str
    word: str
    text: str
    caveat: str
    index: int | None = None
    hole: str = ""
    training: str = ""
    second: str = ""
    look: str = ""
    exploratory: bool = False
    verdict: str = ""

    @property
    def claim(self) -> str:
        """The word with its bound: `no difference larger than 2 points at 600 steps`."""
        verdict = self.verdict or self.word
        limit = self.word.removeprefix(verdict).strip()
        return " ".join(filter(None, (verdict, self.bound, limit)))

    @property
    def numbers(self) -> str:
        """The text behind the claim."""
        return self.text.removeprefix(f"{self.bound}: ")

    @property
    def bound(self) -> str:
        """`larger than 2 points`: what a difference within the margin keeps; "" of any other."""
        bound, colon, _ = self.text.partition(": ")
        return bound if colon and self.word.startswith((NO_DIFFERENCE, SMALLER_THAN)) else ""


def answers(sweep: Sweep, results: pd.DataFrame) -> list[Conclusion]:
    """What the sweep says on its metrics, a line a contrast; [] without a contrast."""
    where = {v.label: v.index for v in sweep.variants}
    out = []
    for name in sweep.metrics:
        rows = results[(results["metric"] == name) & (results["protocol"] == sweep.headline)]
        for row in rows.to_dict("records"):
            said = f"{row['verdict']} {row['at']}".rstrip()
            text = str(row["sentence"]).removeprefix(str(row["verdict"]))
            if row["at"]:  # the word says it already
                text = text.replace(f" {row['at']}", "", 1)
            text = text.lstrip(":, ")
            out.append(
                Conclusion(
                    BY_NAME[name].title,
                    str(row["contrast"]),
                    said,
                    text,
                    str(row["caveat"]),
                    where.get(str(row["label"])),
                    "" if row["verdict"] == NO_RESULT else str(row["hole"]),
                    str(row["training"]),
                    str(row["second"]) if isinstance(row["second"], str) else "",
                    str(row["look"]),
                    row["declared"] == EXPLORATORY,
                    str(row["verdict"]),
                )
            )
    return out


def rule(sweep: Sweep, answers: Sequence[Conclusion]) -> str:
    """How the lines of the verdicts are read; "" without any."""
    count = len({a.contrast for a in answers})
    if not count:
        return ""
    if any(a.look for a in answers):
        looks = (
            " Seeds came look by look: p is that of all looks so far, and the verdict follows "
            "their boundary; the interval is not corrected for looks."
        )
    else:
        looks = ""
    corrected = (
        f"p is corrected by Holm's method over the {count} declared contrasts of a metric"
        if count > 1
        else "one contrast is declared, so p needs no correction"
    )
    return (
        "First minus second variant. In brackets the 95 % interval over seeds and test images, or "
        f"over test images alone where there is one seed, not corrected; {corrected}, and the "
        "verdict follows p. A difference counts as none where two one-sided tests, corrected in "
        "the same way, show it to be smaller than a margin either way, and the interval holds 0: "
        f"{sentence(sweep.design, sweep.metrics)}. Verdicts are about trainings that succeed: one "
        f"whose gIoU is below {100 * FALLEN_SHARE:.0f} % of its variant's best seed counts as "
        f"collapsed and is told of beside them.{_unseen(sweep)}{looks}"
    )


def _unseen(sweep: Sweep) -> str:
    """What so few trainings leave open where none of a variant collapsed."""
    trained = max((len(v.finished) for v in sweep.variants), default=0)
    if trained < 2:
        return ""
    most = 100 * rate(0, trained)[1]
    return (
        f" Where none of {trained} trainings did, a rate of up to {most:.0f} % is still possible."
    )
