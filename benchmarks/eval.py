"""Masks a second beside a plain loop over masks: brought to size, counted, written as run lengths.

    python benchmarks/eval.py                    5,000 masks of 640 x 480, in batches of 50

Both start from the same decoder logits and targets and must find the same pixels. The alternative
does what evaluation scripts of this field do: one mask at a time, resized, compared with numpy,
encoded by itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn import functional as F

from keyseg.model.resample import Frame, drawn, resized
from keyseg.train.device import pick_device
from keyseg.train.evaluate import compare

SIDE, GRID = 1024, 256  # SAM's input and its decoder's output
SIZE = (480, 640)


def plain(logits: Tensor, targets: Tensor) -> list[tuple[int, int, str]]:
    """One mask at a time."""
    found = []
    for logit, target in zip(logits, targets, strict=True):
        large = F.interpolate(logit[None, None], (SIDE, SIDE), mode="bilinear")
        height, width = resized(*SIZE, SIDE)
        own = F.interpolate(large[..., :height, :width], SIZE, mode="bilinear")[0, 0]
        mask, truth = (own > 0).cpu().numpy(), target.cpu().numpy()
        counted = truth != 255
        intersection = np.logical_and(mask, truth == 1)[counted].sum()
        union = np.logical_or(mask, truth == 1)[counted].sum()
        runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        found.append((int(intersection), int(union), runs["counts"].decode()))
    return found


def ours(logits: Tensor, targets: Tensor) -> list[tuple[int, int, str]]:
    """As `keyseg.train.evaluate` does, which encodes the targets, too."""
    rows = compare(drawn(logits, Frame(SIDE), SIZE), targets.transpose(1, 2))
    return [(r["intersection"], r["union"], r["mask_rle"]) for r in rows]


def batch(number: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Smooth logits and targets with a few ignored pixels."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, 1, 6, 6, generator=rng)
    logits = F.interpolate(coarse, (GRID, GRID), mode="bicubic")[:, 0]
    truth = F.interpolate(coarse + 0.5 * torch.randn(coarse.shape, generator=rng), SIZE)[:, 0]
    targets = (truth > 0).byte()
    targets[:, :8, :8] = 255
    return logits.to(device), targets.to(device)


def seconds(work: Callable[..., Any], *given: Tensor) -> float:
    """Of one call; what it returns is on the CPU, so nothing is left running."""
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = pick_device(options.device)
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for start in range(0, options.masks, options.batch):
        given = batch(min(options.batch, options.masks - start), start, device)
        if start == 0:  # also warms up
            assert plain(*given) == ours(*given)
        times["plain"].append(seconds(plain, *given))
        times["ours"].append(seconds(ours, *given))
    total = {name: sum(taken) for name, taken in times.items()}
    ratios = [p / o for p, o in zip(times["plain"], times["ours"], strict=True)]
    named = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    result = {
        "benchmark": "eval",
        "device": named,
        "threads": torch.get_num_threads(),
        "masks": options.masks,
        "size": list(SIZE),
        "plain_masks_per_second": options.masks / total["plain"],
        "ours_masks_per_second": options.masks / total["ours"],
        "times": total["plain"] / total["ours"],
        "times_quartiles": [float(q) for q in np.quantile(ratios, (0.25, 0.75))],
        "median_batch_seconds": statistics.median(times["ours"]),
    }
    for name in total:
        print(f"{name:6} {options.masks / total[name]:8.1f} masks/s")
    print(f"ours is {result['times']:.2f} times as fast")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
