"""Tables of learning speed: to 90 % of a variant's own plateau, and who learns how much faster."""

from __future__ import annotations

from math import isfinite

from keyseg.report.stats.speed import REACHED_SHARE, Faster, Speed, Spread, faster, speed, spread
from keyseg.report.stats.verdict import NO_RESULT
from keyseg.report.store import Sweep
from keyseg.report.tables.table import DASH, Entry, Line, Table, percent, quantity
from keyseg.runs.provenance import cost_unit

_HOW = "geometric means over seeds, in brackets their 95 % interval (Student's t on logarithms)"


def tables(sweep: Sweep) -> list[Table]:
    """Speed of every variant, and every contrast of two; none where no training is at a plateau."""
    speeds = [speed(variant) for variant in sweep.variants]
    if not any(each.seeds for each in speeds):
        return []
    unit = cost_unit(cell.info for cell in sweep.finished)
    share = f"{100 * REACHED_SHARE:.0f} %"
    own = Table(
        "speed",
        "Learning speed",
        f"Steps and {unit}-hours of training (without evaluations, at the median pace of the run) "
        f"until gIoU on val first reaches {share} of the variant's own plateau: {_HOW}. Trainings "
        "that have not reached a plateau are left out. Between two evaluations the curve is taken "
        "for a line; budgets and schedules other than these may give other speeds.",
        "Variant",
        ("Plateau, val gIoU", f"Steps to {share}", f"{unit}-hours to {share}", "Seeds"),
        [_line(each) for each in speeds],
    )
    contrasts = faster(sweep)
    if not any(contrast.seeds for contrast in contrasts):
        return [own]
    return [
        own,
        Table(
            "faster",
            "Learning speed, contrasts",
            "How many times as long the second variant takes as the first to reach "
            f"{share} of its own plateau, over the seeds of which both are at one: {_HOW}. "
            "The word follows the p of steps, by Holm's method over these contrasts.",
            "Contrast",
            ("Times the steps", f"Times the {unit}-hours", "Seeds", "Verdict"),
            [_contrast(contrast) for contrast in contrasts],
            text=frozenset({3}),
        ),
    ]


def _line(own: Speed) -> Line:
    counted = f"{len(own.seeds)} of {len(own.variant.finished)}"
    entries = (
        Entry(percent(own.plateau)),
        _entry(spread(list(own.steps.values()))),
        _entry(spread(list(own.hours.values()))),
        Entry(counted if own.variant.finished else DASH),
    )
    hole = "" if own.seeds else own.variant.training
    return Line(own.variant.label, entries, own.variant.index, own.variant.hole or hole)


def _contrast(result: Faster) -> Line:
    words = {"faster": "learns faster", "slower": "learns slower"}
    sides = (result.contrast.of, result.contrast.against)
    hole = "; ".join(f"{v.label}: {v.training or v.hole}" for v in sides)
    return Line(
        result.contrast.name,
        (
            _entry(result.steps),
            _entry(result.hours),
            Entry(str(result.seeds)),
            Entry("", word=words.get(result.word, result.word)),
        ),
        result.contrast.of.index,
        hole if result.word == NO_RESULT else "",
    )


def _entry(estimate: Spread) -> Entry:
    known = isfinite(estimate.low) and isfinite(estimate.high)
    ends = f"[{quantity(estimate.low)}, {quantity(estimate.high)}]" if known else ""
    return Entry(quantity(estimate.value), ends)
