"""Results of other code, data or weights than today's."""

import json
import shutil
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from keyseg.config import ConfigError
from keyseg.data import identity, mix
from keyseg.model.backbones.weights import weights_fingerprint
from keyseg.runs import code
from keyseg.sweep import stale
from keyseg.sweep.cells import Cell
from keyseg.sweep.design import Point


@pytest.fixture
def scenes(scenes_folder, tmp_path):
    """A copy of the small data set that a test may change."""
    folder = tmp_path / "scenes"
    shutil.copytree(scenes_folder, folder)
    return folder


@pytest.fixture
def cell(small_run, scenes, tmp_path):
    """A cell that was done with today's code, data and weights."""
    config = small_run(f"data.root={scenes}", f"paths.data={tmp_path / 'memory'}")
    made = Cell("abc", "full", Point("full", {}, 0, []), config, tmp_path / "t" / "abc")
    run = made.create()
    code.record(run, config)
    splits = mix.load_splits(config.data)
    run.update(
        status="done",
        data_fingerprint=mix.fingerprint([s for split in splits for s in split]),
        weights_fingerprint=weights_fingerprint(config),
    )
    return made


def orders(**values):
    return OmegaConf.create({"rerun": False, "stale": "ask"} | values)


def other_code(cell):
    run = cell.open()
    parts = code.parts_of(run.path) | {"keyseg/model/fusion.py: Full": "another"}
    (run.path / code.CODE_FILE).write_text(json.dumps(parts))
    run.update(code=run.info["code"] | {"fingerprint": "f" * 16})


def other_keywords(scenes):
    """What `keyseg keywords review --apply` does to a keyword file, here to an annotation."""
    file = next((scenes / "reason_seg/ReasonSeg/test").glob("*.json"))
    content = json.loads(file.read_text())
    content["text"] = ["another question, please?"]
    file.write_text(json.dumps(content))


def other_masks(scenes):
    file = next((scenes / "refer_seg").glob("*/instances.json"))
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    file.write_text(json.dumps(content))


def test_a_cell_of_today_is_not_stale(cell):
    assert stale.find([cell]) == {}
    assert stale.decide([cell], orders()) == ([cell], [])


def test_other_code_is_named_with_its_definition(cell):
    other_code(cell)
    assert stale.find([cell]) == {"abc": ["other code: keyseg/model/fusion.py: Full"]}


@pytest.mark.parametrize("change", [other_keywords, other_masks])
def test_data_that_changed_under_a_finished_cell(cell, scenes, change):
    then = cell.open().info["data_fingerprint"]
    change(scenes)
    (reason,) = stale.find([cell])["abc"]
    assert reason.startswith(f"other data: {then} then, ")


def test_weights_that_changed_under_a_finished_cell(cell, tmp_path, sam_folder):
    moved = tmp_path / "sam"
    shutil.copytree(sam_folder, moved)
    cfg = cell.config
    cell = replace(cell, config=replace(cfg, model=replace(cfg.model, sam=str(moved))))
    assert stale.find([cell]) == {}
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (reason,) = stale.find([cell])["abc"]
    assert reason.startswith("other weights: ")


def test_what_is_gone_or_was_never_recorded_is_no_reason(cell, scenes):
    shutil.rmtree(scenes)
    assert stale.find([cell]) == {}
    run = cell.open()
    kept = {k: v for k, v in run.info.items() if k not in ("code", "weights_fingerprint")}
    (run.path / "run.json").write_text(json.dumps(kept))
    assert stale.find([cell]) == {}


def test_a_cell_without_results_is_never_stale_one_with_a_checkpoint_is(cell):
    other_code(cell)
    cell.open().update(status="failed")
    assert stale.find([cell]) == {}
    cell.open().last_file.write_bytes(b"a checkpoint")
    assert "abc" in stale.find([cell])


