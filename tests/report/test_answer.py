"""The first screen in words: what was asked, or swept, and the answer in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from keyseg.report.page import answer
from keyseg.report.store import CellResult, Sweep, variants_of
from keyseg.report.tables import contrasts
from keyseg.report.tables.contrasts import Conclusion
from keyseg.report.tables.table import Entry, Line, Table

HEADLINE = Table("h", "H", "", "Variant", ("gIoU",), [Line("full", [Entry("85.8", "[84, 87]")])])


def sweep(*states: str, **design: Any) -> Sweep:
    """A variant a state; those that are done have one example."""
    cells = [
        CellResult(
            f"s{i}",
            f"v{i}",
            {"fusion": f"v{i}"},
            0,
            Path(),
            state,
            {"attempts": [{"seconds": 1800.0}], "hardware": {"cores": 2}},
            pd.DataFrame({"name": [], "value": [], "step": [], "time": []}),
            pd.DataFrame({"id": ["a"]}) if state == "done" else pd.DataFrame(),
        )
        for i, state in enumerate(states)
    ]
    return Sweep(Path("outputs/t"), {"name": "t", **design}, tuple(variants_of(cells)))


def said(*words: str) -> list[Conclusion]:
    def text(word: str, i: int) -> str:
        shown = "+2.1 points [0.5, 3.7], p = 0.010; and more"
        return f"v{i} is untrained" if word == "says nothing" else shown

    return [
        Conclusion("gIoU", f"v{i} − v0", word, text(word, i), "")
        for i, word in enumerate(words, start=1)
    ]


@pytest.mark.parametrize(
    ("design", "heading"),
    [
        ({"question": "Does it help?", "factors": {"fusion": ["a"]}}, "Does it help?"),
        (
            {"factors": {"fusion": ["a", "b"], "loss.bce": [1, 2]}},
            "fusion: a, b × loss.bce: 1, 2",
        ),
        ({"factors": {"seed": [*range(9)]}}, "seed: 0, 1, 2, 3, 4 and 4 more"),
        ({"factors": {"t": ["a", "b"]}}, "t: a, b"),  # the sweep is named after its factor
        ({}, "t: v0, v1"),
    ],
)
def test_the_heading_falls_back_to_what_was_swept(design: dict[str, Any], heading: str) -> None:
    made = sweep("done", "done", **design)
    assert answer.heading(made) == heading
    assert answer.answer(made, [], HEADLINE).title == f"t: {heading.removeprefix('t: ')}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("better",), "On gIoU, v1 − v0: better, +2.1 points [0.5, 3.7]."),
        (("inconclusive", "inconclusive"), "On gIoU: both contrasts are inconclusive."),
        (
            ("worse at 100 steps", "no difference", "inconclusive", "inconclusive"),
            "On gIoU: v1 − v0: worse at 100 steps, +2.1 points [0.5, 3.7]; 1 shows no difference; "
            "2 are inconclusive.",
        ),
        (
            ("no result", "says nothing", "says nothing"),
            "On gIoU: 2 of 3 contrasts say nothing of the variants (v2 is untrained; v3 is "
            "untrained); 1 has no result.",
        ),
        (("says nothing",), "On gIoU, v1 − v0: says nothing (v1 is untrained)."),
        (
            ("better",) * 5,
            "On gIoU: "
            + "; ".join(f"v{i} − v0: better, +2.1 points [0.5, 3.7]" for i in (1, 2, 3))
            + "; 2 more contrasts show a difference.",
        ),
        (
            ("better",) * 4,
            "On gIoU: "
            + "; ".join(f"v{i} − v0: better, +2.1 points [0.5, 3.7]" for i in (1, 2, 3))
            + "; 1 more contrast shows a difference.",
        ),
    ],
)
def test_the_answer_in_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    assert answer.answer(sweep("done", "done"), said(*words), HEADLINE).sentence == sentence


def bounded(word: str, bound: str) -> Conclusion:
    return Conclusion("gIoU", "v1 − v0", word, f"larger than {bound}: −0.2 points [−1.1, +0.7]", "")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            [bounded("no difference at 600 steps", "2 points")] * 2,
            "both contrasts show no difference larger than 2 points at 600 steps.",
        ),
        (
            [
                bounded("no difference", "2 points"),
                bounded("no difference at 600 steps", "1 point"),
            ],
            "1 of 2 contrasts shows no difference larger than 2 points; 1 shows no difference "
            "larger than 1 point at 600 steps.",
        ),
        (
            [bounded("no difference", "2 points"), bounded("no difference", "1 point")],
            "both contrasts show no difference.",
        ),
    ],
)
def test_no_difference_keeps_its_bound_and_its_steps(
    lines: list[Conclusion], sentence: str
) -> None:
    found = answer.answer(sweep("done", "done"), lines, HEADLINE).sentence
    assert found == f"On gIoU: {sentence}"


def test_a_small_difference_is_named_with_its_bound() -> None:
    text = "2 points either way: +0.9 points [+0.1, +1.7], equivalence p = 0.030; open (p = 0.294)"
    word = "smaller than at 120 steps"
    line = Conclusion("gIoU", "v1 − v0", word, text, "", verdict="smaller than")
    assert answer.answer(sweep("done", "done"), [line], HEADLINE).sentence == (
        "On gIoU, v1 − v0: smaller than 2 points either way at 120 steps, +0.9 points [+0.1, +1.7]."
    )


def test_the_steps_are_said_once() -> None:
    def row(verdict: str, sentence: str) -> dict[str, Any]:
        names = ("caveat", "hole", "training", "second", "look", "label")
        about = {"metric": "giou", "protocol": "", "contrast": "v1 − v0"}
        rest = {**about, "at": "at 600 steps", "declared": "", **dict.fromkeys(names, "")}
        return {"verdict": verdict, "sentence": sentence, **rest}

    rows = [
        row("no difference", "no difference larger than 2 points at 600 steps: −0.2 points"),
        row("better", "better at 600 steps: +2.1 points, p = 0.01"),
    ]
    made = sweep("queued", "queued", metrics=["giou"])  # no protocol of any result
    found = contrasts.answers(made, pd.DataFrame(rows))
    assert [(c.word, c.text) for c in found] == [
        ("no difference at 600 steps", "larger than 2 points: −0.2 points"),
        ("better at 600 steps", "+2.1 points, p = 0.01"),
    ]


def test_without_a_contrast_or_a_result() -> None:
    one = answer.answer(sweep("done"), [], HEADLINE)
    assert one.sentence == "gIoU, percent: full 85.8 [84, 87]."
    assert one.facts["Price"] == "0.50 CPU-hours"
    none = answer.answer(sweep("queued", "failed"), said("no result"), HEADLINE)
    assert none.sentence == "No cell has results yet."
    assert none.facts["Price so far"] == "1.00 CPU-hours"


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("done", "done"), "done"),
        (("done", "failed"), "failed"),
        (("done", "running"), "interim"),
        (("done", "missing"), "interim"),
    ],
)
def test_interim_as_long_as_a_cell_is_open(states: tuple[str, ...], state: str) -> None:
    assert answer.answer(sweep(*states), [], HEADLINE).state == state


@pytest.mark.parametrize(
    ("word", "text", "verdict", "claim", "numbers"),
    [
        (
            "no difference at 600 steps",
            "larger than 2 points: −0.2 points [−1.1, +0.7]",
            "no difference",
            "no difference larger than 2 points at 600 steps",
            "−0.2 points [−1.1, +0.7]",
        ),
        (
            "smaller than",
            "2 points either way: +0.9 points; whether there is any is open",
            "smaller than",
            "smaller than 2 points either way",
            "+0.9 points; whether there is any is open",
        ),
        (
            "no difference",
            "both are the same on every example and seed",
            "no difference",
            "no difference",
            "both are the same on every example and seed",
        ),
        ("better at 80 steps", "+2.1 points: a", "better", "better at 80 steps", "+2.1 points: a"),
    ],
)
def test_a_claim_has_its_bound(
    word: str, text: str, verdict: str, claim: str, numbers: str
) -> None:
    line = Conclusion("gIoU", "v1 − v0", word, text, "", verdict=verdict)
    assert (line.claim, line.numbers) == (claim, numbers)
