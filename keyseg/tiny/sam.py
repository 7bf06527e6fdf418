"""Stage 1: SAM learns to cut out what a point or a box shows (segment_anything's training, small).

As there: the single-mask output is trained on every prompt, of the three others the best one, and
the quality head predicts the IoU of each.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from keyseg.model.backbones.sam import preprocess
from keyseg.tiny.corpus import Corpus

IMAGES, _PROMPTS = 12, 4
_PARTS = 0.3
"""Share of prompts for a part, on objects that show one."""


def draw_prompts(
    corpus: Corpus, rng: np.random.Generator, images: int, kind: str | None = None
) -> tuple[Tensor, Tensor, list[Tensor | None], list[Tensor | None]]:
    """Pixels (B, 3, S, S), targets (B, PROMPTS, S, S) and for each image points or boxes."""
    picks = rng.integers(0, len(corpus), images)
    pixels = torch.from_numpy(corpus.images[picks]).permute(0, 3, 1, 2)
    targets, points, boxes = [], [], []
    for i in picks:
        masks = np.stack([_wanted(corpus, int(i), rng) for _ in range(_PROMPTS)])
        targets.append(torch.from_numpy(masks))
        spots, frames = [], []
        for mask in masks:
            ys, xs = np.nonzero(mask)
            k = int(rng.integers(len(xs)))
            spots.append([xs[k] + 0.5, ys[k] + 0.5])
            frame = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=float)
            frames.append(frame + rng.normal(0, 1.5, 4))
        use_point = rng.random() < 0.6 if kind is None else kind == "point"
        points.append(torch.tensor(spots, dtype=torch.float32)[:, None] if use_point else None)
        boxes.append(None if use_point else torch.from_numpy(np.stack(frames)).float())
    return pixels, torch.stack(targets), points, boxes


def _wanted(corpus: Corpus, index: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of an object, or of a part of it where it shows one."""
    k = int(rng.integers(1, len(corpus.objects[index]) + 1))
    mask: NDArray[np.bool_] = corpus.owners[index] == k
    parts = np.unique(corpus.parts[index][mask])
    parts = parts[parts > 0]
    if len(parts) and rng.random() < _PARTS:
        mask = mask & (corpus.parts[index] == parts[int(rng.integers(len(parts)))])
    return mask


def predict(
    sam: Sam, pixels: Tensor, points: list[Tensor | None], boxes: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Mask logits (B, PROMPTS, 4, h, w) and predicted IoU (B, PROMPTS, 4)."""
    pixels = pixels.to(sam.device)
    side = sam.image_encoder.img_size
    embeddings = sam.image_encoder(torch.stack([preprocess(side, p) for p in pixels]))
    place = sam.prompt_encoder.get_dense_pe()
    masks, quality = [], []
    for embedding, point, box in zip(embeddings, points, boxes, strict=True):
        point, box = (p if p is None else p.to(sam.device) for p in (point, box))
        labelled = None if point is None else (point, point.new_ones(point.shape[:2]))
        sparse, dense = sam.prompt_encoder(points=labelled, boxes=box, masks=None)
        drawn, iou = sam.mask_decoder.predict_masks(embedding[None], place, sparse, dense)
        masks.append(drawn)
        quality.append(iou)
    return torch.stack(masks), torch.stack(quality)


def loss(sam: Sam, corpus: Corpus, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """20 focal + Dice (SAM's own weights), of the single mask and of the best of the three others,
    and the error of the predicted IoU."""
    pixels, targets, points, boxes = draw_prompts(corpus, rng, IMAGES)
    targets = targets.to(sam.device)
    with torch.autocast(sam.device.type, torch.bfloat16):
        logits, quality = predict(sam, pixels, points, boxes)
    logits = logits.float().flatten(0, 1)
    soft = F.interpolate(targets.flatten(0, 1)[:, None].float(), logits.shape[-2:], mode="area")
    soft = soft.expand_as(logits)
    focal = sigmoid_focal_loss(logits, soft).mean((2, 3))  # plain BCE stays at empty masks for long
    p = logits.sigmoid()
    dice = 1 - (2 * (p * soft).sum((2, 3)) + 1) / (p.sum((2, 3)) + soft.sum((2, 3)) + 1)
    each = 20 * focal + dice
    with torch.no_grad():
        hard, real = logits > 0, soft > 0.5
        iou = (hard & real).sum((2, 3)) / (hard | real).sum((2, 3)).clamp(min=1)
    error = F.mse_loss(quality.float().flatten(0, 1), iou)
    total = each[:, 0].mean() + each[:, 1:].min(dim=1).values.mean() + error
    return total, {"loss": float(total.detach()), "iou": float(iou[:, 0].mean())}


@torch.no_grad()
def score(sam: Sam, corpus: Corpus, kind: str, batches: int) -> float:
    """Mean IoU of the single mask on held-out scenes, at full resolution, by kind of prompt."""
    values = []
    for n in range(batches):
        drawn = draw_prompts(corpus, np.random.default_rng([7, n]), IMAGES, kind)
        pixels, targets, points, boxes = drawn
        targets = targets.to(sam.device)
        logits = predict(sam, pixels, points, boxes)[0][:, :, 0]
        hard = F.interpolate(logits, targets.shape[-2:], mode="bilinear") > 0
        iou = (hard & targets).sum((2, 3)) / (hard | targets).sum((2, 3)).clamp(min=1)
        values.append(float(iou.mean()))
    return float(np.mean(values))
