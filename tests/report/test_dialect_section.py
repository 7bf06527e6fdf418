"""The section and the gallery's examples where public rules disagree on a sweep's masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keyseg.dialects.score import dialects, score
from keyseg.report.data import ReportData
from keyseg.report.gallery import examples
from keyseg.report.sections.dialects import under_dialects
from keyseg.report.stats.dialects import can_disagree, rescored
from keyseg.report.store import Sweep, load
from keyseg.runs.run_directory import RunDirectory
from tests.report.conftest import SIDE, disc, rle

IGNORED = rle(disc(64, 64, 40))


def section(sweep: Sweep) -> list[object]:
    return list(under_dialects(ReportData(sweep, pd.DataFrame(), pd.DataFrame(), {})))


@pytest.fixture
def plain(store: Callable[..., Path]) -> Path:
    return store(("seg_only", "full"), images=4, seeds=(0, 1))


@pytest.fixture
def ignoring(plain: Path) -> Path:
    """The same, with pixels to ignore in every fourth example."""
    for folder in (p for p in plain.iterdir() if p.is_dir()):
        run = RunDirectory(folder)
        rows = run.samples().reset_index(drop=True)
        rows["ignore_rle"] = np.where(rows.index % 4 == 0, IGNORED, "")
        run.write_samples(rows)
    return plain


def test_without_anything_odd_there_is_no_section(plain: Path) -> None:
    sweep = load(plain)
    assert not can_disagree(sweep.finished[0].samples)
    assert section(sweep) == []


def test_the_section_holds_every_rule_that_sees_the_masks_otherwise(ignoring: Path) -> None:
    sweep = load(ignoring)
    table, order = section(sweep)
    assert table.header == ("keyseg", "gsva", "lisa", "rela", "segzero", "unipixel")
    assert [(line.group, line.label) for line in table.lines] == [
        ("gIoU", "seg_only"),
        ("gIoU", "full"),
        ("cIoU", "seg_only"),
        ("cIoU", "full"),
    ]
    cells = [c for c in sweep.finished if c.label == "full"]
    known = dialects()["segzero"]
    each = [
        score(c.samples[c.samples["protocol"] == "teacher_forced"], [known])["segzero"]["giou"]
        for c in cells
    ]
    entry = table.lines[1].entries[table.header.index("segzero")]
    assert entry.value == f"{100 * np.mean(each):.1f}"
    assert entry.spread == f"± {100 * np.std(each, ddof=1):.1f}"
    assert table.lines[3].entries[table.header.index("segzero")].value == "–"  # it has no cIoU
    assert "order" in order


def test_runs_without_masks_are_left_out(ignoring: Path) -> None:
    for folder in (p for p in ignoring.iterdir() if p.is_dir()):
        run = RunDirectory(folder)
        if run.info["label"] == "full":
            run.write_samples(run.samples().assign(mask_rle="zz"))
    found = rescored(load(ignoring))
    assert set(found["label"]) == {"seg_only"}


def test_the_gallery_has_the_examples_that_move_most_with_their_numbers(ignoring: Path) -> None:
    sweep = load(ignoring)
    gallery = examples.build(sweep, seed=0)
    assert gallery is not None
    items = gallery.items["dialects"]
    samples = sweep.variants[0].finished[0].samples
    odd = set(samples.loc[samples["ignore_rle"] != "", "id"])
    assert items
    assert {item.id for item in items} <= odd
    notes = [picture.note for item in items for picture in item.pictures[2:]]
    assert any("segzero " in note for note in notes)
    assert not any("keyseg" in note or "lisa" in note for note in notes)


def test_no_target_is_something_that_rules_see_differently(plain: Path) -> None:
    run = RunDirectory(next(p for p in plain.iterdir() if p.is_dir()))
    rows = run.samples()
    empty = rle(np.zeros((SIDE, SIDE), bool))
    assert not can_disagree(rows)
    assert can_disagree(rows.assign(target_rle=empty))
    assert can_disagree(rows.assign(id="ReasonSeg/val/1-1"))
