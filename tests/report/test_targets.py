"""What KEY has to name: collisions of first tokens, and what guessing scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keyseg.metrics import majority
from keyseg.report.store import load
from keyseg.report.tables import targets
from keyseg.runs.run_directory import RunDirectory

KEYWORDS = ["the man", "the dog", "the dog", "cup", "cup", "cup", None, "a kite"]


def frame() -> pd.DataFrame:
    words = [k.split()[0] if k else "" for k in KEYWORDS]
    return pd.DataFrame({"keyword": KEYWORDS, "keyword_token": words})


def test_collisions_are_counted_by_example() -> None:
    found = targets.count(frame())
    assert (found.examples, found.keywords, found.tokens) == (7, 4, 3)
    assert found.collide == pytest.approx(3 / 7)
    assert found.keyword == ("cup", pytest.approx(3 / 7))


def test_a_part_collides_with_the_whole() -> None:
    part = frame().iloc[[0, 3]]
    assert targets.count(part).collide == 0
    assert targets.count(part, frame()).collide == 0.5


def test_guessing_is_measured_on_what_accuracy_asks_for() -> None:
    samples = frame().iloc[[0, 1, 2, 3, 4]]
    assert majority(samples) == pytest.approx(3 / 5)  # "the"
    assert majority(samples.drop(columns="keyword_token")) == pytest.approx(2 / 5)
    assert np.isnan(targets.count(samples.drop(columns="keyword_token")).collide)


def test_the_table(store: Callable[..., Path]) -> None:
    sweep = store(images=6)
    for path in (p for p in sweep.iterdir() if p.is_dir()):
        run = RunDirectory(path)
        samples = run.samples()
        ring = samples["keyword"].isin(["ring", "circle"])
        run.write_samples(
            samples.assign(
                keyword=samples["keyword"].where(~ring, "the " + samples["keyword"]),
                keyword_token=samples["keyword_token"].where(~ring, "the"),
            )
        )
    made = targets.table(load(sweep), {"style": ["short", "long", "reasoning"]})
    assert made is not None
    assert made.lines[0].label == "all examples"
    assert len(made.lines) > 2
    share = 100 * ring[samples["protocol"] == "generated"].mean()
    assert made.lines[0].entries[3].value == f"{share:.1f}"
    assert "“the” (the " in made.caption
