"""SAM 2's object score says that there is no target: what is trained, and what decides."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from keyseg.config import ConfigError, signature
from keyseg.data.masks import encode_rle
from keyseg.data.mix import ImageGroup, ImageSampler, groups, load
from keyseg.dialects.score import dialects, score
from keyseg.metrics import summarise
from keyseg.model.manifest import assert_trained, trainable
from keyseg.runs.samples import REJECTED, SAMPLE_COLUMNS, SCORED
from keyseg.sweep import buildable
from keyseg.train.evaluate import evaluate
from keyseg.train.losses import weighted_terms
from keyseg.train.trainer import Counts, Trainer, compute_losses, make_optimizer
from tests.families import mask_folder
from tests.train.test_reject import denied, rngs

SCORE = "model.tokens.no_target=score"
HEAD = "mask_head.decoder.pred_obj_score_head."


@pytest.fixture(scope="module", params=["sam2", "sam3_tracker"])
def sam(request, tmp_path_factory):
    """Overrides for a mask side that has the score."""
    folder = mask_folder(request.param, tmp_path_factory.mktemp("sam") / request.param)
    option = {"sam2": "sam2_tiny"}.get(request.param, request.param)
    return f"mask={option}", f"model.sam={folder}"


@pytest.fixture(scope="module")
def cell(make_parts, sam):
    """A model, its config, and an image with two expressions, the second of which names nothing."""
    parts, cfg = make_parts("fusion=full", "model.precision=fp32", SCORE, *sam)
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    first, *_ = group.examples
    return parts, cfg, ImageGroup(group.image, group.image_id, [first, denied(first)])


def test_the_score_is_trained_by_a_term_of_its_own(cell):
    """On both expressions; the mask on the one alone that has a target."""
    parts, cfg, group = cell
    batch = parts.collator([group], rngs([group]))
    assert batch.asked == [True, False]
    assert Counts.of(batch)[1:] == (1, 1, 2)
    output = parts.model(batch)
    losses = compute_losses(output, batch, cfg, parts.model.frame)
    there, none = output.object_logits.tolist()
    assert there != none
    by_hand = float((F.softplus(torch.tensor(-there)) + F.softplus(torch.tensor(none))) / 2)
    assert float(losses.terms["object"]) == pytest.approx(by_hand, rel=1e-5)
    alone = replace(group, examples=group.examples[:1])
    other = parts.collator([alone], rngs([alone]))
    with torch.no_grad():
        wanted = compute_losses(parts.model(other), other, cfg, parts.model.frame)
    assert float(losses.terms["bce"]) == pytest.approx(float(wanted.terms["bce"]), rel=1e-4)
    total = sum(t.weight * losses.terms[t.name] for t in weighted_terms(cfg.loss, objects=True))
    assert float(losses.total.detach()) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.parametrize("there", [True, False])
def test_training_moves_the_score(make_parts, sam, there):
    """Up where there is a target, down where there is none; through SEG and the language model."""
    rates = ("optim.lr=3e-3", "optim.lr_fusion=3e-3", "optim.lr_decoder=3e-3")
    parts, cfg = make_parts("fusion=full", "model.precision=fp32", SCORE, *sam, *rates)
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    first, *_ = group.examples
    chosen = [first if there else denied(first)]
    batch = parts.collator([ImageGroup(group.image, group.image_id, chosen)])
    optimizer, seen = make_optimizer(parts.model, cfg.optim), []
    for step in range(8):
        output = parts.model(batch)
        seen.append(float(output.object_logits.detach()))
        optimizer.zero_grad()
        compute_losses(output, batch, cfg, parts.model.frame).total.backward()
        if there and step == 0:  # where nothing is there, no mask is trained
            assert_trained(parts.model)
        optimizer.step()
    assert seen[-1] > seen[0] + 0.1 if there else seen[-1] < seen[0] - 0.1
    assert any(name.startswith(HEAD) for name in trainable(parts.model))


def test_the_score_pulls_on_what_it_is_made_of(cell):
    """Its head, the decoder, the projection of SEG and the language model; on no mask."""
    parts, _, group = cell
    output = parts.model(parts.collator([group]))
    names, pulled = zip(*trainable(parts.model).items(), strict=True)
    found = torch.autograd.grad(output.object_logits.sum(), pulled, allow_unused=True)
    moved = {n for n, g in zip(names, found, strict=True) if g is not None and g.abs().sum() > 0}
    for part in (HEAD, "mask_head.decoder.transformer", "seg_projection", "vlm.peft"):
        assert any(name.startswith(part) for name in moved), part
    assert not any("upscale" in name or "hypernetworks" in name for name in moved)


def test_a_first_step_without_a_target_stops_no_run(make_parts, sam, tmp_path):
    """Whether each module gets a gradient is asked of the first step that trains a mask."""
    parts, cfg = make_parts("fusion=full", "model.precision=fp32", SCORE, *sam, shaken=False)
    sources = load(cfg.data, "train")
    (group, *_) = groups(e for s in sources for e in s.examples)
    first, *_ = group.examples
    trainer = Trainer(parts, ImageSampler(sources, cfg.seed, 1, 1), cfg, tmp_path)
    for example, unchecked in ((denied(first), True), (first, False)):
        group = ImageGroup(group.image, group.image_id, [example])
        trainer._train_step([parts.collator([group], rngs([group]))])
        assert trainer._unchecked == unchecked


def read(cell, protocol="teacher_forced", threshold=0.0, examples=None):
    parts, cfg, group = cell
    cfg = replace(cfg, evaluation=replace(cfg.evaluation, object_threshold=threshold))
    chosen = replace(group, examples=examples or group.examples)
    return list(evaluate(parts, [chosen], cfg, protocol))


@pytest.mark.parametrize("protocol", ["teacher_forced", "generated"])
def test_the_score_decides_under_test(cell, monkeypatch, protocol):
    """Between two scores the one mask is drawn and the other is empty; beyond them both or none."""
    parts, _, group = cell
    said = parts.conversation.tokenizer("sure , [KEY] [SEG] .", add_special_tokens=False)
    monkeypatch.setattr(parts.model.vlm, "generate", lambda *_: [said["input_ids"]] * 2)
    scores = [r["object_score"] for r in read(cell, protocol)]
    low, high = sorted(scores)
    assert low < high
    empty = encode_rle(group.examples[0].mask() * 0)
    for threshold, rejected in (
        (low - 1, [False, False]),
        ((low + high) / 2, [s == low for s in scores]),
        (high + 1, [True, True]),
    ):
        rows = read(cell, protocol, threshold)
        assert {*SAMPLE_COLUMNS, *REJECTED, *SCORED} <= rows[0].keys()
        assert [r["rejected"] for r in rows] == rejected
        assert [r["mask_rle"] == empty for r in rows] == rejected
        assert [r["object_score"] for r in rows] == scores
        found = summarise(pd.DataFrame(rows))
        assert (found["n_acc"], found["t_acc"]) == (rejected[1], not rejected[0])
        known = score(pd.DataFrame(rows), [dialects()["gsva"]])["gsva"]
        assert (known["n_acc"], known["t_acc"]) == (rejected[1], not rejected[0])


def test_an_answer_without_a_mask_has_no_score(cell, monkeypatch):
    """It draws nothing, and has not said that nothing is there."""
    parts, _, _ = cell
    said = parts.conversation.tokenizer("sure .", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(parts.model.vlm, "generate", lambda *_: [said] * 2)
    rows = read(cell, "generated", threshold=1e9)
    assert [(r["rejected"], r["object_score"], r["has_seg"]) for r in rows] == [
        (False, None, False)
    ] * 2


def test_of_several_masks_each_has_its_own_score(cell):
    """A mask up to the threshold is none of the answer's."""
    from keyseg.data.example import Target

    parts, _, group = cell
    first = group.examples[0]
    other = 1 - first.mask()
    targets = (
        Target("ball", "ball", first.mask),
        Target("rest", None, lambda: other),
    )
    several = [replace(first, targets=targets)]
    batch = parts.collator([replace(group, examples=several)])
    with torch.no_grad():
        scores = parts.model(batch).object_logits.tolist()
    low, high = sorted(scores)
    [row] = read(cell, threshold=(low + high) / 2, examples=several)
    assert (row["n_masks"], row["rejected"]) == (1, False)
    assert row["object_score"] == pytest.approx(high, abs=1e-3)
    assert len(json.loads(row["masks_rle"])) == 1
    [row] = read(cell, threshold=low - 1, examples=several)
    assert row["n_masks"] == 2
    [row] = read(cell, threshold=high + 1, examples=several)
    assert (row["n_masks"], row["rejected"]) == (0, True)


