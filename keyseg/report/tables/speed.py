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
    if not any(found.seeds for found in speeds):
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
        [_line(found) for found in speeds],
    )
    held = faster(sweep)
    if not any(contrast.seeds for contrast in held):
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
            [_contrast(contrast) for contrast in held],
            text=frozenset({3}),
        ),
    ]


def _line(found: Speed) -> Line:
    counted = f"{len(found.seeds)} of {len(found.variant.finished)}"
    entries = (
        Entry(percent(found.plateau)),
        _entry(spread(list(found.steps.values()))),
        _entry(spread(list(found.hours.values()))),
        Entry(counted if found.variant.finished else DASH),
    )
    hole = "" if found.seeds else found.variant.training
    return Line(found.variant.label, entries, found.variant.index, found.variant.hole or hole)


def _contrast(found: Faster) -> Line:
    words = {"faster": "learns faster", "slower": "learns slower"}
    sides = (found.contrast.of, found.contrast.against)
    hole = "; ".join(f"{v.label}: {v.training or v.hole}" for v in sides)
    return Line(
        found.contrast.name,
        (
            _entry(found.steps),
            _entry(found.hours),
            Entry(str(found.seeds)),
            Entry("", word=words.get(found.word, found.word)),
        ),
        found.contrast.of.index,
        hole if found.word == NO_RESULT else "",
    )


def _entry(found: Spread) -> Entry:
    known = isfinite(found.low) and isfinite(found.high)
    ends = f"[{quantity(found.low)}, {quantity(found.high)}]" if known else ""
    return Entry(quantity(found.value), ends)
