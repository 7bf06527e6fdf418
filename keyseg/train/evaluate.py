"""Reads a split under a protocol: a row of samples.parquet for each example.

teacher_forced: the answer is given up to the tokens. generated: the model writes the answer
itself; without [SEG] (or without the [KEY] that the fusion reads) the mask is empty. Where a query
may have several targets, every [SEG] is a mask, and a record has their union and what comes of
matching them with the targets. Where answers may reject, [REJ] leaves the mask empty; of a given
answer the model says at its first token whether it would have rejected there. Where the mask side's
object score decides, a mask up to the threshold is empty.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keyseg.config import GENERATED, RunConfig
from keyseg.data.ahead import ahead
from keyseg.data.assignment import of_each
from keyseg.data.example import VOID, Example
from keyseg.data.keywords.head_noun import head_noun
from keyseg.data.masks import encode_columns
from keyseg.data.mix import ImageGroup
from keyseg.data.prompts import Conversation, name_of
from keyseg.metrics import iou
from keyseg.model.backbones.clip_view import seen_slice
from keyseg.model.keyseg import Output
from keyseg.model.resample import Frame, drawn
from keyseg.train.batch import MISSING, Batch
from keyseg.train.build import Parts, autocast
from keyseg.train.distributed import ALONE, Processes
from keyseg.train.losses import keyword_logits
from keyseg.train.trainer import by_size

TOP_WORDS = 5

Record = dict[str, Any]


@torch.no_grad()
def evaluate(
    parts: Parts,
    groups: Sequence[ImageGroup],
    cfg: RunConfig,
    protocol: str,
    processes: Processes = ALONE,
) -> Iterator[Record]:
    """Score examples under one protocol: the records of `evaluate_batches`, one by one."""
    for _, records in evaluate_batches(parts, groups, cfg, protocol, processes):
        yield from records


@torch.no_grad()
def evaluate_batches(
    parts: Parts,
    groups: Sequence[ImageGroup],
    cfg: RunConfig,
    protocol: str,
    processes: Processes = ALONE,
    done: Container[int] = (),
    answered: Callable[[Batch], Batch] | None = None,
) -> Generator[tuple[int, list[Record]]]:
    """Score examples under one protocol, batch by batch, each with its position.

    Puts the model into eval mode for good. Images with rows of like length make a batch, the
    longest first, so that little is padded and a memory too small shows at once: see `in_order`.
    Several processes take turns at the batches, which are the same for any number of them; those at
    the positions `done` are left out. `answered` gives a batch its answers, or changes what else is
    read of it (an intervention); None = as the protocol says.
    """
    model = parts.model.eval()
    device = next(model.parameters()).device
    by_length = sorted(groups, key=_length, reverse=True)
    per_batch = cfg.evaluation.images_per_batch
    left = [start for start in range(0, len(groups), per_batch) if start not in done]
    starts = left[processes.rank :: processes.count]
    batches = (by_length[i : i + per_batch] for i in starts)
    with closing(ahead(parts.collator, batches)) as collated:
        for start, batch in zip(starts, collated, strict=True):
            batch = batch.to(device)
            with autocast(cfg, device):
                batch = answered(batch) if answered else as_asked(parts, batch, cfg, protocol)
                output = model(batch)
            keyword = cfg.loss.keyword
            scores = keyword_logits(
                output.key_query, output.table, keyword.similarity, keyword.temperature
            )
            asked_how = protocol, cfg.evaluation.object_threshold
            yield start, _records(parts, batch, output, scores, asked_how)


def as_asked(parts: Parts, batch: Batch, cfg: RunConfig, protocol: str) -> Batch:
    """The batch with its answers under a protocol: as given, or as the model writes them."""
    if protocol != GENERATED:
        return batch
    answers = _generate(parts, batch, cfg)
    return parts.collator.with_answers(batch, answers).to(batch.labels.device)


def _length(group: ImageGroup) -> int:
    """About how long a row is, beyond what all rows share: characters of its queries."""
    return sum(len(e.query) + len(e.text or "") for e in group.examples)


def in_order(records: Iterable[Record], groups: Sequence[ImageGroup]) -> list[Record]:
    """Records in the order of the examples."""
    by_id = {r["id"]: r for r in records}
    return [by_id[e.id] for g in groups for e in g.examples]


def _generate(parts: Parts, batch: Batch, cfg: RunConfig) -> list[list[int]]:
    talk = parts.conversation
    tokenizer = talk.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return parts.model.vlm.generate(
        [talk.prefix(size) for size in batch.sizes],
        [talk.question(e) for e in batch.examples],
        batch.features.language,
        torch.tensor(batch.example_rows, device=batch.image_of.device),
        cfg.evaluation.max_new_tokens,
        pad,
        tokenizer.eos_token_id,
    )


def keyword_ranks(scores: Tensor, wanted: Tensor) -> Tensor:
    """How many other words stand before the wanted one: scores (N, V), ids (N,) -> (N,).

    A word with the same score stands before it, and so does every word where scores are no numbers:
    a model that says nothing is not right.
    """
    own = scores.gather(1, wanted[:, None])
    return (~(scores < own)).sum(dim=1) - 1


def _records(
    parts: Parts, batch: Batch, output: Output, scores: Tensor, asked_how: tuple[str, float]
) -> list[Record]:
    """Rows of samples.parquet; `scores` (N, K, V) of the keyword, K = 0 where it is not asked.

    Where an answer has several masks, a row has KEY's words of the first, and the keyword's rank at
    the KEY that ranks it worst. asked_how: the protocol, and the object score up to which there is
    no target.
    """
    protocol, threshold = asked_how
    asked = bool(scores.shape[1])
    words = scores.softmax(-1).mean(dim=1) if asked else scores.new_zeros(len(scores), TOP_WORDS)
    top = words.topk(TOP_WORDS)
    first = [ids[0] if ids and asked else 0 for ids in batch.keyword_ids]
    ranks = keyword_ranks(words, torch.tensor(first, device=words.device)).tolist()
    top_ids, top_shares = top.indices.tolist(), top.values.tolist()
    has_key = (batch.key_at != MISSING).all(dim=1) & asked
    has_seg = batch.seg_at != MISSING
    answers = answers_of(batch)
    of_example = _places(batch)
    if parts.conversation.scored:
        refused = _below(output, threshold) & has_seg
    else:
        said_so = _rejected(parts, batch, output, answers if protocol == GENERATED else None)
        refused = torch.tensor([said_so[o] for o in batch.owners], device=has_seg.device)
    given = (has_seg & has_key if parts.model.needs_key else has_seg) & ~refused
    refusals = refused.tolist()
    masks = _masks(batch, output.mask_logits, given, parts.model.frame)
    whole = _targets(batch)
    pixels = _pixels(batch, masks, whole)
    expected = output.predicted_iou.tolist()
    keys, segs = has_key.tolist(), has_seg.tolist()
    talk = parts.conversation
    name = cache(lambda token: talk.text([token]))
    names_target = protocol == GENERATED and talk.names_target
    rows = []
    for e, example in enumerate(batch.examples):
        mine = of_example[e]
        n = mine[0]
        height, width = batch.sizes[batch.rows[n]]
        shared = example.targets is None or example.keyword
        wanted = batch.keyword_ids[n] if shared else []
        named = [[name(i), round(p, 4)] for i, p in zip(top_ids[n], top_shares[n], strict=True)]
        rank = -1  # no keyword is known, or none is asked for
        if wanted and asked:  # an answer without KEY names nothing: behind every word
            known = [k for k in mine if batch.keyword_ids[k]]
            rank = max(ranks[k] if keys[k] else words.shape[1] for k in known)
        rows.append(
            {
                **example.columns(protocol),
                "slice_seen_by_clip": seen_slice(whole[e] == 1, parts.view),
                "intersection": pixels[e]["intersection"],
                "union": pixels[e]["union"],
                "iou": float(iou(pixels[e]["intersection"], pixels[e]["union"])),
                "predicted_iou": round(sum(expected[k] for k in mine) / len(mine), 4),
                "keyword_rank": rank,
                "keyword_token": talk.text(wanted[:1]),
                "predicted_keyword": named[0][0] if keys[n] else "",
                "top_words": json.dumps(named if keys[n] else []),
                "answer": talk.text(answers[e]),
                **_nouns(_one_name(example), talk.said(answers[e]) if names_target else None),
                "has_seg": segs[n],
                "has_key": all(keys[k] for k in mine),
                "key_asked": asked,
                "height": height,
                "width": width,
                "target_rle": pixels[e]["target_rle"],
                "mask_rle": pixels[e]["mask_rle"],
                "ignore_rle": pixels[e]["ignore_rle"],
            }
        )
        if talk.rej_id is not None or talk.scored:
            rows[-1]["rejected"] = all(refusals[k] for k in mine)
        if talk.scored:
            rows[-1]["object_score"] = _highest(output, [k for k in mine if segs[k]])
        if example.targets is not None:
            said = [k for k in mine if segs[k] and not refusals[k]]
            drawn_each = [masks[k].T.cpu().numpy() for k in said]
            assignment = of_each(drawn_each, [m.cpu().numpy() for m in _own_targets(batch, e)])
            heard = {k: top_ids[k][0] if keys[k] else None for k in said}
            rows[-1] |= assignment | _keywords(
                talk, example, assignment, [heard[k] for k in said], asked
            )
    return rows


def _rejected(
    parts: Parts, batch: Batch, output: Output, answers: Sequence[list[int]] | None
) -> list[bool]:
    """Whether each example is rejected.

    A generated answer (`answers`) rejects if it holds REJ. A given one if the model takes REJ for
    likelier than the first of the tokens that stand there; where names come before them, it has
    been told that there is a target.
    """
    talk = parts.conversation
    rej = talk.rej_id
    if rej is None:
        return [False] * len(batch.examples)
    if answers is not None:
        return [rej in answer for answer in answers]
    places = torch.cat([batch.seg_at[:, None], batch.key_at], dim=1)
    first = places.masked_fill(places == MISSING, places.max() + 1).min(dim=1).values
    width = batch.packed.input_ids.shape[1]
    before = batch.image_of * width + first - 1
    at = torch.searchsorted(batch.supervised, before).clamp(max=len(batch.supervised) - 1)
    logits = output.text_logits[at]
    given = batch.packed.input_ids.flatten()[before + 1]
    more = (logits[:, rej] > logits.gather(1, given[:, None])[:, 0]).tolist()
    return [
        more[mine[0]] and not example.targets
        for example, mine in zip(batch.examples, _places(batch), strict=True)
    ]


def _below(output: Output, threshold: float) -> Tensor:
    """(N,) whether the object score of a mask says that nothing is there."""
    assert output.object_logits is not None, "the mask side has no object score"
    return output.object_logits <= threshold


def _highest(output: Output, masks: Sequence[int]) -> float | None:
    """Object score of the likeliest of these masks; None of none."""
    assert output.object_logits is not None
    return round(float(output.object_logits[masks].max()), 4) if masks else None


def _places(batch: Batch) -> list[list[int]]:
    """The masks of each example."""
    places: list[list[int]] = [[] for _ in batch.examples]
    for n, owner in enumerate(batch.owners):
        places[owner].append(n)
    return places


def _own_targets(batch: Batch, e: int) -> list[Tensor]:
    """Of an example that may have several, (H, W) uint8 each; none where it has none."""
    if not batch.examples[e].targets:
        return []
    return [m for m, o in zip(batch.masks, batch.target_owners, strict=True) if o == e]


def _targets(batch: Batch) -> list[Tensor]:
    """The target of each example, (H, W) uint8: of several, their union."""
    united: list[Tensor | None] = [None] * len(batch.examples)
    for owner, mask in zip(batch.target_owners, batch.masks, strict=True):
        there = united[owner]
        united[owner] = mask if there is None else _united(there, mask)
    return [mask for mask in united if mask is not None]


def _united(first: Tensor, second: Tensor) -> Tensor:
    """Of two targets: 1 where one of them is, else void where one of them is."""
    either = (first == 1) | (second == 1)
    return torch.maximum(first, second).masked_fill(either, 1)


def _keywords(
    talk: Conversation,
    example: Example,
    assignment: dict[str, Any],
    heard: Sequence[int | None],
    asked: bool,
) -> dict[str, int]:
    """Of how many targets a keyword is known, and for how many the KEY of their mask names it.

    heard: the first word at KEY of each mask; None where it has no KEY.
    """
    wanted = [talk.keyword_ids(t.keyword)[:1] if asked else [] for t in example.targets or ()]
    pairs = zip(json.loads(assignment["matches"]), heard, strict=True)
    right = sum(t >= 0 and word is not None and wanted[t] == [word] for t, word in pairs)
    return {"keywords_known": sum(map(len, wanted)), "keywords_right": right}


def _one_name(example: Example) -> str | None:
    """What the target is called; None where there may be several."""
    return name_of(example) if example.targets is None else None


_noun = lru_cache(maxsize=2**16)(head_noun)


def _nouns(name: str | None, said: str | None) -> dict[str, str | None]:
    """What the target is called and what the model calls it; None for what is not to be compared.

    A picture of somebody's own has no target: its answer is not looked at.
    """
    target = _noun(name) if name else None
    named = target is not None and said is not None
    return {"answer_noun": (_noun(said or "") or "") if named else None, "target_noun": target}


def _masks(batch: Batch, logits: Tensor, given: Tensor, frame: Frame) -> list[Tensor]:
    """Each mask at its image's own size, bool (W, H); empty if not `given`."""
    masks: dict[int, Tensor] = {}
    for picked, size in by_size(batch):
        at_size = drawn(logits[picked], frame, size) & given[picked, None, None]
        masks |= dict(zip(picked, at_size, strict=True))
    return [masks[n] for n in range(len(masks))]


