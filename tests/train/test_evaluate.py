"""Records of an evaluation: what a protocol scores, and how it is written down."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from keyseg.data.example import Example
from keyseg.data.masks import decode_rle, encode_rle
from keyseg.data.mix import ImageGroup, groups, load
from keyseg.metrics import intersection_union, summarise
from keyseg.runs.samples import SAMPLE_COLUMNS
from keyseg.train.distributed import Processes
from keyseg.train.evaluate import (
    TOP_WORDS,
    compare,
    encode_rles,
    evaluate,
    in_order,
    keyword_ranks,
)

HEIGHT, WIDTH = 60, 100


@pytest.fixture(scope="module")
def cell(make_parts):
    parts, cfg = make_parts("fusion=full", "evaluation.images_per_batch=2")
    images = groups(e for s in load(cfg.data, "test") for e in s.examples)
    return parts, cfg, images


@pytest.fixture(scope="module")
def records(cell):
    parts, cfg, images = cell
    protocols = ("teacher_forced", "generated")
    return {p: in_order(evaluate(parts, images, cfg, p), images) for p in protocols}


def decode(counts, record):
    return decode_rle(counts, record["height"], record["width"]) == 1


def test_rows_of_like_length_make_a_batch_the_longest_first(cell):
    parts, cfg, images = cell
    seen = []
    real = parts.collator.__call__

    class Watch(type(parts.collator)):
        def __call__(self, groups, rng=None):
            batch = real(groups, rng)
            seen.append(batch.packed.input_ids.shape[1])
            return batch

    watched = replace(parts, collator=Watch(parts.collator.conversation, parts.collator.features))
    list(evaluate(watched, images, cfg, "teacher_forced"))
    assert len(seen) == -(-len(images) // 2)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[-1]


def test_many_masks_at_once_equal_one_by_one():
    rng = np.random.default_rng(0)
    hard = rng.random((7, 30, 40)) < 0.4
    target = rng.choice([0, 1, 255], (7, 30, 40), p=[0.6, 0.35, 0.05]).astype(np.uint8)
    target[3] = 0
    target[4][target[4] == 255] = 0
    hard[5] = False
    rows = compare(*(torch.from_numpy(m).transpose(1, 2) for m in (hard, target)))
    for n, row in enumerate(rows):
        intersection, union = intersection_union(hard[n], target[n])
        assert (row["intersection"], row["union"]) == (intersection, union)
        for name, mask in (("mask", hard[n]), ("target", target[n] == 1)):
            assert row[f"{name}_rle"] == encode_rle(mask)
            assert np.array_equal(decode_rle(row[f"{name}_rle"], 30, 40), mask)
        ignored = target[n] == 255
        assert row["ignore_rle"] == (encode_rle(ignored) if ignored.any() else "")
    assert encode_rles(torch.zeros(0, 4, 3, dtype=torch.bool)) == []
    with pytest.raises(ValueError, match="values other than 0, 1, 255"):
        compare(torch.from_numpy(hard), torch.from_numpy(target + target))


@pytest.mark.parametrize("protocol", ["teacher_forced", "generated"])
def test_a_record_for_every_example_in_order(cell, records, protocol):
    _, _, images = cell
    rows = records[protocol]
    assert [r["id"] for r in rows] == [e.id for g in images for e in g.examples]
    slices = [{f"slice_{name}" for name in e.slices} for g in images for e in g.examples]
    every = {f"slice_{name}" for name in ("style", "split", "dataset", "size", "length")}
    assert set.intersection(*slices) == every
    assert set.union(*slices) == {*every, "slice_distractors"}
    for row, own in zip(rows, slices, strict=True):
        assert row.keys() == {*SAMPLE_COLUMNS, *own, "slice_seen_by_clip"}
        assert row["protocol"] == protocol
    frame = pd.DataFrame(rows)
    kinds = {"intersection": "i", "union": "i", "iou": "f", "keyword_rank": "i", "height": "i"}
    assert {name: frame[name].dtype.kind for name in kinds} == kinds
    assert frame["has_seg"].dtype == frame["has_key"].dtype == bool


def test_teacher_forced_numbers_are_those_of_the_masks(cell, records):
    _, _, images = cell
    examples = {e.id: e for g in images for e in g.examples}
    drawn = 0
    for row in records["teacher_forced"]:
        target, mask = decode(row["target_rle"], row), decode(row["mask_rle"], row)
        assert np.array_equal(target, examples[row["id"]].mask() == 1)
        assert row["intersection"] == (target & mask).sum()
        assert row["union"] == (target | mask).sum()
        assert row["iou"] == pytest.approx((target & mask).sum() / (target | mask).sum())
        assert row["ignore_rle"] == ""
        assert (row["has_seg"], row["has_key"]) == (True, True)
        drawn += mask.any()
    assert drawn


def test_keyword_columns(cell, records):
    parts, _, _ = cell
    words = len(parts.conversation.tokenizer)
    for row in records["teacher_forced"]:
        top = json.loads(row["top_words"])
        assert len(top) == TOP_WORDS
        shares = [share for _, share in top]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1.001
        assert row["predicted_keyword"] == top[0][0]
        first = row["keyword"].split()[0]
        assert row["keyword_token"] == first
        names = [word for word, _ in top]
        assert (row["keyword_rank"] == 0) == (names[0] == first)
        if first in names:
            assert row["keyword_rank"] == names.index(first)
        assert 0 <= row["keyword_rank"] < words


def test_a_model_that_says_nothing_is_not_right():
    """Nor one whose scores are no numbers; both would have had every keyword right."""
    told = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0], [torch.nan] * 3])
    assert keyword_ranks(told, torch.tensor([1, 0, 2, 0])).tolist() == [0, 1, 2, 2]
    assert keyword_ranks(told[:2], torch.tensor([0, 2])).tolist() == [2, 2]


def test_teacher_forced_answers_are_the_written_ones(records):
    for row in records["teacher_forced"]:
        text = row["text"] or f"the {row['keyword']}"
        assert row["answer"] == f"sure , [KEY] [SEG] . {text} ."


def test_an_untrained_model_writes_no_seg_and_so_draws_nothing(records):
    for row in records["generated"]:
        if not (row["has_seg"] and row["has_key"]):
            assert not decode(row["mask_rle"], row).any()
            assert (row["intersection"], row["iou"]) == (0, 0.0)
            assert row["union"] == decode(row["target_rle"], row).sum()
    missing = [row for row in records["generated"] if not row["has_seg"]]
    assert missing
    assert summarise(pd.DataFrame(records["generated"]))["no_seg_rate"] == pytest.approx(
        len(missing) / len(records["generated"])
    )


def test_batch_size_does_not_matter(cell, records):
    parts, cfg, images = cell
    cfg.evaluation.images_per_batch = 1
    try:
        alone = in_order(evaluate(parts, images[:3], cfg, "generated"), images[:3])
    finally:
        cfg.evaluation.images_per_batch = 2
    for one, other in zip(alone, records["generated"], strict=False):
        assert one["answer"] == other["answer"]
        assert one["mask_rle"] == other["mask_rle"]


@pytest.fixture
def wide(tmp_path):
    """A picture that is no square, one expression with ignored pixels and one without keyword."""
    path = tmp_path / "wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 50:90] = 1
    mask[:, :30] = 255
    plain = np.where(mask == 255, 0, mask).astype(np.uint8)
    return ImageGroup(
        path,
        "wide",
        [
            Example("a", path, "wide", "red ball", False, "ball", "the red ball", {}, lambda: mask),
            Example("b", path, "wide", "blue cup", False, None, None, {}, lambda: plain),
        ],
    )


def test_masks_have_the_images_own_size(cell, wide):
    parts, cfg, _ = cell
    ignoring, plain = evaluate(parts, [wide], cfg, "teacher_forced")
    for row in (ignoring, plain):
        assert (row["height"], row["width"]) == (HEIGHT, WIDTH)
        assert decode(row["mask_rle"], row).shape == (HEIGHT, WIDTH)
    target, mask = decode(ignoring["target_rle"], ignoring), decode(ignoring["mask_rle"], ignoring)
    ignored = decode(ignoring["ignore_rle"], ignoring)
    assert np.array_equal(ignored, wide.examples[0].mask() == 255)
    assert target.sum() == 30 * 40
    assert ignoring["intersection"] == (target & mask & ~ignored).sum()
    assert ignoring["union"] == ((target | mask) & ~ignored).sum()
    assert plain["ignore_rle"] == ""


def test_no_keyword_is_rank_minus_one(cell, wide):
    parts, cfg, _ = cell
    known, unknown = evaluate(parts, [wide], cfg, "teacher_forced")
    assert known["keyword_rank"] >= 0
    assert unknown["keyword_rank"] == -1
    assert unknown["predicted_keyword"]


@pytest.fixture
def answering(make_parts, monkeypatch):
    """A cell whose language model writes the given answers."""

    def make(name, order, *answers):
        parts, cfg = make_parts(f"fusion={name}", f"model.tokens.order={order}")
        tokenizer = parts.conversation.tokenizer
        ids = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
        monkeypatch.setattr(parts.model.vlm, "generate", lambda *_: ids)
        return parts, cfg

    return make


@pytest.mark.parametrize(
    ("name", "answer", "has_seg", "has_key", "draws"),
    [
        ("full", "sure , [KEY] [SEG] . the cup .", True, True, True),
        ("full", "[SEG]", True, False, False),  # the fusion cannot do without KEY
        ("full", "[KEY]", False, True, False),
        ("full", "sure .", False, False, False),
        ("seg_only", "[SEG]", True, False, True),
        ("cross", "[KEY]", False, True, False),  # no [SEG] is an empty mask, whatever is read
    ],
)
def test_generated_answers_are_scored_as_written(
    answering, wide, name, answer, has_seg, has_key, draws
):
    parts, cfg = answering(name, "key_first", answer, "[KEY] [SEG]")
    made, other = evaluate(parts, [wide], cfg, "generated")
    assert (made["has_seg"], made["has_key"]) == (has_seg, has_key)
    assert made["answer"] == answer
    empty = not decode(made["mask_rle"], made).any()
    assert empty == (not draws)
    words = len(parts.conversation.tokenizer)
    if not has_key:
        assert (made["predicted_keyword"], made["top_words"]) == ("", "[]")
        assert made["keyword_rank"] == words  # behind every word
    else:
        assert made["keyword_rank"] < words
    assert (other["has_seg"], other["has_key"]) == (True, True)


def test_a_generated_answer_like_the_written_one_scores_the_same(answering, wide):
    parts, cfg = answering(
        "full", "key_first", "sure , [KEY] [SEG] . the red ball . </s>", "sure , [KEY] [SEG] ."
    )
    generated = list(evaluate(parts, [wide], cfg, "generated"))
    forced = list(evaluate(parts, [wide], cfg, "teacher_forced"))
    same = ("intersection", "union", "iou", "keyword_rank", "mask_rle", "predicted_keyword")
    for one, other in zip(generated, forced, strict=True):
        assert {k: one[k] for k in same} == {k: other[k] for k in same}


@pytest.mark.parametrize(
    ("name", "wrote", "noun"),
    [
        ("full", "sure , [KEY] [SEG] . the big red cup .", "cup"),
        ("full", "a ball ? [KEY] [SEG] .", ""),
        ("no_key", "sure , [SEG] . the ball .", "ball"),
    ],
)
def test_what_the_model_calls_the_target_is_read_after_the_tokens(
    answering, wide, name, wrote, noun
):
    parts, cfg = answering(name, "key_first", wrote, "sure .")
    made, _ = evaluate(parts, [wide], cfg, "generated")
    assert (made["answer_noun"], made["target_noun"]) == (noun, "ball")
    given, _ = evaluate(parts, [wide], cfg, "teacher_forced")
    assert (given["answer_noun"], given["target_noun"]) == (None, "ball")


def test_without_key_nothing_of_key_and_keyword_is_scored(answering, wide, make_parts):
    parts, cfg = answering("no_key", "key_first", "sure , [SEG] . the cup .", "sure .")
    made, other = evaluate(parts, [wide], cfg, "generated")
    assert (made["has_seg"], other["has_seg"]) == (True, False)
    for row in (made, other):
        assert (row["has_key"], row["key_asked"]) == (False, False)
        assert (row["keyword_rank"], row["predicted_keyword"]) == (-1, "")
        assert row["top_words"] == "[]"
    assert decode(made["mask_rle"], made).any()
    summary = summarise(pd.DataFrame([made, other]))
    assert summary["no_seg_rate"] == 0.5
    assert not [name for name in summary if "key" in name]
    asked = summarise(pd.DataFrame([{**r, "has_key": True, "key_asked": True} for r in (made,)]))
    assert {"keyword_accuracy", "no_key_rate"} <= asked.keys()


@pytest.mark.parametrize("protocol", ["teacher_forced", "generated"])
def test_no_batch_changes_a_mask_of_the_control_with_anothers_key(make_parts, protocol):
    """Alone or in company, in any order and process: the same KEY of the same other expression."""
    parts, cfg = make_parts("fusion=shuffled_key", "model.precision=fp32")
    images = groups(e for s in load(cfg.data, "test") for e in s.examples)
    found = {}
    for name, per_batch, order, rank in (
        ("together", len(images), images, (0, 1)),
        ("alone", 1, images, (0, 1)),
        ("reversed", 2, images[::-1], (0, 1)),
        ("first of two processes", 2, images, (0, 2)),
    ):
        cfg.evaluation.images_per_batch = per_batch
        records = evaluate(parts, order, cfg, protocol, Processes(*rank))
        found[name] = {r["id"]: (r["mask_rle"], r["has_seg"]) for r in records}
    together = found.pop("together")
    assert any(mask for mask, _ in together.values()) or protocol == "generated"
    for records in found.values():
        assert records.items() <= together.items()
    single = {
        e.id: next(evaluate(parts, [ImageGroup(g.image, g.image_id, [e])], cfg, protocol))
        for g in images[:2]
        for e in g.examples
    }
    assert all(r["mask_rle"] == together[name][0] for name, r in single.items())


def test_no_micro_batch_changes_the_key_that_the_control_is_given_in_training(make_parts):
    """A step's images at once, or one by one as accumulation and processes cut them."""
    parts, cfg = make_parts("fusion=shuffled_key", "model.precision=fp32")
    model, images = parts.model, groups(e for s in load(cfg.data, "train") for e in s.examples)[:4]
    seen = []
    model.key_projection.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    def given(*cut):
        seen.clear()
        with torch.no_grad():
            for part in cut:
                rngs = [np.random.default_rng([0, images.index(g)]) for g in part]
                model(parts.collator(part, rngs))
        return torch.cat(seen)

    together, apart = given(images), given(*([g] for g in images))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert (together[1:] - together[:-1]).abs().amax(dim=(1, 2)).min() > 0.01
