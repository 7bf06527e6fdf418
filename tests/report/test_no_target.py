"""Examples without a target (gRefCOCO) bring N-acc and T-acc into the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from keyseg.report.stats.scores import scores
from keyseg.report.store import load
from keyseg.report.tables import export, results
from keyseg.runs.run_directory import RunDirectory

NOTHING = coco.encode(np.zeros((128, 128), np.uint8, order="F"))["counts"].decode()


def test_no_target_columns_are_shown_where_there_are_such_examples(
    store: Callable[..., Path],
) -> None:
    sweep = store(("full",), images=4, steps=8)
    for cell in load(sweep).finished:
        run = RunDirectory(sweep / cell.signature)
        frame = run.samples()
        left_empty = (frame.index % 4 == 0) | (frame.index % 4 == 1)
        frame.loc[left_empty, ["target_rle", "intersection"]] = (NOTHING, 0)
        frame.loc[frame.index % 4 == 0, "union"] = 0
        frame.loc[frame.index % 4 == 1, "union"] = 9
        run.write_samples(frame)
    found = load(sweep)
    rows = scores(found, 0)
    masks = results.results(found, rows)[0]
    assert masks.header[-2:] == ("N-acc", "T-acc")
    assert masks.lines[0].entries[-2].value == "50.0"
    assert "N-acc: share of the examples without a target" in masks.caption
    assert export.results(found, rows)["n_acc"].tolist() == [0.5, 0.5]
