"""A trained model on any image: the same path as an evaluation, without a target.

predictor = Predictor(run.config, run.best_file, torch.device("cpu"))
prediction = predictor(Path("street.jpg"), ["the car that must wait"])[0]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from keyseg.config import GENERATED, ConfigError, RunConfig
from keyseg.data.example import Example, several_targets
from keyseg.data.files import DataError
from keyseg.data.masks import decode_rle
from keyseg.data.mix import ImageGroup
from keyseg.data.pictures import image_size
from keyseg.model.backbones.weights import WeightsError
from keyseg.model.fusion import NAME, OTHER, OWN
from keyseg.runs.run_directory import DamagedError
from keyseg.train.build import Parts, build
from keyseg.train.checkpoints import read_best
from keyseg.train.evaluate import Record, evaluate
from keyseg.train.trainer import load_trainable

_TOGETHER = 8
"""Queries of one image that share a row of tokens: what a step of training has at most, about."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one query.

    answer: as generated, or as given to it. words: the likeliest for KEY, with their
    probabilities; none where the answer has no KEY. mask: bool (H, W) at the image's own size, as
    its EXIF turns it; empty where the answer lacks a token that it is drawn from.
    predicted_iou: SAM's own judgement of the mask; None where none was drawn. rles: of a model
    that was trained on queries with several targets (data.targets=each) the run lengths of each
    mask, of which `mask` is the union and `predicted_iou` the mean; None of any other.
    """

    query: str
    answer: str
    words: list[tuple[str, float]]
    mask: NDArray[np.bool_]
    rle: str
    predicted_iou: float | None
    rles: list[str] | None = None

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """One for each SEG of the answer, where the model gives several; else the one."""
        if self.rles is None:
            return [self.mask]
        return [decode_rle(counts, *self.mask.shape) == 1 for counts in self.rles]

    def to_dict(self) -> dict[str, Any]:
        """In JSON types; the mask in COCO's run lengths."""
        size = list(self.mask.shape)
        each = {} if self.rles is None else {"masks": [rle_of(size, c) for c in self.rles]}
        return {
            "query": self.query,
            "answer": self.answer,
            "keyword": self.words[0][0] if self.words else None,
            "top_words": [{"word": word, "probability": p} for word, p in self.words],
            "mask": rle_of(size, self.rle),
            **each,
            "area": round(float(self.mask.mean()), 6),
            "predicted_iou": self.predicted_iou,
        }


def rle_of(size: Sequence[int], counts: str) -> dict[str, Any]:
    """A mask as COCO writes it."""
    return {"size": list(size), "counts": counts}


class Predictor:
    """The model of a finished run, ready to answer."""

    def __init__(self, cfg: RunConfig, weights: Path, device: torch.device) -> None:
        """`weights`: what was trained (best.safetensors of the run); see `load_model`.

        Raises:
            ConfigError: the variant is a control that is given what no answer holds.
        """
        self.cfg = cfg
        self.parts = load_model(cfg, weights, device)
        refuse_controls(self.parts)

    def __call__(
        self, image: Path, queries: Sequence[str], protocol: str = GENERATED
    ) -> list[Prediction]:
        """One prediction for each query, in their order.

        Raises:
            DataError: the image cannot be read, or a query is empty; names it.
        """
        if not all(query.strip() for query in queries):
            raise DataError("the query is empty")
        several = several_targets(self.cfg.data)
        examples = [_example(image, query, several) for query in queries]
        predictions: list[Prediction] = []
        for start in range(0, len(examples), _TOGETHER):
            group = ImageGroup(image, str(image), examples[start : start + _TOGETHER])
            records = list(evaluate(self.parts, [group], self.cfg, protocol))
            predictions += [self._prediction(record) for record in records]
        return predictions

    def _prediction(self, record: Record) -> Prediction:
        drawn = record["has_seg"] and (record["has_key"] or not self.parts.model.needs_key)
        drawn = drawn and not record.get("rejected")
        counts = record["mask_rle"]
        mask = decode_rle(counts, record["height"], record["width"]) == 1
        words = [(str(word), float(p)) for word, p in json.loads(record["top_words"])]
        expected = record["predicted_iou"] if drawn else None
        each = json.loads(record["masks_rle"]) if "masks_rle" in record else None
        return Prediction(record["query"], record["answer"], words, mask, counts, expected, each)


def load_model(
    cfg: RunConfig, weights: Path, device: torch.device, *, features: bool = False
) -> Parts:
    """Backbones and what a run trained on top of them.

    `features`: what the frozen encoders see of images is kept as the run's config says.

    Raises:
        WeightsError: a backbone, or the run's own file, is missing or does not fit.
        ConfigError: what `build` says.
    """
    torch.manual_seed(cfg.draws)  # a control may hold frozen random weights
    kept = features and cfg.runtime.features
    parts = build(replace(cfg, runtime=replace(cfg.runtime, features=kept)), device)
    try:
        load_trainable(parts.model, read_best(weights))
    except (DamagedError, KeyError, RuntimeError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise WeightsError(f"{weights} cannot be used: {reason}") from error
    parts.model.eval()
    return parts


def refuse_controls(parts: Parts) -> None:
    """Raises ConfigError for a variant that is given something else for KEY than its own state."""
    fusion = parts.model.fusion
    if fusion.uses_key and fusion.key_from != OWN:
        given = {OTHER: "the KEY of another expression of the split", NAME: "the true keyword"}
        raise ConfigError(
            f"{type(fusion).__name__} is a control that is given {given[fusion.key_from]}: it can "
            "be evaluated on a split only"
        )


def reason(error: Exception) -> str:
    """Why there is no answer, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, DataError) and lines:
        return lines[0]
    return ": ".join([type(error).__name__, *lines[:1]])


def is_sentence(query: str) -> bool:
    """Whether a query is asked as it stands: it ends like a sentence. A phrase is put into one."""
    return query.rstrip().endswith((".", "?", "!"))


def _example(image: Path, query: str, several: bool = False) -> Example:
    """An example without a target; `several`: its answer may have any number of masks."""
    return Example(
        id=f"{image}: {query}",
        image=image,
        image_id=str(image),
        query=query,
        is_sentence=is_sentence(query),
        keyword=None,
        text=None,
        slices={},
        load_mask=lambda: np.zeros(image_size(image), np.uint8),
        targets=() if several else None,
    )
