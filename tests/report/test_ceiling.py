"""What SAM draws from true boxes stands below the headline, where the runs have measured it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from keyseg.report import store as reader
from keyseg.report.stats.scores import scores
from keyseg.report.tables import headline, printed
from keyseg.runs.run_directory import RunDirectory


@pytest.mark.parametrize(
    ("found", "said"), [([], ""), ([0.882, 0.882], "of 88.2 before"), ([0.9, 0.8], "80.0 to 90.0")]
)
def test_ceiling(
    store: Callable[..., Path], tmp_path: Path, found: Sequence[float], said: str
) -> None:
    sweep = store(["seg_only", "full"], images=4)
    for path, value in zip(sorted(sweep.glob("*/")), found, strict=False):
        RunDirectory(path).update(ceiling={"giou": value, "ciou": 0.5, "targets": 9})
    read = reader.load(sweep)
    caption = headline.table(read, scores(read, 0), printed.load(tmp_path, None)).caption
    assert ("Ceiling" in caption) == bool(said)
    assert said in caption
