"""Which variants are plainly behind at a budget, and how often the best one is among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyseg.report.page import checks
from keyseg.report.stats import drops as stats
from keyseg.report.stats.drops_simulation import Curves, lost
from keyseg.report.stats.inference import Sources
from keyseg.report.store import load
from keyseg.runs import drops
from keyseg.runs.run_directory import RunDirectory


def test_behind_by_more_than_the_margin() -> None:
    one = np.array([1e-4])
    by = Sources(one, one, 0 * one, np.array([99.0]), 100, 5)
    p = [float(stats.behind(np.array([x]), by, 0.1)[0]) for x in (0.3, 0.0, -0.1, -0.15, -0.4)]
    assert p[:3] == [1.0, 1.0, 1.0]
    assert p[2] > p[3] > p[4]
    assert p[4] < 0.001
    assert stats.behind(np.array([-0.4]), by, 0.3)[0] > p[4]


@pytest.fixture
def folder(store: Any) -> Path:
    """Three variants of three seeds at one budget, of which only the last one sees anything."""
    made: Path = store(seeds=range(3), images=8)
    content = json.loads((made / "sweep.json").read_text())
    for cell in content["cells"]:
        cell["factors"]["optim.steps"] = 100
        run = RunDirectory(made / cell["signature"])
        samples, sees = run.samples(), cell["label"] == "full"
        iou = (0.8 if sees else 0.1) + 0.01 * (samples.index % 7)
        run.write_samples(samples.assign(iou=iou))
    (made / "sweep.json").write_text(json.dumps(content | {"drop_behind": 20}))
    return made


def test_all_but_the_baseline_may_be_dropped(folder: Path) -> None:
    found = drops.judge(folder, 100, stats.judge)
    assert [(d.variant, d.behind) for d in found.drops] == [("cross", "full")]
    assert found.drops[0].difference < -0.2
    assert found.drops[0].p <= 0.05
    assert len(found.samples) == 9
    (notice,) = [n for n in checks.check(load(folder)) if n.title == "Not trained longer."]
    assert notice.detail.startswith("cross at 100 steps: ")


def test_nobody_is_dropped_by_a_margin_that_none_exceeds(folder: Path) -> None:
    content = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(content | {"drop_behind": 99}))
    assert stats.judge(folder, 100).drops == ()


def test_what_it_loses_is_what_crosses() -> None:
    """Curves that rise alike lose no best variant; late ones do, less often later."""
    few: dict[str, Any] = {"repeats": 40, "variants": 6}
    alike = lost(Curves(), 1 / 8, 0.05, **few)
    late = lost(Curves(late=0.25), 1 / 8, 0.05, **few)
    assert alike.best <= 0.05 < late.best
    assert alike.dropped > 0.05
    assert lost(Curves(late=0.25), 1 / 2, 0.05, **few).best < late.best
