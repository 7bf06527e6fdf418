"""What SAM draws of each target from the target's own box: about the most that a prompt can bring.

It is read with the weights as they came, before any training, so it belongs to the data and to SAM,
not to a variant: it is measured once for both and kept under paths.data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from keyseg.config import RunConfig, resolve_path
from keyseg.data.mix import ImageGroup
from keyseg.metrics import iou
from keyseg.model.backbones.sides import load_mask
from keyseg.model.backbones.weights import fingerprint
from keyseg.model.features import FrozenFeatures
from keyseg.model.resample import drawn
from keyseg.runs import disk


def box_ceiling(
    cfg: RunConfig,
    features: FrozenFeatures,
    images: Sequence[ImageGroup],
    data: str,
    device: torch.device,
) -> dict[str, float] | None:
    """Scores of masks drawn from true boxes; None where SAM is random or features are not kept.

    Args:
        cfg: of the run.
        features: what the frozen encoders see.
        images: of the split that is scored; expressions without a target are left out.
        data: fingerprint of the data.
        device: where masks are drawn.

    Returns:
        giou, ciou and precision@0.5 as fractions, and how many `targets` were drawn.
    """
    if cfg.model.init == "random" or features.store is None:
        return None
    names = "".join(e.id for group in images for e in group.examples)
    key = json.dumps([data, fingerprint(cfg.model.sam), cfg.model.precision, names])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    file = resolve_path(cfg.paths.data) / "ceilings" / f"{name}.json"
    measured = _kept(file)
    if measured is None:
        measured = _measure(cfg, features, images, device)
        with suppress(OSError):  # no room, or somebody else's folder: the next run measures again
            file.parent.mkdir(parents=True, exist_ok=True)
            disk.replace(file, json.dumps(measured).encode())
    return measured or None


def _kept(file: Path) -> dict[str, float] | None:
    """What was measured before; None where nothing was, or the file is damaged."""
    try:
        kept: dict[str, float] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return kept


@torch.no_grad()
def _measure(
    cfg: RunConfig, features: FrozenFeatures, images: Sequence[ImageGroup], device: torch.device
) -> dict[str, float]:
    side = load_mask(cfg.model, device)
    head = side.head().to(device)
    counts = []
    for group in images:
        targets = [torch.from_numpy(mask) for e in group.examples for mask in e.masks()]
        targets = [target for target in targets if bool((target == 1).any())]
        if not targets:
            continue
        seen = features([group.image])
        size = seen.sizes[0]
        prompts = side.ask(torch.stack([_box(t) for t in targets]).to(device), size)
        levels = tuple(m.to(device).float().expand(len(targets), -1, -1, -1) for m in seen.mask)
        masks = drawn(head(levels, prompts).logits, head.frame, size).transpose(1, 2).cpu()
        counts += list(_counts(masks, targets))
    if not counts:
        return {}
    intersection, union = np.array(counts).T
    each = iou(intersection, union)
    return {
        "giou": float(each.mean()),
        "ciou": float(intersection.sum() / union.sum()),
        "precision@0.5": float((each > 0.5).mean()),
        "targets": len(each),
    }


def _box(target: Tensor) -> Tensor:
    """(4,) left, top, right, bottom in pixels of the image (H, W)."""
    ys, xs = torch.nonzero(target == 1, as_tuple=True)
    return torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()


def _counts(masks: Tensor, targets: Sequence[Tensor]) -> Iterator[tuple[int, int]]:
    """Pixels in both and in either, void ones left out."""
    for mask, target in zip(masks, targets, strict=True):
        real, counted = target == 1, target <= 1
        yield int((mask & real).sum()), int(((mask | real) & counted).sum())
