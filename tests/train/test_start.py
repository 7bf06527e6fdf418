"""Training that begins at what another run has trained: what is taken, new, left out, refused."""

from __future__ import annotations

import shutil
from copy import deepcopy

import pytest
import torch

from keyseg.config import PROJECT, ConfigError, resolve_path, signature
from keyseg.model.manifest import manifest, trainable
from keyseg.runs import disk
from keyseg.runs.run_directory import DONE, RunDirectory
from keyseg.sweep import start as settling
from keyseg.sweep.cells import frozen
from keyseg.train import start as starting
from keyseg.train.checkpoints import read_best
from tests.worker.test_cell import finish

ROWS = "embed_tokens.token_adapter.trainable_tokens_delta.default"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def full(make_finished, outputs):
    return make_finished("fusion=full", outputs=outputs)


@pytest.fixture
def begun(make_parts):
    """The parts of a run that begins at another, and what was taken."""

    def make(run, *overrides):
        parts, cfg = make_parts("model.precision=fp32", *overrides, shaken=False)
        before = {n: p.detach().clone() for n, p in trainable(parts.model).items()}
        cfg.model.start = str(run.path)
        cfg = frozen(deepcopy(cfg))
        return parts, starting.begin(parts, cfg), before

    return make


def rows_of(state):
    [found] = [value for name, value in state.items() if name.endswith(ROWS)]
    return found


def test_the_same_model_takes_all_of_it(full, begun):
    parts, start, _ = begun(full, "fusion=full", "seed=1")
    state = read_best(full.best_file)
    own = trainable(parts.model)
    assert own.keys() == state.keys()
    assert all(torch.equal(own[n].detach(), state[n]) for n in own)
    assert (start.new, start.left_out) == ({}, {})
    assert sum(start.taken.values()) == sum(p.numel() for p in own.values())
    assert start.tokens == {"[KEY]": "kept", "[SEG]": "kept"}
    notes = {row["note"] for row in start.noted(manifest(parts.model)) if row["trainable"]}
    assert notes == {"from the start"}


def test_a_token_keeps_its_row_and_what_is_lacking_is_new(make_finished, begun, outputs):
    """From a run without KEY: SEG's row is taken though it goes by another number."""
    run = make_finished("fusion=no_key", outputs=outputs)
    parts, start, before = begun(run, "fusion=full")
    state, own = read_best(run.best_file), trainable(parts.model)
    rows = rows_of({n: p.detach() for n, p in own.items()})
    assert torch.equal(rows[1], rows_of(state)[0])
    assert torch.equal(rows[0], rows_of(before)[0])
    assert start.tokens == {"[KEY]": "new", "[SEG]": "kept"}
    new = [n for n in own if n.startswith(("fusion.", "key_projection."))]
    assert new
    assert all(torch.equal(own[n].detach(), before[n]) for n in new)
    taken = next(n for n in own if n.startswith("seg_projection."))
    assert torch.equal(own[taken].detach(), state[taken])
    assert {"key_projection", "keyword_head"} <= start.new.keys()
    assert start.left_out == {}
    row = next(r for r in start.noted(manifest(parts.model)) if r["module"] == "key_projection")
    assert row["note"] == "new"
    [line] = start.lines()
    assert "rows: [KEY] new, [SEG] kept" in line


def test_what_the_model_has_not_is_left_out(full, begun):
    parts, start, _ = begun(full, "fusion=no_key")
    rows = rows_of({n: p.detach() for n, p in trainable(parts.model).items()})
    assert torch.equal(rows[0], rows_of(read_best(full.best_file))[1])
    assert start.tokens == {"[SEG]": "kept", "[KEY]": "left out"}
    assert {"key_projection", "keyword_head"} <= start.left_out.keys()


@pytest.mark.parametrize("then", ["new", "all"])
def test_rows_reach_whole_tables(make_finished, begun, outputs, then):
    run = make_finished("fusion=no_key", f"model.tokens.rows={then}", outputs=outputs)
    parts, start, before = begun(run, "fusion=full", "model.tokens.rows=all")
    table = parts.model.vlm.table()
    talk = parts.conversation
    state = read_best(run.best_file)
    theirs = next(v for n, v in state.items() if "embed_tokens" in n)
    old = next(v for n, v in before.items() if n.endswith("embed_tokens.weight"))
    first = min(talk.key_id, talk.seg_id)
    seg = theirs[0] if then == "new" else theirs[first]  # the first new word there
    assert torch.equal(table[talk.seg_id], seg)
    assert torch.equal(table[talk.key_id], old[talk.key_id])
    assert torch.equal(table[:first], old[:first] if then == "new" else theirs[:first])
    assert start.tokens == {"[KEY]": "new", "[SEG]": "kept"}
    assert not any("token_adapter" in name for name in start.left_out)


