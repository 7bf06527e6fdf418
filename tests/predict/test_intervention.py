"""KEY's and SEG's states replaced in a trained model: what changes, and what must not."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from keyseg import cli
from keyseg.data.derangement import derangement
from keyseg.data.mix import groups, load
from keyseg.data.relatives import RELATIVES, relatives
from keyseg.predict.intervention import Reading
from keyseg.predict.states import States
from keyseg.report import build
from keyseg.report.figures import drawing
from keyseg.report.page.checks import check
from keyseg.report.stats import interventions as paired
from keyseg.report.store import load as load_sweep
from keyseg.report.tables import interventions as tables
from keyseg.runs import disk, interventions
from keyseg.runs.interventions import REPLACED, REPLACEMENTS, Intervention
from keyseg.runs.run_directory import RunDirectory
from keyseg.worker.run import replaced


@pytest.fixture(scope="module")
def test_images(small_run):
    return groups(e for s in load(small_run().data, "test") for e in s.examples)


@pytest.fixture(scope="module")
def read(make_parts, test_images):
    """Records of a variant untouched and under every intervention, by name."""
    made = {}

    def make(*overrides, protocol="teacher_forced"):
        key = (*overrides, protocol)
        if key not in made:
            parts, cfg = make_parts("model.precision=fp32", *overrides)
            reading = Reading(parts, test_images, cfg, protocol)
            made[key] = {"untouched": reading.untouched()} | {
                f"{token}_{kind}": reading.under(Intervention(token, kind))
                for token in REPLACED
                for kind in REPLACEMENTS
            }
        return made[key]

    return make


def masks(records):
    return [r["mask_rle"] for r in records]


def untouched(found, name):
    """The records without a change, of the examples that an intervention has."""
    ids = {r["id"] for r in found[name]}
    return [r for r in found["untouched"] if r["id"] in ids]


def test_key_moves_the_mask_where_the_fusion_reads_it(read):
    """And nowhere else: in seg_only and self KEY's state has no way to the mask."""
    for variant, reads in (("full", True), ("seg_only", False), ("self", False), ("cross", True)):
        found = read(f"fusion={variant}")
        for kind in REPLACEMENTS:
            same = masks(found[f"key_{kind}"]) == masks(untouched(found, f"key_{kind}"))
            assert same != reads, (variant, kind)
        assert masks(found["seg_zero"]) != masks(found["untouched"]) or variant == "cross"
    assert masks(read("fusion=cross")["seg_swap"]) == masks(read("fusion=cross")["untouched"])


def test_through_the_context_too(read):
    found = read("fusion=self", "fusion.key_in_context=true")
    assert masks(found["key_swap"]) != masks(found["untouched"])


def test_the_answer_stays_and_the_keyword_head_reads_what_is_there_instead(read):
    found = read("fusion=full")
    for name, records in found.items():
        for one, other in zip(records, untouched(found, name), strict=True):
            assert (one["id"], one["answer"], one["has_key"]) == (
                other["id"],
                other["answer"],
                other["has_key"],
            )
            if name.startswith("seg"):
                assert one["top_words"] == other["top_words"]
    assert not any(r["keyword_rank"] == 0 for r in found["key_zero"])  # it names nothing
    words = [r["predicted_keyword"] for r in found["key_mean"]]
    assert len(set(words)) == 1  # one state, one word
    assert len({r["predicted_keyword"] for r in found["untouched"]}) > 1


