"""What the trainings behind a contrast allow it to say.

A variant that was stopped while it still learnt is not known, only its weights after so many steps
are. One that never left the untrained level is not known at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.verdict import NO_RESULT
from keyseg.report.store import CellResult, at_plateau, training_of
from keyseg.runs.convergence import SAYS_NOTHING, UNTRAINED


@dataclass(frozen=True)
class Reach:
    """How far the verdict on a contrast reaches.

    `training`: the words of both sides. `at`: "at 100 steps" where it speaks of no more than that.
    `nothing`: why it says nothing at all.
    """

    training: str
    at: str = ""
    nothing: str = ""


def reach(contrast: Contrast, left_out: Mapping[str, set[int]] | None = None) -> Reach:
    """The reach of a contrast; without results on all sides there is none to limit.

    `left_out`: by label the seeds whose trainings the verdict does not rest on.
    """
    if contrast.open:
        return Reach("")
    common, lost = contrast.shared_seeds, left_out or {}

    def counts(cell: CellResult) -> bool:
        return (not common or cell.seed in common) and cell.seed not in lost.get(cell.label, ())

    ours = [v for v in contrast.variants if not v.imported]  # of others' trainings nothing is known
    if not ours:
        return Reach("")
    sides = {v.label: [c for c in v.finished if counts(c)] for v in ours}
    training = "; ".join(f"{label}: {training_of(cells)}" for label, cells in sides.items())
    words = {label: {c.convergence.word for c in cells} for label, cells in sides.items()}
    untrained = [label for label, states in words.items() if states == {UNTRAINED}]
    if untrained:
        return Reach(training, nothing=f"{' and '.join(untrained)} {UNTRAINED}")
    if all(map(at_plateau, sides.values())):
        return Reach(training)
    return Reach(training, at=at(cell for cells in sides.values() for cell in cells))


def at(cells: Iterable[CellResult]) -> str:
    """`at 100 steps`, `at 100 and 400 steps`."""
    steps = sorted({int(n) for cell in cells if (n := cell.steps) is not None})
    return f"at {' and '.join(map(str, steps))} steps" if steps else "at the steps trained"


def qualified(row: dict[str, object], reached: Reach) -> dict[str, object]:
    """A row of contrasts with its verdict, sentence and caveat brought within its reach."""
    said, sentence = str(row["verdict"]), str(row["sentence"])
    if said != NO_RESULT and reached.nothing:
        silent = {"verdict": SAYS_NOTHING, "sentence": f"{SAYS_NOTHING}: {reached.nothing}"}
        row = {**row, **silent, "caveat": ""}
    elif said != NO_RESULT and reached.at:
        claim, mark, rest = sentence.partition(":")
        rest = rest.replace("to judge the variant takes", "to judge more than these weights takes")
        row = {**row, "sentence": f"{claim} {reached.at}{mark}{rest}"}
    return {**row, "training": reached.training, "at": "" if reached.nothing else reached.at}
