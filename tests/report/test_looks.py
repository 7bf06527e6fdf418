"""Looks at a sweep whose seeds come until the answer is in: decisions, and what a report says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from keyseg.metrics import MEASURES
from keyseg.report.data import ReportData
from keyseg.report.joined import join
from keyseg.report.page import checks
from keyseg.report.sections.looks import looks as section
from keyseg.report.stats import looks as stats
from keyseg.report.stats import scores
from keyseg.report.stats.comparison import compare
from keyseg.report.stats.contrasts import contrasts
from keyseg.report.stats.verdict import p_text
from keyseg.report.store import Sweep, load
from keyseg.report.tables.contrasts import answers, rule
from keyseg.report.tables.table import Table
from keyseg.runs import declaration, looks, sweep_directory
from keyseg.runs.looks import DIFFERS, EQUIVALENT, FUTILE, OPEN, LookPlan, Ruling, TakenLook
from keyseg.runs.run_directory import RunDirectory

PLAN = LookPlan((0, 1, 2, 3), (3, 4), "obrien_fleming")
M = len(MEASURES)


@pytest.fixture(scope="module")
def made(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three variants of four seeds."""
    root = tmp_path_factory.mktemp("store")
    folder: Path = make(root, seeds=range(4), images=8)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy, with a plan of looks."""
    shutil.copytree(made, tmp_path / "t")
    change(tmp_path / "t", looks={"seeds": PLAN.seeds, "at": PLAN.at, "family": PLAN.family})
    return tmp_path / "t"


def change(folder: Path, **fields: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(content | fields))
    return content


def without_seed(folder: Path, seed: int) -> None:
    content = json.loads((folder / "sweep.json").read_text())
    wanted = [c["signature"] for c in content["cells"] if c["seed"] != seed]
    (folder / "sweep.json").write_text(json.dumps(sweep_directory.asking(content, wanted)))


def take(folder: Path, word: dict[str, str] | None = None) -> TakenLook:
    """Take a look; `word`: what it is to say of some contrasts, by their first variant."""

    def decide(sweep_dir: Path) -> TakenLook:
        look = stats.decide(sweep_dir)
        return replace(look, rulings=tuple(said(r) for r in look.rulings))

    def said(ruling: Ruling) -> Ruling:
        return replace(ruling, word=(word or {}).get(ruling.labels[0], ruling.word))

    return looks.take(folder, len(looks.read(folder)) + 1, decide)[0]


def verdicts(sweep: Sweep) -> dict[tuple[str, str], str]:
    """Words by first variant and measure, under the headline protocol."""
    found = scores.contrasts(sweep, 0)
    found = found[found["protocol"] == sweep.headline]
    rows = found.to_dict("records")
    return {(r["label"], r["metric"]): r["verdict"] for r in rows}


def test_a_look_reads_its_own_seeds_and_no_others(folder: Path) -> None:
    with_four = stats.decide(folder)
    without_seed(folder, 3)
    with_three = stats.decide(folder)
    assert replace(with_four, taken=0.0) == replace(with_three, taken=0.0)
    assert (with_three.number, with_three.seeds, with_three.metric) == (1, 3, "giou")
    assert [r.contrast for r in with_three.rulings] == ["cross − seg_only", "full − seg_only"]
    assert len(with_three.samples) == 9
    sweep = load(folder)
    for contrast, ruling in zip(contrasts(sweep), with_three.rulings, strict=True):
        held = compare(contrast, sweep.headline, np.full(M, 0.02), 0)
        assert held is not None
        assert ruling.p == pytest.approx(held.p["both"][0])
        assert ruling.equivalence == pytest.approx(held.p["equivalence"][0])
        assert ruling.seeds == 3
        assert ruling.overall > float(ruling.p or 1)  # it is looked at twice, and there are two


def test_the_second_look_goes_by_what_the_first_wrote_down(folder: Path) -> None:
    first = take(folder, {"cross": DIFFERS, "full": OPEN})
    second = stats.decide(folder)
    assert [r.labels[0] for r in second.rulings] == ["full"]
    assert len(second.samples) == 8  # cross got no more seeds
    weak = [replace(r, p=1.0) for r in first.rulings]
    content = {"looks": [{**first.__dict__, "rulings": [r.__dict__ for r in weak]}]}
    (folder / looks.LOOKS_FILE).write_text(json.dumps(content))
    assert stats.decide(folder).rulings[0].overall >= second.rulings[0].overall


def test_a_look_without_its_cells_is_not_taken(folder: Path) -> None:
    signature = load(folder).variants[1].cells[2].signature
    RunDirectory(folder / signature).update(status="failed")
    with pytest.raises(ValueError, match="cross has no results of seed 2, which look 1 needs"):
        stats.decide(folder)


def test_collapsed_seeds_do_not_decide_alone(folder: Path) -> None:
    """Two of three trainings of `full` fall: a single seed tells, which is nothing."""
    for cell in load(folder).variants[2].cells[:2]:
        run = RunDirectory(cell.directory)
        run.write_samples(run.samples().assign(intersection=0, iou=0.0))
    change(folder, looks={"seeds": PLAN.seeds, "at": (3, 4), "family": PLAN.family})
    full = stats.decide(folder).rulings[1]
    assert (full.seeds, full.p, full.word, full.overall) == (0, None, OPEN, 1.0)


def test_between_looks_verdicts_follow_the_boundary(folder: Path) -> None:
    for cell in load(folder).variants[2].cells:
        run = RunDirectory(cell.directory)
        run.write_samples(run.samples().assign(iou=0.95))
    change(folder, looks=None)
    nominal = verdicts(load(folder))
    assert nominal["full", "giou"] == "better"
    change(folder, looks={"seeds": PLAN.seeds, "at": PLAN.at, "family": PLAN.family})
    sweep = load(folder)
    assert set(verdicts(sweep).values()) == {"interim"}
    (notice,) = [n for n in checks.check(sweep) if n.title == "Interim."]
    assert "no look is taken yet" in notice.text
    take(folder, {"full": OPEN, "cross": FUTILE})
    sweep = load(folder)
    now = verdicts(sweep)
    assert now["full", "giou"] == "interim"
    assert now["cross", "giou"] == "given up"
    assert "look 1 of 2 (3 seeds) is taken" in checks.check(sweep)[0].text


def test_what_was_shown_alike_has_the_p_of_that(folder: Path) -> None:
    look = take(folder, {"full": EQUIVALENT, "cross": OPEN})
    by = {r.labels[0]: r for r in look.rulings}
    found = scores.contrasts(load(folder), 0)
    _, table = section(ReportData(load(folder), found, found, {}))
    assert isinstance(table, Table)
    entries = {line.label: line.entries[0].interval for line in table.lines}
    assert entries["full − seg_only"] == "equivalence " + p_text(by["full"].overall_equivalence)
    assert entries["cross − seg_only"] == p_text(by["cross"].overall)


def test_the_end_says_which_look_decided_what(folder: Path) -> None:
    take(folder, {"full": DIFFERS, "cross": OPEN})
    without_seed(folder, 3)
    found = scores.contrasts(load(folder), 0)
    row = found[(found["label"] == "full") & (found["metric"] == "giou")].iloc[0]
    assert row["look"] == "decided at look 1 of 2 (3 seeds)"
    other = found[(found["label"] == "cross") & (found["metric"] == "giou")].iloc[0]
    assert other["look"] == "after look 1 of 2 (3 seeds)"
    text, table = section(ReportData(load(folder), found, found, {}))
    assert "9 cells were asked for of 12 that 4 seeds for everyone take" in str(text)
    assert isinstance(table, Table)
    assert [[e.word for e in line.entries] for line in table.lines] == [[OPEN], [DIFFERS]]
    said = answers(load(folder), found)
    assert {(a.metric, a.look) for a in said if a.contrast.startswith("full")} == {
        ("gIoU", row["look"]),
        ("cIoU", "seeds until look 1 of 2 (3 seeds)"),
    }
    assert "Seeds came look by look" in rule(load(folder), said)


def test_a_sweep_that_ended_open_is_inconclusive(folder: Path) -> None:
    take(folder, {"full": DIFFERS, "cross": OPEN})
    take(folder, {"cross": OPEN})
    sweep = load(folder)
    row = scores.contrasts(sweep, 0).set_index(["protocol", "label", "metric"])
    cross = row.loc[(sweep.headline, "cross", "giou")]
    assert cross["look"] == "open after look 2 of 2 (4 seeds)"
    assert cross["verdict"] in ("inconclusive", "better", "no difference", "smaller than")
    text, _ = section(ReportData(sweep, pd.DataFrame(), pd.DataFrame(), {}))
    assert "Open after all looks: cross − seg_only" in str(text)
    assert not [n for n in checks.check(sweep) if n.title == "Interim."]


def test_other_samples_than_a_look_was_taken_of_are_told(folder: Path) -> None:
    take(folder)
    assert not [n for n in checks.check(load(folder)) if n.title.startswith("Decided on")]
    cell = load(folder).variants[0].cells[0]
    run = RunDirectory(cell.directory)
    run.write_samples(run.samples().assign(query="another"))
    (notice,) = [n for n in checks.check(load(folder)) if n.title == "Decided on other results."]
    assert notice.detail == "seg_only, seed 0: look 1"


def test_what_is_declared_later_is_exploratory(folder: Path) -> None:
    change(folder, looks=None)
    before = json.loads((folder / "sweep.json").read_text())
    before["cells"] = [c for c in before["cells"] if c["label"] != "cross"]
    declared = declaration.first({}, before, 1.0)
    change(folder, declared=declared)
    found = scores.contrasts(load(folder), 0).set_index(["protocol", "label", "metric"])
    headline = load(folder).headline
    assert found.loc[(headline, "full", "giou"), "declared"] == "at the start"
    assert found.loc[(headline, "cross", "giou"), "declared"] == "exploratory"
    assert found.loc[(headline, "full", "precision@0.9"), "declared"] == "exploratory"
    said = answers(load(folder), found.reset_index())
    assert {a.contrast for a in said if a.exploratory} == {"cross − seg_only"}
    change(folder, margin={"giou": 5.0})
    found = scores.contrasts(load(folder), 0).set_index(["protocol", "label", "metric"])
    assert found.loc[(headline, "full", "giou"), "declared"] == "exploratory"
    assert found.loc[(headline, "full", "ciou"), "declared"] == "at the start"


def test_seeds_that_were_added_later_are_told(folder: Path) -> None:
    change(folder, looks=None)
    before = json.loads((folder / "sweep.json").read_text())
    before["cells"] = [c for c in before["cells"] if c["seed"] < 3]
    change(folder, declared=declaration.first({}, before, 1.0))
    (notice,) = [n for n in checks.check(load(folder)) if n.title == "Seeds were added."]
    assert notice.detail == "added: 3"


def test_several_sweeps_read_as_one_follow_the_boundary_of_each(folder: Path, make: Any) -> None:
    """With a sweep whose seeds were fixed, and which has the runs of `seg_only` as well."""
    other: Path = make(folder.parent / "b", labels=("seg_only", "add"), seeds=range(4), images=8)
    content = change(other)
    for cell in content["cells"]:
        if cell["label"] == "add":
            (other / cell["signature"]).rename(other / f"b{cell['signature']}")
            cell["signature"] = f"b{cell['signature']}"
    contrast = {"of": {"fusion": "add"}, "against": {"fusion": "seg_only"}}
    change(other, name="b", cells=content["cells"], contrasts=[contrast])
    of_t = [{"of": {"fusion": f}, "against": {"fusion": "seg_only"}} for f in ("cross", "full")]
    change(folder, name="t", contrasts=of_t)

    def rows() -> pd.DataFrame:
        sweep = join([folder, other])
        found = scores.contrasts(sweep, 0)
        found = found[(found["protocol"] == sweep.headline) & (found["metric"] == "giou")]
        return found.set_index("label")

    now = rows()
    assert list(now["verdict"][["cross", "full"]]) == ["interim", "interim"]
    fixed = now.loc["add"]
    assert (fixed["look"], fixed["verdict"] in ("interim", "given up")) == ("", False)
    take(folder, {"full": OPEN, "cross": OPEN})
    take(folder, {"full": OPEN, "cross": OPEN})
    over = rows()
    assert over["look"]["full"] == "p over the 2 looks of t"
    assert "interim" not in set(over["verdict"])
    single = scores.contrasts(load(folder), 0)
    single = single[(single["protocol"] == load(folder).headline) & (single["metric"] == "giou")]
    single = single.set_index("label")
    for label in ("cross", "full"):  # the same tests at the same looks
        assert over["p_both"][label] == pytest.approx(single["p_both"][label])
    assert over["p_both"]["add"] == fixed["p_both"]
    (notice,) = [n for n in checks.check(join([folder, other])) if n.title == "Seeds by looks."]
    assert notice.detail == "t: looks at 3, 4 seeds, 2 taken"
    change(folder, looks=None)
    nominal = rows()
    assert (over["p_both"][["cross", "full"]] > nominal["p_both"][["cross", "full"]]).all()
    assert set(nominal["look"]) == {""}