def test_what_a_state_is_replaced_by(test_images):
    examples = [e for g in test_images for e in g.examples]
    rng = torch.Generator().manual_seed(0)
    of = {e.id: torch.randn(2, 5, generator=rng) for e in examples}
    states = States(examples, of)
    every = torch.stack(list(of.values()))
    others = derangement(examples)
    assert all(torch.equal(s, of[others[n].id]) for n, s in states.replaced("swap").items())
    assert all(not s.any() for s in states.replaced("zero").values())
    assert all(torch.equal(s, every.mean(dim=0)) for s in states.replaced("mean").values())
    noise = states.replaced("noise")
    assert noise.keys() == of.keys()
    assert len({tuple(s.flatten().tolist()) for s in noise.values()}) == len(of)
    fewer = States(examples[::-1], of).replaced("noise")
    assert all(torch.allclose(noise[n], fewer[n]) for n in noise)
    states.words = {e.id: "dog" if n % 3 else "cat" for n, e in enumerate(examples)}
    states.wrong = {e.id for e in examples[::2]}

    def mean_elsewhere(example, names, name):
        return torch.stack(
            [of[o.id] for o in examples if names[o.id] == name and o.image_id != example.image_id]
        ).mean(dim=0)

    keywords = {e.id: e.keyword for e in examples}
    for kind, names in (("renamed", keywords), ("corrected", states.words)):
        moved = states.replaced(kind)
        assert moved
        assert kind == "renamed" or moved.keys() <= states.wrong
        for e in examples:
            if e.id in moved:
                now = others[e.id].keyword if kind == "renamed" else e.keyword
                step = mean_elsewhere(e, keywords, now) - mean_elsewhere(e, names, names[e.id])
                torch.testing.assert_close(moved[e.id], of[e.id] + step, rtol=1e-4, atol=1e-5)
    for relation in RELATIVES:
        others = relatives(examples, relation)
        assert others
        given = states.replaced(relation)
        assert given.keys() == others.keys()
        assert all(torch.equal(given[name], of[o.id]) for name, o in others.items())
    oracle = states.replaced("oracle")
    for e in examples:
        same = [
            of[o.id]
            for o in examples
            if o.keyword == e.keyword and o.image_id != e.image_id and e.keyword
        ]
        wanted = torch.stack(same).mean(dim=0) if same else every.mean(dim=0)
        torch.testing.assert_close(oracle[e.id], wanted, rtol=1e-4, atol=1e-5)


def test_a_cell_may_read_test_under_an_intervention(make_parts, test_images, read):
    parts, cfg = make_parts("model.precision=fp32", "evaluation.intervention=key-swap")
    found = replaced(parts, test_images, cfg, "teacher_forced")
    assert masks(found) == masks(read("fusion=full")["key_swap"])
    assert masks(found) != masks(read("fusion=full")["untouched"])


def test_generated_answers_are_written_once_and_kept(make_parts, test_images, monkeypatch):
    parts, cfg = make_parts("fusion=full", "model.precision=fp32")
    answer = parts.conversation.tokenizer("[KEY] [SEG]", add_special_tokens=False)["input_ids"]
    asked = []

    def generate(prefix, questions, *_):
        asked.append(len(questions))
        return [answer] * (len(questions) - 1) + [[]]  # one answer lacks both

    monkeypatch.setattr(parts.model.vlm, "generate", generate)
    reading = Reading(parts, test_images, cfg, "generated")
    before = reading.untouched()
    count = len(asked)
    after = reading.under(Intervention("key", "zero"))
    assert len(asked) == count
    assert [r["answer"] for r in after] == [r["answer"] for r in before]
    lacking = [n for n, r in enumerate(before) if not r["has_seg"]]
    assert lacking
    assert all(after[n]["mask_rle"] == before[n]["mask_rle"] for n in lacking)
    assert masks(after) != masks(before)


@pytest.fixture(scope="module")
def finished(make_finished, test_images, tmp_path_factory):
    """A sweep of one variant and two seeds with results on test, as trained runs leave them."""
    from keyseg.predict.predictor import load_model
    from keyseg.train.evaluate import evaluate, in_order

    outputs = tmp_path_factory.mktemp("outputs")
    cells = []
    for seed in (0, 1):
        run = make_finished(
            "fusion=full",
            f"seed={seed}",
            "evaluation.protocols=[teacher_forced]",
            outputs=outputs,
        )
        parts = load_model(run.config, run.best_file, torch.device("cpu"))
        records = in_order(evaluate(parts, test_images, run.config, "teacher_forced"), test_images)
        run.write_samples(pd.DataFrame(records))
        run.update(checkpoint_fingerprint=disk.sha256(run.best_file)[:16], seed=seed)
        cells.append(
            {
                "signature": run.path.name,
                "label": "full",
                "factors": {"fusion": "full"},
                "seed": seed,
            }
        )
    design = {"name": "fusion", "question": "why?", "command": "run", "cells": cells}
    (outputs / "fusion" / "sweep.json").write_text(json.dumps(design))
    return outputs


