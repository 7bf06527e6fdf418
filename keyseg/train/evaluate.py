"""Evaluation protocols: one record per example.

teacher_forced: the answer is given up to the tokens. generated: the model writes the answer
itself; without [SEG] (or without the [KEY] that the fusion reads) the mask is empty.
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
from keyseg.data.example import VOID
from keyseg.data.keywords.head_noun import head_noun
from keyseg.data.masks import encode_columns
from keyseg.data.mix import ImageGroup
from keyseg.data.prompts import name_of
from keyseg.metrics import iou
from keyseg.model.backbones.clip_view import seen_slice
from keyseg.model.keyseg import Output
from keyseg.model.resample import drawn
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
            yield start, _records(parts, batch, output, scores, (protocol, cfg.model.clip_view))


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
        talk.prefix,
        [talk.question(e) for e in batch.examples],
        batch.features.clip,
        batch.image_of,
        cfg.evaluation.max_new_tokens,
        pad,
        tokenizer.eos_token_id,
    )


def _records(
    parts: Parts, batch: Batch, output: Output, scores: Tensor, asked_how: tuple[str, str]
) -> list[Record]:
    """Rows of samples.parquet; `scores` (N, K, V) of the keyword, K = 0 where it is not asked.

    asked_how: the protocol, and how CLIP gets images.
    """
    protocol, view = asked_how
    asked = bool(scores.shape[1])
    words = scores.softmax(-1).mean(dim=1) if asked else scores.new_zeros(len(scores), TOP_WORDS)
    top = words.topk(TOP_WORDS)
    first = [ids[0] if ids and asked else 0 for ids in batch.keyword_ids]
    of_first = words.gather(1, torch.tensor(first, device=words.device)[:, None])
    ranks = (words > of_first).sum(dim=1).tolist()
    top_ids, top_shares = top.indices.tolist(), top.values.tolist()
    has_key = (batch.key_at != MISSING).all(dim=1) & asked
    has_seg = batch.seg_at != MISSING
    given = has_seg & has_key if parts.model.needs_key else has_seg
    pixels = _pixels(batch, output.mask_logits, given, parts.model.side)
    expected = output.predicted_iou.tolist()
    keys, segs = has_key.tolist(), has_seg.tolist()
    answers = answers_of(batch)
    talk = parts.conversation
    name = cache(lambda token: talk.text([token]))
    names_target = protocol == GENERATED and talk.names_target
    rows = []
    for n, example in enumerate(batch.examples):
        height, width = batch.sizes[batch.rows[n]]
        wanted = batch.keyword_ids[n]
        named = [[name(i), round(p, 4)] for i, p in zip(top_ids[n], top_shares[n], strict=True)]
        rank = -1  # no keyword is known, or none is asked for
        if wanted and asked:  # an answer without KEY names nothing: behind every word
            rank = ranks[n] if keys[n] else words.shape[1]
        rows.append(
            {
                **example.columns(protocol),
                "slice_seen_by_clip": seen_slice(batch.masks[n] == 1, view),
                "intersection": pixels[n]["intersection"],
                "union": pixels[n]["union"],
                "iou": float(iou(pixels[n]["intersection"], pixels[n]["union"])),
                "predicted_iou": round(expected[n], 4),
                "keyword_rank": rank,
                "keyword_token": talk.text(wanted[:1]),
                "predicted_keyword": named[0][0] if keys[n] else "",
                "top_words": json.dumps(named if keys[n] else []),
                "answer": talk.text(answers[n]),
                **_nouns(name_of(example), talk.said(answers[n]) if names_target else None),
                "has_seg": segs[n],
                "has_key": keys[n],
                "key_asked": asked,
                "height": height,
                "width": width,
                "target_rle": pixels[n]["target_rle"],
                "mask_rle": pixels[n]["mask_rle"],
                "ignore_rle": pixels[n]["ignore_rle"],
            }
        )
    return rows


_noun = lru_cache(maxsize=2**16)(head_noun)


def _nouns(name: str | None, said: str | None) -> dict[str, str | None]:
    """What the target is called and what the model calls it; None for what is not to be compared.

    A picture of somebody's own has no target: its answer is not looked at.
    """
    target = _noun(name) if name else None
    named = target is not None and said is not None
    return {"answer_noun": (_noun(said or "") or "") if named else None, "target_noun": target}


def _pixels(batch: Batch, logits: Tensor, given: Tensor, side: int) -> list[dict[str, Any]]:
    """Of each mask at its image's own size: pixels counted, run lengths; empty if not `given`."""
    rows: list[dict[str, Any]] = [{}] * len(batch.examples)
    for picked, size in by_size(batch):
        masks = drawn(logits[picked], side, size) & given[picked, None, None]
        targets = torch.stack([batch.masks[n] for n in picked]).transpose(1, 2)
        for n, row in zip(picked, compare(masks, targets), strict=True):
            rows[n] = row
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
    for row in batch.rows:
        numbers[row] += 1
        answers.append(
            [
                t
                for t, s in zip(labels[row], segments[row], strict=True)
                if s == numbers[row] and t >= 0
            ]
        )
    return answers