def started(small_run, run, *overrides):
    return small_run("fusion=full", "model.precision=fp32", f"model.start={run.path}", *overrides)


def test_the_hash_of_the_start_counts_and_its_place_does_not(small_run, full, tmp_path):
    plain = small_run("fusion=full", "model.precision=fp32")
    assert frozen(deepcopy(plain)).model.start is None
    first = frozen(started(small_run, full))
    assert first.model.start_hash == disk.sha256(full.best_file)[:16]
    assert signature(first) != signature(plain)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(full.path, elsewhere)
    assert signature(frozen(started(small_run, RunDirectory(elsewhere)))) == signature(first)
    weights = elsewhere / "checkpoints" / "best.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    settling.find.cache_clear()
    assert signature(frozen(started(small_run, RunDirectory(elsewhere)))) != signature(first)


def test_backbones_are_those_of_the_start(small_run, full):
    cfg = started(small_run, full, "model.llava=elsewhere")
    assert frozen(cfg).model.llava == full.config.model.llava


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.lora.r=4"], "it has model.lora.r=16, this run 4: set model.lora.r=16"),
        (["model.lora.targets=[q_proj]"], "set model.lora.targets=[down_proj,gate_proj,"),
        (["model.projection_layers=1"], "set model.projection_layers=2"),
        (["model.tokens.seg=SEG2"], "its SEG is [SEG], this run's SEG2"),
        (["model.init=random"], "does not go with model.init=random"),
        (["model.start=nothing/at/all"], "model.start=nothing/at/all: there is no run"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_job(small_run, full, overrides, message):
    with pytest.raises(ConfigError) as error:
        frozen(started(small_run, full, *overrides))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_family_is_refused(small_run, full):
    cfg = started(small_run, full)
    cfg.model.language = {"_target_": "keyseg.model.backbones.qwen_vl.Qwen3Vl"}
    with pytest.raises(ConfigError, match="its language side is Llava, that of model=tiny Qwen3Vl"):
        frozen(cfg)


def test_every_model_may_begin_at_a_run(compose_run):
    models = (PROJECT / "experiments" / "model").glob("*.yaml")
    assert {compose_run(f"model={m.stem}", "model.start=there").model.start for m in models} == {
        "there"
    }


def test_a_keywords_table_of_another_width_is_refused(compose_run):
    """Of an import of KeySeg, which has its own, into a copy of the language model's."""
    trained, own, frozen_one = (
        compose_run("fusion=full", f"loss.keyword.table={table}")
        for table in ("trained", "own", "frozen")
    )
    for ours, theirs, remedy in ((trained, own, "own"), (own, trained, "trained")):
        with pytest.raises(ConfigError, match=rf"set loss\.keyword\.table={remedy}, or frozen"):
            settling.check(ours, theirs)
    settling.check(frozen_one, own)


def test_whole_tables_do_not_fit_into_rows(small_run, make_finished, outputs):
    run = make_finished("fusion=no_key", "model.tokens.rows=all", outputs=outputs)
    with pytest.raises(ConfigError, match=r"set model\.tokens\.rows=all"):
        frozen(started(small_run, run))


def test_a_start_that_is_not_finished_is_refused(small_run, full):
    full.update(status="running")
    try:
        settling.find.cache_clear()
        with pytest.raises(ConfigError, match="is not finished"):
            frozen(started(small_run, full))
    finally:
        full.update(status=DONE)


def test_a_start_that_changed_since_submit_is_refused(small_run, full, make_parts):
    parts, _ = make_parts("fusion=full", "model.precision=fp32")
    cfg = frozen(started(small_run, full))
    cfg.model.start_hash = "another"
    with pytest.raises(ConfigError, match="not what it was at submit"):
        starting.begin(parts, cfg)


def test_other_sizes_are_one_line(begun, full):
    with pytest.raises(ConfigError, match="other sizes cannot be taken"):
        begun(full, "fusion=full", "model.tokens.n_keys=1", "fusion.mlp_ratio=3")


def test_a_run_tells_where_it_began(small_run, full, tmp_path):
    """And its first checkpoint, before any step, is the start."""
    cfg = frozen(
        started(small_run, full, "optim.steps=0", "evaluation.protocols=[teacher_forced]", "seed=3")
    )
    run = RunDirectory.create(tmp_path / signature(cfg), cfg)
    assert finish(run) == 0, run.log_file.read_text()
    told = run.info["start"]
    assert told["hash"] == cfg.model.start_hash
    assert resolve_path(told["run"]) == full.path.resolve()
    assert told["new"] == {}
    assert f"begins from {told['run']}" in run.log_file.read_text()
    notes = {row["note"] for row in run.info["manifest"] if row["trainable"]}
    assert notes == {"from the start"}
    ours, theirs = read_best(run.best_file), read_best(full.best_file)
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
