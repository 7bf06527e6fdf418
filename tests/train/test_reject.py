"""A third token says that there is no target: what is trained, and what decides under test."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from keyseg.config import ConfigError
from keyseg.data.masks import CocoMask, encode_rle
from keyseg.data.mix import ImageGroup, groups, load
from keyseg.dialects.score import dialects, score
from keyseg.metrics import summarise
from keyseg.runs.samples import REJECTED, SAMPLE_COLUMNS
from keyseg.train.evaluate import evaluate
from keyseg.train.trainer import Counts, compute_losses

REJECT = "model.tokens.no_target=reject"


def denied(example):
    """Another query, which names nothing."""
    size = example.mask().shape
    slices = {**example.slices, "targets": "none"}
    none = {"query": "the small light", "keyword": None, "text": None}
    mask = CocoMask([], *size)
    return replace(example, id=f"none-{example.id}", slices=slices, load_mask=mask, **none)


@pytest.fixture(scope="module")
def cell(make_parts):
    """A model, its config, and an image with two expressions, the second of which names nothing."""
    parts, cfg = make_parts("fusion=full", "model.precision=fp32", REJECT)
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    first, *_ = group.examples
    return parts, cfg, ImageGroup(group.image, group.image_id, [first, denied(first)])


def rngs(groups):
    return [np.random.default_rng(0) for _ in groups]


def test_the_other_tokens_begin_as_they_would_without_it(make_parts):
    rows = []
    for overrides in ((), (REJECT,)):
        parts, _ = make_parts("fusion=full", *overrides, shaken=False)
        talk, table = parts.conversation, parts.model.vlm.base.get_input_embeddings()
        rows.append(table(torch.tensor([talk.key_id, talk.seg_id])))
    assert torch.equal(*rows)
    assert talk.rej_id == talk.key_id - 1


def test_an_answer_that_rejects_trains_its_text_and_no_mask(cell):
    parts, cfg, group = cell
    batch = parts.collator([group], rngs([group]))
    talk = parts.conversation
    said = [
        talk.text(t.ids[t.answer :]) for t in (talk.turn(e, *rngs([0])) for e in group.examples)
    ]
    assert "[SEG]" in said[0]
    assert said[1].replace(" ", "") == "sure,[REJ]."
    assert batch.asked == [True, False]
    assert Counts.of(batch)[1:] == (1, 1, 2)
    assert batch.keyword_ids[1] == []
    output = parts.model(batch)
    losses = compute_losses(output, batch, cfg, parts.model.frame)
    alone = replace(group, examples=group.examples[:1])
    other = parts.collator([alone], rngs([alone]))
    with torch.no_grad():
        wanted = compute_losses(parts.model(other), other, cfg, parts.model.frame)
    assert losses.terms["bce"] == pytest.approx(float(wanted.terms["bce"]), rel=1e-5)
    assert losses.terms["dice"] == pytest.approx(float(wanted.terms["dice"]), rel=1e-5)
    losses.total.backward()
    grads = [p.grad for p in parts.model.parameters() if p.grad is not None]
    assert grads
    assert all(bool(g.isfinite().all()) for g in grads)
    parts.model.zero_grad()


@pytest.mark.parametrize("fusion", ["cross", "self", "released", "no_key"])
def test_a_batch_in_which_every_answer_rejects(make_parts, cell, fusion):
    parts, cfg = make_parts(f"fusion={fusion}", REJECT)
    _, _, group = cell
    none = replace(group, examples=group.examples[1:])
    batch = parts.collator([none], rngs([none]))
    losses = compute_losses(parts.model(batch), batch, cfg, parts.model.frame)
    assert (float(losses.terms["bce"]), Counts.of(batch).masks) == (0.0, 0)
    assert math.isfinite(losses.total.detach())
    losses.total.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in parts.model.parameters())


def test_a_given_answer_is_rejected_by_the_model(cell, monkeypatch):
    """It is given up to the tokens; whether it says REJ there is what the model says."""
    parts, cfg, group = cell
    talk = parts.conversation
    batch = parts.collator([group])
    assert [talk.rej_id in row for row in batch.packed.input_ids.tolist()] == [False]
    real = parts.model.vlm.logits

    def leaning(by):
        def logits(states):
            out = real(states).clone()
            out[:, talk.rej_id] += by
            return out

        monkeypatch.setattr(parts.model.vlm, "logits", logits)
        return list(evaluate(parts, [group], cfg, "teacher_forced"))

    for by, rejected in ((-1e4, False), (1e4, True)):
        rows = leaning(by)
        assert [r["rejected"] for r in rows] == [rejected] * 2
        assert {*SAMPLE_COLUMNS, *REJECTED} <= rows[0].keys()
        if rejected:
            empty = encode_rle(group.examples[0].mask() * 0)
            assert {r["mask_rle"] for r in rows} == {empty}
            found = summarise(pd.DataFrame(rows))
            assert (found["n_acc"], found["t_acc"]) == (1.0, 0.0)
    # Each by itself: between what the model says of the one and of the other.
    monkeypatch.setattr(parts.model.vlm, "logits", real)
    with torch.no_grad():
        output = parts.model(batch)
    gaps = []
    for n in range(2):
        at = (batch.supervised == int(batch.key_at[n, 0]) - 1).nonzero().item()
        gaps.append(
            float(output.text_logits[at, talk.key_id] - output.text_logits[at, talk.rej_id])
        )
    assert gaps[0] != gaps[1]
    rows = leaning(sum(gaps) / 2)
    assert [r["rejected"] for r in rows] == [g < sum(gaps) / 2 for g in gaps]


def test_a_generated_answer_rejects_by_saying_so(cell, monkeypatch):
    parts, cfg, group = cell
    tokenizer = parts.conversation.tokenizer
    said = ["sure , [KEY] [SEG] [REJ] .", "sure , [REJ] ."]
    ids = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in said]
    monkeypatch.setattr(parts.model.vlm, "generate", lambda *_: ids)
    rows = list(evaluate(parts, [group], cfg, "generated"))
    assert [(r["rejected"], r["has_seg"]) for r in rows] == [(True, True), (True, False)]
    assert len({r["mask_rle"] for r in rows}) == 1
    found = summarise(pd.DataFrame(rows))
    assert (found["no_seg_rate"], found["no_key_rate"]) == (0.0, 0.0)


def test_without_the_option_nothing_of_it_is_there(make_parts, cell):
    parts, cfg = make_parts("fusion=full")
    _, _, group = cell
    batch = parts.collator([group], rngs([group]))
    assert batch.asked == [True, True]
    rows = list(evaluate(parts, [group], cfg, "teacher_forced"))
    assert all("rejected" not in row for row in rows)
    assert "[REJ]" not in parts.conversation.tokenizer.get_vocab()


def test_gsva_asks_the_token_and_others_the_mask():
    def row(name, mask, target, rejected):
        drawn = [encode_rle(np.array([[c == "1" for c in text]])) for text in (mask, target)]
        sizes = {"height": 1, "width": 4, "mask_rle": drawn[0], "target_rle": drawn[1]}
        return {"id": name, **sizes, "ignore_rle": "", "rejected": rejected}

    samples = pd.DataFrame(
        [
            row("a-0", "....", "....", True),
            row("b-0", "....", "....", False),  # empty, but nothing was said
            row("c-0", "11..", "11..", False),
            row("d-0", "....", "11..", False),
            row("e-0", "....", "11..", True),
        ]
    )
    known = dialects()
    found = score(samples, [known["gsva"], known["rela"], known["keyseg"]])
    assert (found["gsva"]["n_acc"], found["gsva"]["t_acc"]) == (0.5, pytest.approx(2 / 3))
    for name in ("rela", "keyseg"):
        assert (found[name]["n_acc"], found[name]["t_acc"]) == (1.0, pytest.approx(1 / 3))
    assert found["gsva"]["giou"] == pytest.approx(2 / 5)
    assert found["rela"]["giou"] == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.tokens.rej='[SEG]'", "is another token of answers"),
        ("model.tokens.rej='a b'", "without spaces"),
        ("model.tokens.no_target=head", "must be one of empty, reject"),
    ],
)
def test_bad_tokens_are_named(compose_run, override, message):
    with pytest.raises(ConfigError, match=message):
        compose_run(*({REJECT, override} if "no_target" not in override else {override}))
