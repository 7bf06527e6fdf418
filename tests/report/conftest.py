"""A small store of results, made from a seed: what a sweep leaves behind, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco

from keyseg.runs.run_directory import Row, RunDirectory

SIDE = 128
KEYWORDS = ("circle", "square", "ring", "cross")
STYLES = ("short", "short+location", "long", "reasoning")
COLOURS = ((214, 69, 65), (63, 120, 191), (84, 150, 84), (230, 170, 60))
PROTOCOLS = ("teacher_forced", "generated")
COMMIT = "0f1e2d3c4b5a69788796a5b4c3d2e1f001234567"


def disc(x: float, y: float, r: float) -> np.ndarray:
    yy, xx = np.mgrid[:SIDE, :SIDE]
    return (xx - x) ** 2 + (yy - y) ** 2 <= r**2


def rle(mask: np.ndarray) -> str:
    counts: bytes = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode()


def scenes(root: Path, images: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Two expressions an image; the second object is what a wrong mask hits."""
    folder = root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for i in range(images):
        canvas = rng.normal(150, 18, (SIDE, SIDE, 3)) + rng.normal(0, 25, 3)
        shapes = []
        for side in (0, 1):
            x, y = 34 + 60 * side + rng.uniform(-8, 8), rng.uniform(30, 98)
            r, kind = rng.uniform(9, 24), int(rng.integers(4))
            canvas[disc(x, y, r)] = np.array(COLOURS[kind]) + rng.normal(0, 8, 3)
            shapes.append((x, y, r, kind))
        file = folder / f"{i:05d}.png"
        Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(file)
        for k in (0, 1):
            style = STYLES[int(rng.integers(4))]
            words = {"short": 2, "short+location": 4, "long": 9, "reasoning": 11}[style]
            keyword = KEYWORDS[shapes[k][3]]
            hidden = "the thing that rolls away first when the table is tilted a bit"
            query = hidden if style == "reasoning" else f"{keyword} on the {('left', 'right')[k]}"
            out.append(
                {
                    "id": f"scenes/test/{i}-{k}",
                    "image_id": f"scenes/{i:05d}",
                    "image": str(file),
                    "query": query,
                    "keyword": keyword,
                    "text": f"the {keyword}",
                    "slice_style": style,
                    "slice_size": ("small", "medium", "large")[int((shapes[k][2] - 9) // 5.01)],
                    "slice_length": "short" if words < 5 else "long",
                    "slice_split": "test",
                    "shape": shapes[k],
                    "other": shapes[1 - k],
                }
            )
    return out


def evaluate(
    examples: Sequence[dict[str, Any]], skill: float, protocol: str, rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for example in examples:
        x, y, r, kind = example["shape"]
        target = disc(x, y, r)
        luck = rng.uniform()
        hard = 0.25 if example["slice_style"] == "reasoning" else 0.0
        if luck < skill - hard:
            mask = disc(x + rng.normal(0, 0.16 * r), y + rng.normal(0, 0.16 * r), r * 0.97)
        elif luck < 0.94:
            mask = disc(*example["other"][:3]) | disc(x + 0.9 * r, y, 0.5 * r)
        else:
            mask = np.zeros((SIDE, SIDE), bool)
        has_seg = protocol == "teacher_forced" or bool(rng.uniform() < 0.97)
        mask &= has_seg
        rank = 0 if rng.uniform() < (0.85 if luck < skill - hard else 0.4) else int(kind + 1)
        order = [KEYWORDS[kind]] + [w for w in KEYWORDS if w != KEYWORDS[kind]]
        if rank:
            order = [*order[1:], order[0]]
        first = float(rng.uniform(0.4, 0.95))
        shares = [first, *((1 - first) * np.array([0.6, 0.25, 0.1]))]
        inter, union = int((target & mask).sum()), int((target | mask).sum())
        rows.append(
            {k: v for k, v in example.items() if k not in ("shape", "other")}
            | {
                "protocol": protocol,
                "intersection": inter,
                "union": union,
                "iou": inter / union,
                "keyword_rank": rank,
                "keyword_token": example["keyword"],
                "predicted_keyword": order[0],
                "top_words": json.dumps(
                    [[w, round(float(s), 4)] for w, s in zip(order, shares, strict=True)]
                ),
                "answer": f"sure , [KEY] {'[SEG] ' if has_seg else ''}. the {order[0]} .",
                "has_seg": has_seg,
                "has_key": True,
                "height": SIDE,
                "width": SIDE,
                "target_rle": rle(target),
                "mask_rle": rle(mask),
                "ignore_rle": "",
            }
        )
    return pd.DataFrame(rows)


def train(run: RunDirectory, skill: float, rng: np.random.Generator, steps: int) -> None:
    rows = []
    for step in range(1, steps + 1, max(1, steps // 80)):
        fall = np.exp(-3 * step / steps)
        for name, start, floor in (
            ("text", 2.0, 0.05),
            ("bce", 0.6, 0.1),
            ("dice", 0.9, 1 - skill),
            ("keyword", 3.0, 0.4),
        ):
            value = (floor + (start - floor) * fall) * rng.lognormal(0, 0.08)
            rows.append(Row(f"train/{name}", value, step, 1.7e9 + step))
        rows.append(Row("train/loss", 4 * fall + rng.lognormal(-1, 0.1), step, 1.7e9 + step))
    run.log([Row("train/loss", float("nan"), steps, 1.7e9)])
    rows += [Row(f"val/{name}", 0.1, 0, 1.7e9) for name in ("giou", "ciou", "keyword_accuracy")]
    for step in range(steps // 8, steps + 1, steps // 8):
        rise = 1 - np.exp(-12 * step / steps)
        for name in ("giou", "ciou", "keyword_accuracy"):
            value = skill * rise + rng.normal(0, 0.01)
            rows.append(Row(f"val/{name}", value, step, 1.7e9 + step))
    run.log(rows)


def make_store(
    root: Path,
    labels: Sequence[str] = ("seg_only", "cross", "full"),
    *,
    seeds: Sequence[int] = (0,),
    images: int = 24,
    steps: int = 80,
    status: dict[tuple[str, int], str] | None = None,
) -> Path:
    """Write outputs/<sweep> under `root` and return it. `status`: cells that are not done."""
    sweep = root / "outputs" / "fusion"
    sweep.mkdir(parents=True)
    examples = scenes(root, images, np.random.default_rng(7))
    cells = []
    for i, label in enumerate(labels):
        for seed in seeds:
            signature = f"{i:02d}{seed:02d}5e9a7c31"
            cells.append(
                {
                    "signature": signature,
                    "label": label,
                    "factors": {"fusion": label},
                    "seed": seed,
                    "overrides": [f"fusion={label}", f"seed={seed}"],
                }
            )
            state = (status or {}).get((label, seed), "done")
            if state != "missing":
                write_run(sweep / signature, cells[-1], state, i, seed, examples, steps)
    design = {
        "name": "fusion",
        "question": "Does fusing KEY into SEG help, and is it the residual?",
        "baseline": {"fusion": labels[0]},
        "factors": {"fusion": list(labels)},
        "replicate": "seed",
        "metrics": ["giou", "ciou"],
        "contrasts": [],
        "published": None,
        "cells": cells,
        "command": f"python run.py -m fusion={','.join(labels)}",
        "started": 1763800000.0,
        "mlflow_parent": None,
    }
    (sweep / "sweep.json").write_text(json.dumps(design))
    return sweep


def summarise(samples: pd.DataFrame) -> dict[str, float]:
    """Independent of the report's own sums; "empty_rate" is known to be absent in old runs."""
    right, good = samples["keyword_rank"] == 0, samples["iou"] >= 0.5
    return {
        "giou": float(np.mean(samples["iou"])),
        "ciou": float(samples["intersection"].sum() / samples["union"].sum()),
        "precision@0.5": float((samples["iou"] > 0.5).mean()),
        "precision@0.9": float((samples["iou"] > 0.9).mean()),
        "keyword_accuracy": float(right.mean()),
        "discrepancy_keyword_right_mask_wrong": float((right & ~good).mean()),
        "discrepancy_keyword_wrong_mask_right": float((~right & good).mean()),
        "no_seg_rate": float((~samples["has_seg"]).mean()),
        "examples": len(samples),
    }


def write_run(
    path: Path,
    cell: dict[str, Any],
    state: str,
    index: int,
    seed: int,
    examples: Sequence[dict[str, Any]],
    steps: int,
) -> None:
    path.mkdir()
    run = RunDirectory(path)
    rng = np.random.default_rng([index, seed])
    skill = 0.52 + 0.05 * (index % 5) + 0.02 * (seed % 3)
    train(run, skill, rng, steps)
    summary = {}
    if state == "done":
        samples = {p: evaluate(examples, skill, p, rng) for p in PROTOCOLS}
        run.write_samples(pd.concat(samples.values()))
        summary = {p: summarise(frame) for p, frame in samples.items()}
    run.update(
        summary=summary,
        signature=cell["signature"],
        status=state,
        factors=cell["factors"],
        label=cell["label"],
        seed=seed,
        sweep="fusion",
        attempts=[
            {
                "started": 1763800000.0,
                "ended": 1763800214.0,
                "host": "node-7",
                "pid": 4711,
                "slurm_job_id": None,
                "git_commit": COMMIT,
                "git_dirty": False,
                "seconds": 214.0,
                "outcome": state,
            }
        ],
        git={"commit": COMMIT, "dirty": False},
        manifest=[
            {"module": "lora", "parameters": 98304, "trainable": True, "note": ""},
            {
                "module": "fusion",
                "parameters": 4160 * index,
                "trainable": True,
                "note": cell["label"],
            },
            {
                "module": "clip",
                "parameters": 1204000,
                "trainable": False,
                "note": "frozen on purpose",
            },
        ],
        trainable_parameters=1_234_567 + 4160 * index,
        data_fingerprint="a51c0ffee123",
        weights_fingerprint="b0b0b0b0",
        protocol={"data": "scenes", "splits": [{"split": "test"}], "backbone": "tiny"},
        error="Traceback (most recent call last):\nRuntimeError: loss is nan at step 61"
        if state == "failed"
        else None,
        seconds_per_step=0.412 + 0.01 * index,
        minutes=3.57 + 0.1 * index,
        steps=steps,
    )


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """`make_store` in this test's own folder."""

    def make(*args: Any, **options: Any) -> Path:
        return make_store(tmp_path, *args, **options)

    return make


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """`make_store` itself, for fixtures that outlive a test."""
    return make_store