def _pixels(
    batch: Batch, masks: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[dict[str, Any]]:
    """Of each example: pixels counted, run lengths; of several masks, their union.

    Args:
        masks: bool (W, H), N. targets: uint8 (H, W), one an example.
    """
    unions = [
        masks[mine[0]] if len(mine) == 1 else torch.stack([masks[n] for n in mine]).any(dim=0)
        for mine in _places(batch)
    ]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for e, target in enumerate(targets):
        by_shape.setdefault(tuple(target.shape), []).append(e)
    rows: list[dict[str, Any]] = [{}] * len(unions)
    for picked in by_shape.values():
        together = torch.stack([targets[e] for e in picked]).transpose(1, 2)
        counted = compare(torch.stack([unions[e] for e in picked]), together)
        for e, row in zip(picked, counted, strict=True):
            rows[e] = row
    return rows


def compare(masks: Tensor, targets: Tensor) -> list[dict[str, Any]]:
    """Counts and run lengths of masks of one size: all at once on a GPU, on a CPU one by one,
    so that a mask stays in its cache.

    Args:
        masks: predictions, bool (N, W, H): columns are rows, as run lengths want them.
        targets: uint8 (N, W, H): 0, 1, 255 = pixels that do not count.
    """
    several = 1 if masks.device.type == "cpu" else max(1, len(masks))
    pairs = zip(torch.split(masks, several), torch.split(targets, several), strict=True)
    return [row for pair in pairs for row in _compare(*pair)]


def _compare(masks: Tensor, targets: Tensor) -> list[dict[str, Any]]:
    targets = targets.contiguous()  # a transposed view would make all below slow
    foreground, ignored = targets == 1, targets == VOID
    if bool(((targets > 1) != ignored).any()):
        raise ValueError(f"target has values other than 0, 1, {VOID}")
    intersection = _count(masks & foreground)
    union = _count((masks | foreground) & ~ignored)
    voids = encode_rles(ignored) if any(of_void := _count(ignored)) else [""] * len(masks)
    rows = zip(intersection, union, encode_rles(masks), encode_rles(foreground), strict=True)
    return [
        {
            "intersection": i,
            "union": u,
            "mask_rle": mask,
            "target_rle": target,
            "ignore_rle": voids[n] if of_void[n] else "",
        }
        for n, (i, u, mask, target) in enumerate(rows)
    ]


def _count(masks: Tensor) -> list[int]:
    """True pixels of each mask. numpy counts bools much faster than torch does on a CPU."""
    if masks.device.type == "cpu":
        return [int(np.count_nonzero(mask)) for mask in masks.numpy()]
    counts: list[int] = masks.flatten(1).sum(1).tolist()
    return counts


def encode_rles(columns: Tensor) -> list[str]:
    """COCO run lengths of bool masks (N, W, H); the empty string for the empty mask."""
    return encode_columns(columns.to("cpu", torch.uint8).contiguous().numpy())


def answers_of(batch: Batch) -> list[list[int]]:
    """Tokens of each expression's answer, read off the labels."""
    labels, segments = batch.labels.tolist(), batch.packed.segments.tolist()
    numbers = Counter[int]()
    answers = []
    for row in batch.example_rows:
        numbers[row] += 1
        answers.append(
            [
                t
                for t, s in zip(labels[row], segments[row], strict=True)
                if s == numbers[row] and t >= 0
            ]
        )
    return answers
