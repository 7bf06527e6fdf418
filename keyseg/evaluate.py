"""Evaluation protocols: one record per example.

teacher_forced: the answer is given up to the tokens. generated: the model writes the answer
itself; without [SEG] (or without the [KEY] that the fusion reads) the mask is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from keyseg.build import Parts, autocast
from keyseg.config import RunConfig
from keyseg.data.batch import MISSING, Batch
from keyseg.data.masks import encode_rle
from keyseg.data.mix import ImageGroup
from keyseg.losses import VOID, keyword_logits
from keyseg.metrics import intersection_union, iou
from keyseg.model.sam import to_original
from keyseg.train import by_size

TOP_WORDS = 5

Record = dict[str, Any]


@torch.no_grad()
def evaluate(
    parts: Parts, groups: Sequence[ImageGroup], cfg: RunConfig, protocol: str
) -> Iterator[Record]:
    """Score examples under one protocol; puts the model into eval mode for good."""
    model = parts.model.eval()
    device = next(model.parameters()).device
    per_batch = cfg.evaluation.images_per_batch
    for start in range(0, len(groups), per_batch):
        batch = parts.collator(groups[start : start + per_batch]).to(device)
        with autocast(cfg, device):
            if protocol == "generated":
                answers = _generate(parts, batch, cfg)
                batch = parts.collator.with_answers(batch, answers).to(device)
            output = model(batch)
        keyword = cfg.loss.keyword
        scores = keyword_logits(
            output.key_query, output.table, keyword.similarity, keyword.temperature
        )
        words = scores.softmax(-1).mean(dim=1)
        masks = _masks(parts, batch, output.mask_logits)
        for n in range(len(batch.examples)):
            expected = float(output.predicted_iou[n])
            yield _record(parts, batch, n, masks[n], words[n], expected, protocol)


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


def _masks(parts: Parts, batch: Batch, logits: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """Bool masks (H, W) at the images' own sizes; empty where a token is missing."""
    drawn = batch.seg_at != MISSING
    if parts.model.fusion.uses_key:
        drawn &= (batch.key_at != MISSING).all(dim=1)
    masks: list[np.ndarray[Any, Any]] = [np.empty(0)] * len(batch.examples)
    for picked, size in by_size(batch):
        hard = to_original(logits[picked].float(), parts.model.side, size) > 0
        hard &= drawn[picked, None, None]
        for n, mask in zip(picked, hard.cpu().numpy(), strict=True):
            masks[n] = mask
    return masks


def _record(
    parts: Parts,
    batch: Batch,
    n: int,
    mask: np.ndarray[Any, Any],
    words: torch.Tensor,
    predicted_iou: float,
    protocol: str,
) -> Record:
    """One row of samples.parquet."""
    example, target = batch.examples[n], batch.masks[n].cpu().numpy()
    intersection, union = intersection_union(mask, target)
    talk = parts.conversation
    has_key = bool((batch.key_at[n] != MISSING).all())
    top = words.topk(TOP_WORDS)
    named = [
        [talk.text([i]), round(p, 4)]
        for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    wanted = batch.keyword_ids[n]
    rank = -1  # no keyword is known
    if wanted:  # an answer without KEY names nothing: behind every word
        rank = int((words > words[wanted[0]]).sum()) if has_key else len(words)
    height, width = target.shape
    ignored = target == VOID
    row = batch.rows[n]
    return {
        "id": example.id,
        "image_id": example.image_id,
        "image": str(example.image),
        "query": example.query,
        "keyword": example.keyword,
        "text": example.text,
        "protocol": protocol,
        **{f"slice_{name}": value for name, value in example.slices.items()},
        "intersection": int(intersection),
        "union": int(union),
        "iou": float(iou(intersection, union)),
        "predicted_iou": round(predicted_iou, 4),
        "keyword_rank": rank,
        "keyword_token": talk.text(wanted[:1]),
        "predicted_keyword": named[0][0] if has_key else "",
        "top_words": json.dumps(named if has_key else []),
        "answer": talk.text(_answer(batch, row, n)),
        "has_seg": bool(batch.seg_at[n] != MISSING),
        "has_key": has_key,
        "height": height,
        "width": width,
        "target_rle": encode_rle(target == 1),
        "mask_rle": encode_rle(mask),
        "ignore_rle": encode_rle(ignored) if ignored.any() else "",
    }


def _answer(batch: Batch, row: int, n: int) -> list[int]:
    """Tokens of an expression's answer, read off its labels."""
    number = 1 + batch.rows[:n].count(row)
    mine = (batch.packed.segments[row] == number) & (batch.labels[row] >= 0)
    return batch.labels[row][mine].tolist()