def test_without_the_option_the_head_stays_as_it_came(make_parts, sam):
    parts, cfg = make_parts("fusion=full", "model.precision=fp32", *sam)
    assert not any(name.startswith(HEAD) for name in trainable(parts.model))
    (group, *_) = groups(e for s in load(cfg.data, "train") for e in s.examples)
    batch = parts.collator([group], [np.random.default_rng(0)])
    losses = compute_losses(parts.model(batch), batch, cfg, parts.model.frame)
    assert list(losses.terms) == ["text", "bce", "dice", "keyword"]
    rows = list(evaluate(parts, [group], cfg, "teacher_forced"))
    assert not {*REJECTED, *SCORED} & rows[0].keys()


def test_at_weight_0_it_is_measured_and_not_trained(make_parts, sam):
    parts, cfg = make_parts("fusion=full", "model.precision=fp32", SCORE, *sam, "loss.object=0")
    assert not any(name.startswith(HEAD) for name in trainable(parts.model))
    assert [t.name for t in weighted_terms(cfg.loss, objects=True)][-1] == "object"


@pytest.mark.parametrize("mask", ["tiny", "sam_vit_h", "sam_hq_vit_b"])
def test_a_mask_side_without_a_score_is_refused_before_anything_runs(compose_run, mask):
    """SAM and SAM-HQ; the remedy is named."""
    cfg = compose_run(SCORE, f"mask={mask}")
    with pytest.raises(ConfigError, match=r"no_target=score: \S+ has no object score.*sam2_l"):
        buildable.check([cfg])


def test_who_says_to_have_a_score_has_one(make_parts, sam):
    parts, _ = make_parts(*sam)
    assert (parts.mask.scores_objects, parts.model.mask_head.objects is not None) == (True, True)
    tiny, _ = make_parts()
    assert (tiny.mask.scores_objects, tiny.model.mask_head.objects) == (False, None)


def test_the_option_is_another_cell_and_its_defaults_are_none(compose_run):
    plain = signature(compose_run("mask=sam2_tiny"))
    kept = ("loss.object=1", "evaluation.object_threshold=0")
    assert signature(compose_run("mask=sam2_tiny", *kept)) == plain
    others = [signature(compose_run("mask=sam2_tiny", SCORE, *more)) for more in ((), kept[:1])]
    assert len({plain, *others}) == 2
    with pytest.raises(ConfigError, match=r"loss\.terms\.object: the weight .* is loss\.object"):
        compose_run("+loss.terms.object=1")
