"""Another system's cells in a report, beside our own and paired with them by example."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from keyseg import cli
from keyseg.data.example import Example
from keyseg.data.masks import decode_rle
from keyseg.data.predictions import matching, reading
from keyseg.report import build
from keyseg.report.figures import drawing
from keyseg.report.joined import join
from keyseg.report.stats import scores
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.imported import Import, write

LABEL = "Other (imported)"


def example(row):
    slices = {k.removeprefix("slice_"): v for k, v in row.items() if k.startswith("slice_")}
    return Example(
        id=row["id"],
        image=Path(row["image"]),
        image_id=row["image_id"],
        query=row["query"],
        is_sentence=False,
        keyword=row["keyword"],
        text=row["text"],
        slices=slices,
        load_mask=lambda: decode_rle(row["target_rle"], row["height"], row["width"]),
    )


@pytest.fixture
def both(store, tmp_path):
    """A sweep of ours, and the masks of its first run (seg_only, seed 0) as another system's."""
    ours = store(images=8, seeds=(0, 1))
    first = next(p for p in sorted(ours.iterdir()) if p.is_dir())
    rows = RunDirectory(first).samples()
    rows = rows[rows["protocol"] == "generated"]
    file = tmp_path / "own.jsonl"
    options = ["--protocol", "generated", "--out", str(file)]
    with pytest.raises(SystemExit) as end:
        cli.main(["export", "predictions", str(first), *options])
    assert end.value.code == 0
    assert len(file.read_text().splitlines()) == len(rows) + 1
    found = reading.read(file)
    examples = [example(row) for row in rows.to_dict("records")]
    matched = matching.match(found.predictions, examples)
    data = {"name": "scenes", "sources": {}, "splits": {"test": []}}
    foreign = ours.parent / "other"
    one = Import("Other", found, matched, data, "all", found.head["protocol"], "me", 0)
    write(foreign, [one], "keyseg import predictions own.jsonl")
    return ours, foreign


def contrast(sweep, metrics):
    found = scores.contrasts(sweep, seed=0)
    mine = found[(found["label"] == LABEL) & (found["protocol"] == "generated")]
    return mine.set_index("metric").loc[metrics]


def test_our_own_masks_under_another_name_differ_by_exactly_nothing(both):
    sweep = join(list(both))
    variants = tuple(
        replace(v, cells=tuple(c for c in v.cells if c.seed == 0)) for v in sweep.variants
    )
    same = contrast(replace(sweep, variants=variants), ["giou", "ciou", "precision@0.5"])
    assert same["baseline"].eq("seg_only").all()
    assert same["difference"].eq(0).all()
    assert same["examples"].eq(16).all()


def test_a_system_stands_last_whatever_the_order_and_goes_with_every_seed(both):
    for folders in (list(both), list(both)[::-1]):
        sweep = join(folders)
        assert [v.label for v in sweep.variants] == ["seg_only", "cross", "full", LABEL]
        assert sweep.baseline is sweep.variants[0]
        assert sweep.design["factors"] == {"fusion": ["seg_only", "cross", "full"]}
    one = contrast(sweep, ["giou"]).iloc[0]
    assert (one["seeds"], one["hole"]) == (2, "")
    assert one["training"].startswith("seg_only:")
    assert LABEL not in one["training"]  # of it nothing is known


def test_it_is_held_against_the_baseline_beside_declared_contrasts(both):
    file = both[0] / "sweep.json"
    design = json.loads(file.read_text())
    design["contrasts"] = [{"of": {"fusion": "full"}, "against": {"fusion": "cross"}}]
    file.write_text(json.dumps(design))
    found = scores.contrasts(join(list(both)), seed=0)
    assert list(dict.fromkeys(found["contrast"])) == ["full − cross", f"{LABEL} − seg_only"]


def test_the_page_says_where_it_is_from(both, tmp_path, monkeypatch):
    ours, foreign = both
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    page = build(ours, tmp_path / "r", joined=[foreign]).html.read_text(encoding="utf-8")
    assert page.count(LABEL) > 5
    assert "Masks of other systems" in page
    assert "said by me" in page
    assert "not asked" in page
    assert "Other targets" not in page
    run = RunDirectory(next(p for p in foreign.iterdir() if p.is_dir()))
    run.write_samples(run.samples().assign(target_rle="", intersection=0))
    page = build(ours, tmp_path / "r", joined=[foreign]).html.read_text(encoding="utf-8")
    assert "Other targets" in page
    assert "16 of 16 examples" in page


def test_alone_it_is_a_report_without_contrasts(both, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    page = build(both[1], tmp_path / "r").html.read_text(encoding="utf-8")
    assert LABEL in page
    results = pd.read_csv(tmp_path / "r" / "tables" / "results.csv")
    assert results["training"].tolist() == ["imported"]
    assert results["keyword_majority"].max() < 1  # of the keywords of the data, not of no token
