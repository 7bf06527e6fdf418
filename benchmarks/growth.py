"""How the cost of a step and of an evaluation grows: expressions, images, image size, model size.

    python benchmarks/growth.py                                     model=tiny on the CPU, minutes
    python benchmarks/growth.py --axes expressions --rounds 5
    python benchmarks/growth.py --overrides model=llava_1_5_7b prompt=lisa model.init=random \\
        +model.sizes.tokenizer=keyseg/tiny/weights/llava \\
        --images 2 --expressions 4 --depths 8 16 32 --widths 1024 2048 4096

Each axis changes one thing and keeps the rest at --images, --expressions and 128 x 128 pictures of
noise. A step is the trainer's own (features from the disk, forward, four losses, backward, AdamW);
an evaluation is `keyseg.train.evaluate` on the same images, teacher-forced, with all that it
writes down.
`depth` and `width` are those of the language model, with random weights. The points of an axis take
turns, so that a slow minute is slow for all; medians. Memory is what a step holds at most above
what was held before it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from noise import examples
from pair import PAIR
from step import peak_bytes, seconds
from transformers import LlavaConfig

from keyseg.config import PROJECT, RunConfig, validate
from keyseg.data.mix import ImageSampler, Source, groups
from keyseg.model.backbones.weights import weights_path
from keyseg.model.features import FrozenFeatures, Store
from keyseg.train.batch import Collator
from keyseg.train.build import build
from keyseg.train.device import pick_device
from keyseg.train.evaluate import evaluate
from keyseg.train.trainer import Trainer

AXES = ("expressions", "images", "size", "depth", "width")
COUNTS = (1, 2, 4, 8)
SIZES = ((128, 128), (240, 320), (480, 640), (960, 1280))
QUERY = "the small red ball left of the box"


@dataclass(frozen=True)
class Point:
    """One value of an axis. size: (height, width) of the images; text: sizes of the LLM."""

    images: int
    expressions: int
    size: tuple[int, int] = SIZES[0]
    text: tuple[tuple[str, int], ...] = ()


def axes(options: argparse.Namespace, base: dict[str, int]) -> dict[str, dict[str, Point]]:
    """The points of every axis by their names."""
    start = Point(options.images, options.expressions)
    depths = options.depths or [base["num_hidden_layers"] * n for n in (1, 2, 4)]
    widths = options.widths or [base["hidden_size"] * n for n in (1, 2, 4)]
    head = base["hidden_size"] // base["num_attention_heads"]
    ratio = base["intermediate_size"] / base["hidden_size"]

    def wide(width: int) -> tuple[tuple[str, int], ...]:
        heads = width // head
        return (
            ("hidden_size", width),
            ("intermediate_size", int(width * ratio)),
            ("num_attention_heads", heads),
            ("num_key_value_heads", heads),
        )

    return {
        "expressions": {str(n): replace(start, expressions=n) for n in COUNTS},
        "images": {str(n): replace(start, images=n) for n in COUNTS},
        "size": {f"{w} x {h}": replace(start, size=(h, w)) for h, w in SIZES},
        "depth": {str(n): replace(start, text=(("num_hidden_layers", n),)) for n in depths},
        "width": {str(n): replace(start, text=wide(n)) for n in widths},
    }


class Works:
    """What is timed of a point: a step and an evaluation."""

    def __init__(self, cfg: RunConfig, point: Point, folder: Path) -> None:
        folder.mkdir()
        device = pick_device(cfg.runtime.device)
        if point.text:
            cfg = replace(cfg, model=replace(cfg.model, init="random"))
            cfg.model.sizes = sizes(cfg, dict(point.text))
        found = list(examples(folder, point.images, point.expressions, point.size, QUERY, "ball"))
        torch.manual_seed(0)
        parts = build(cfg, device)
        stored = FrozenFeatures(*parts.features.encoders, Store(folder / "features", 2**40))
        for _ in stored.fill(dict.fromkeys(e.image for e in found)):
            pass
        self.parts = replace(parts, collator=Collator(parts.conversation, stored), features=stored)
        self.cfg = replace(cfg, evaluation=replace(cfg.evaluation, images_per_batch=point.images))
        self.groups = groups(found)
        sampler = ImageSampler([Source(found, 1.0)], 0, point.images, point.expressions)
        self.trainer = Trainer(self.parts, sampler, cfg, folder)

    def step(self) -> None:
        """One of training."""
        self.parts.model.train()
        self.trainer.step += 1
        self.trainer._train_step(self.trainer._make_batches(self.trainer.step))

    def evaluate(self) -> None:
        """All images once."""
        for _ in evaluate(self.parts, self.groups, self.cfg, "teacher_forced"):
            pass


def sizes(cfg: RunConfig, text: dict[str, int]) -> dict[str, Any]:
    """`model.sizes` with these of the language model; the rest as the config has it."""
    if cfg.model.sizes:
        return {**cfg.model.sizes, "text": {**cfg.model.sizes["text"], **text}}
    found = LlavaConfig.from_pretrained(weights_path(cfg.model.language_weights)).to_dict()
    dropped = ("model_type", "bos_token_id", "eos_token_id", "pad_token_id")
    kept = {k: v for k, v in found["text_config"].items() if k not in dropped}
    vision = {k: v for k, v in found["vision_config"].items() if k != "model_type"}
    return {"text": kept | text, "vision": vision, "tokenizer": cfg.model.llava}


def measure(works: dict[str, Works], rounds: int) -> list[dict[str, Any]]:
    """A row for each point: medians over rounds, in turns."""
    kinds: dict[str, Callable[[Works], None]] = {"step": Works.step, "evaluation": Works.evaluate}
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for name, work in works.items():
            for kind, do in kinds.items():
                took = seconds(lambda do=do, work=work: do(work), work.trainer.device)
                if turn:  # the first round warms up
                    times.setdefault((name, kind), []).append(took)
    rows = []
    for name, work in works.items():
        expressions = sum(len(g.examples) for g in work.groups)
        row: dict[str, Any] = {"value": name}
        for kind, do in kinds.items():
            taken = times[name, kind]
            peak = peak_bytes(lambda do=do, work=work: do(work), work.trainer.device)
            row[kind] = {
                "seconds": statistics.median(taken),
                "lowest": min(taken),
                "highest": max(taken),
                "expressions_per_second": expressions / statistics.median(taken),
                "peak_mib": peak / 2**20,
            }
        rows.append(row)
    return rows


def show(axis: str, rows: list[dict[str, Any]]) -> None:
    """A table for people."""
    print(f"\n{axis:12} step s  [rounds]         expr/s  peak MiB   evaluation s  expr/s  peak MiB")
    for row in rows:
        step, read = row["step"], row["evaluation"]
        print(
            f"{row['value']:12} {step['seconds']:6.3f}  "
            f"[{step['lowest']:.3f}, {step['highest']:.3f}] "
            f"{step['expressions_per_second']:7.1f} {step['peak_mib']:9.0f} "
            f"{read['seconds']:14.3f} {read['expressions_per_second']:7.1f} "
            f"{read['peak_mib']:9.0f}"
        )


def main() -> None:
    """Measure, print tables, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", choices=AXES, default=AXES)
    parser.add_argument("--images", type=int, default=4, help="where they do not change (4)")
    parser.add_argument("--expressions", type=int, default=4, help="of an image (4)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="*", help="layers (1, 2, 4 times the model's)")
    parser.add_argument("--widths", type=int, nargs="*", help="hidden size (as depths)")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU (all cores)")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", [*PAIR, *options.overrides]))
    base = sizes(cfg, {})["text"]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for axis, points in axes(options, base).items():
            if axis in options.axes:
                made = {
                    name: Works(cfg, point, Path(folder) / f"{axis}-{name}")
                    for name, point in points.items()
                }
                result[axis] = measure(made, options.rounds)
                show(axis, result[axis])
    gpu = pick_device(cfg.runtime.device).type == "cuda"
    print(
        json.dumps(
            {
                "benchmark": "growth",
                "device": torch.cuda.get_device_name() if gpu else platform.machine(),
                "threads": torch.get_num_threads(),
                "model": cfg.model.name,
                "images": options.images,
                "expressions": options.expressions,
                "rounds": options.rounds,
                "axes": result,
            }
        )
    )


if __name__ == "__main__":
    main()