def intervene(outputs, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--outputs", str(outputs), "intervene", *arguments, "--device", "cpu"])
    return ended.value.code


def test_the_command_reads_once_and_the_report_pairs(finished, capsys):
    asked = ("fusion", "--key", "swap,zero", "--seg", "mean")
    assert intervene(finished, *asked) == 0
    said = capsys.readouterr().out
    assert said.count("KEY swap: gIoU") == 2
    assert "warning" not in said  # read again untouched, the model is what the run measured
    assert "keyseg report fusion" in said
    assert intervene(finished, *asked) == 0
    assert capsys.readouterr().out.count("was read already") == 6
    about = next(finished.glob("fusion/*/interventions/key_swap.*.json"))
    of = json.loads(about.read_text())
    about.write_text(json.dumps(of | {"code": "another"}))
    assert intervene(finished, *asked) == 0
    assert capsys.readouterr().out.count("was read already") == 5
    about.write_text(json.dumps({k: v for k, v in of.items() if k != "code"}))  # of an older keyseg
    assert intervene(finished, *asked) == 0
    assert capsys.readouterr().out.count("was read already") == 6
    sweep = load_sweep(finished / "fusion")
    found = paired.interventions(sweep, seed=0)
    giou = found[found["metric"] == "giou"].set_index(["token", "kind"])
    assert list(giou.index) == [("key", "swap"), ("key", "zero"), ("seg", "mean")]
    for (token, kind), row in giou.iterrows():
        gaps = []
        for cell in sweep.finished:
            [stored] = [
                s for s in paired.fresh(cell) if s.intervention == Intervention(token, kind)
            ]
            assert stored.samples["id"].tolist() == cell.samples["id"].tolist()
            gaps.append(stored.samples["iou"].mean() - cell.samples["iou"].mean())
        assert row["difference"] == pytest.approx(np.mean(gaps))
        assert row["replaced"] - row["untouched"] == pytest.approx(np.mean(gaps))
        assert row["seeds"] == 2
    [table] = tables.tables(sweep, found)
    assert [line.label for line in table.lines] == [
        "full: KEY swap",
        "full: KEY zero",
        "full: SEG mean",
    ]


def test_the_report_shows_them_beside_the_untouched(finished, tmp_path, monkeypatch):
    assert intervene(finished, "fusion/full", "--key", "swap") == 0
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    files = build(finished / "fusion", tmp_path / "report", formats=("md", "csv"))
    page = files.markdown.read_text()
    assert "full: KEY swap" in page
    assert REPLACEMENTS["swap"].split(":")[0] in page
    [table] = [f for f in files.tables if f.name == "interventions.csv"]
    assert {"key"} <= set(pd.read_csv(table)["token"])


def test_two_interventions_are_held_against_each_other_on_what_has_both(finished):
    asked = ("swap", "renamed", "namesake", "neighbour", "namesake_elsewhere")
    assert intervene(finished, "fusion/full", "--key", ",".join(asked)) == 0
    sweep = load_sweep(finished / "fusion")
    rows = paired.interventions(sweep, seed=0)
    giou = rows[(rows["metric"] == "giou") & (rows["against"] != "")].set_index("kind")
    assert giou["against"].to_dict() == {
        "namesake_elsewhere": "swap",
        "namesake": "neighbour",
        "renamed": "swap",
    }
    gaps = []
    for cell in sweep.finished:
        kinds = {s.intervention.kind: s.samples.set_index("id")["iou"] for s in paired.fresh(cell)}
        both = kinds["namesake"].index.intersection(kinds["neighbour"].index)
        assert 0 < len(both) < max(len(kinds["namesake"]), len(kinds["neighbour"]))
        gaps.append((kinds["namesake"][both] - kinds["neighbour"][both]).mean())
    row = giou.loc["namesake"]
    assert row["difference"] == pytest.approx(np.mean(gaps))
    assert (row["examples"], row["seeds"]) == (len(both), 2)
    compared = tables.tables(sweep, rows)[1]
    assert [line.label for line in compared.lines] == [
        "full: KEY namesake elsewhere − swap",
        "full: KEY namesake − neighbour",
        "full: KEY renamed − swap",
    ]


def test_expressions_without_such_another_are_left_out_on_both_sides(finished, capsys):
    for read in finished.glob("fusion/*/interventions/key_namesake.*"):
        read.unlink()
    assert intervene(finished, "fusion/full", "--key", "namesake") == 0
    sweep = load_sweep(finished / "fusion")
    cell = sweep.finished[0]
    [stored] = [s for s in paired.fresh(cell) if s.intervention == Intervention("key", "namesake")]
    assert 0 < len(stored.samples) < len(cell.samples)
    own = cell.samples[cell.samples["id"].isin(stored.samples["id"])]
    said = capsys.readouterr().out.splitlines()[0]
    assert f"gIoU {100 * own['iou'].mean():.1f} -> " in said
    assert said.endswith(f", {len(own)} of {len(cell.samples)} expressions")
    rows = paired.interventions(sweep, seed=0)
    alone = rows[(rows["against"] == "") & (rows["metric"] == "giou")]
    [row] = alone[alone["kind"] == "namesake"].to_dict("records")
    both = [c.samples[c.samples["id"].isin(own["id"])]["iou"].mean() for c in sweep.finished]
    assert row["examples"] == len(own)
    assert row["untouched"] == pytest.approx(np.mean(both))
    table = tables.tables(sweep, rows)[0]
    [line] = [line for line in table.lines if line.label == "full: KEY namesake"]
    assert line.entries[-1].value == f"{len(own):,}"


def test_seeds_that_were_read_by_several_versions_of_the_code_are_said(finished):
    assert intervene(finished, "fusion/full", "--key", "swap") == 0
    titles = [n.title for n in check(load_sweep(finished / "fusion"))]
    several = "Interventions by several versions of the code."
    assert several not in titles
    about = next(finished.glob("fusion/*/interventions/key_swap.*.json"))
    of = about.read_text()
    try:
        about.write_text(json.dumps(json.loads(of) | {"code": "another"}))
        [said] = [n for n in check(load_sweep(finished / "fusion")) if n.title == several]
        assert "full" in said.text
    finally:
        about.write_text(of)


def test_interventions_on_other_weights_are_left_out(finished):
    assert intervene(finished, "fusion/full", "--key", "swap") == 0
    sweep = load_sweep(finished / "fusion")
    [cell, _] = sweep.finished
    run = RunDirectory(cell.directory)
    there = len(list(interventions.read(run)))
    assert there
    told = run.info["checkpoint_fingerprint"]
    try:
        run.update(checkpoint_fingerprint="another")
        [again, other] = load_sweep(finished / "fusion").finished
        assert (paired.fresh(again), paired.stale(again), paired.stale(other)) == ([], there, 0)
    finally:
        run.update(checkpoint_fingerprint=told)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fusion/full/0",), "give --key or --seg"),
        (("fusion/full/0", "--key", "swop"), "--key swop: must be one of swap"),
        (("fusion/full/0", "--key", "swap", "--protocol", "generated"), "not read under"),
        (("nothing", "--key", "swap"), "no run 'nothing'"),
    ],
)
def test_what_cannot_be_asked_says_why(finished, capsys, arguments, message):
    assert intervene(finished, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_key_has_none_to_replace(make_finished, tmp_path, capsys):
    make_finished("fusion=no_key", outputs=tmp_path)
    assert intervene(tmp_path, "fusion", "--key", "swap") == 2
    assert "has no KEY in its answers" in capsys.readouterr().err