def test_without_a_terminal_stale_cells_are_an_error_that_says_what_to_do(cell):
    other_code(cell)
    with pytest.raises(ConfigError) as error:
        stale.decide([cell], orders())
    for part in ("1 of 1 cell is stale", "stale=rerun", "stale=keep", "full · seed 0", "Full"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", ["data", "weights"])
def test_what_is_half_done_with_other_data_cannot_be_kept_and_nobody_is_told_so(cell, what):
    """The worker would refuse it: its checkpoint is of that data."""
    cell.open().update(status="stopped", **{f"{what}_fingerprint": "before"})
    cell.open().last_file.write_bytes(b"a checkpoint")
    done = replace(cell, signature="def", path=cell.path.with_name("def"))
    done.create()
    other_code(cell)
    for choice in ("ask", "keep"):
        with pytest.raises(ConfigError) as error:
            stale.decide([cell, done], orders(stale=choice))
        assert "stale=keep" not in str(error.value)
        for part in (f"half done with other {what}: before then", "put back", "stale=rerun"):
            assert part in str(error.value)
        with pytest.raises(ConfigError, match=r"half done .*: put back what was there, name=NAME"):
            stale.check_study(cell.path.parent, choice)
    (again, _), lines = stale.decide([cell, done], orders(stale="rerun"))
    assert again.rerun
    assert len(lines) == 1


@pytest.mark.parametrize(("choice", "again"), [("rerun", True), ("keep", False)])
def test_what_the_command_says_is_done(cell, choice, again):
    other = replace(cell, signature="def", path=cell.path.with_name("def"))
    other_code(cell)
    cells, lines = stale.decide([cell, other], orders(stale=choice))
    assert [c.rerun for c in cells] == [again, False]
    assert len(lines) == 1
    assert "full · seed 0: other code" in lines[0]


@pytest.mark.parametrize(("typed", "again"), [("what\nrerun\n", True), ("keep\n", False)])
def test_at_a_terminal_it_is_asked(cell, monkeypatch, capsys, typed, again):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    other_code(cell)
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    cells, _ = stale.decide([cell], orders())
    assert cells[0].rerun is again
    assert "rerun or keep?" in capsys.readouterr().err


def test_rerun_asks_nothing(cell):
    other_code(cell)
    cells, lines = stale.decide([cell], orders(rerun=True))
    assert cells[0].rerun
    assert lines == []


def test_data_that_was_not_touched_is_not_read_again(cell, scenes, monkeypatch):
    cfg = cell.config
    found = identity.fingerprint(cfg.data, scenes.parent / "memory")
    assert found == cell.open().info["data_fingerprint"]
    monkeypatch.setattr(mix, "load_splits", lambda *_: pytest.fail("read again"))
    assert identity.fingerprint(cfg.data, scenes.parent / "memory") == found


@pytest.mark.parametrize(("name", "seen"), [("mask.png", True), ("photograph.jpg", False)])
def test_a_mask_counts_with_its_content_and_a_photograph_by_its_name(cell, scenes, name, seen):
    memory = scenes.parent / "memory"
    picture = next((scenes / "refer_seg").glob("*/instances.json")).parent / name
    picture.write_bytes(b"one")
    identity.remember(cell.config.data, memory, "as remembered")
    picture.write_bytes(b"another")
    now = identity.fingerprint(cell.config.data, memory)
    assert (now != "as remembered") == seen


@pytest.mark.parametrize("damage", ["", "[]", "{not json"])
def test_a_damaged_memory_is_as_none(cell, scenes, damage):
    memory = scenes.parent / "memory"
    then = identity.fingerprint(cell.config.data, memory)
    (memory / identity.FINGERPRINTS_FILE).write_text(damage)
    assert identity.fingerprint(cell.config.data, memory) == then


def test_a_study_does_not_go_on_with_stale_trials_unless_it_is_told(cell):
    folder = cell.path.parent
    stale.check_study(folder, "ask")
    other_code(cell)
    for choice in ("ask", "rerun"):
        with pytest.raises(ConfigError, match=r"1 of 1 trials of t are stale .*Full.*stale=keep"):
            stale.check_study(folder, choice)
    stale.check_study(folder, "keep")


def test_status_and_plan_name_what_is_stale(cell, capsys):
    from keyseg import cli

    entry = {"signature": "abc", "label": "full", "seed": 0, "factors": {"fusion": "full"}}
    design = {"name": "t", "cells": [entry], "command": "python run.py -m"}
    (cell.path.parent / "sweep.json").write_text(json.dumps(design))
    outputs = str(cell.path.parent.parent)
    for command in ("status", "plan"):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["--outputs", outputs, command, "t"])
        assert "stale" not in capsys.readouterr().out
    other_code(cell)
    for command in ("status", "plan"):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["--outputs", outputs, command, "t"])
        out = capsys.readouterr().out
        assert "keyseg/model/fusion.py: Full" in out
        assert "stale=rerun" in out
