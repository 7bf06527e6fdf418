"""What test_distributed has its processes do: the same few steps, shared in several ways.

`main` trains FOLDER/<way>.yaml for every way there is, and writes what came out to
FOLDER/<way>.<rank>.json. `RANK` and the like say who takes part.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf

from keyseg.config import RunConfig, validate
from keyseg.data.mix import ImageGroup, ImageSampler, groups, load
from keyseg.train.build import build
from keyseg.train.distributed import Processes, joined, unsharded
from keyseg.train.evaluate import evaluate, in_order
from keyseg.train.trainer import Stopped, Trainer

HALF, STEPS = 1, 2


class HalfNamed(ImageSampler):
    """The first half of a step's images has no keywords: whole processes see none."""

    def step(self, n: int) -> list[ImageGroup]:
        images = super().step(n)
        for i, image in enumerate(images[: len(images) // 2]):
            nameless = [replace(e, keyword=None) for e in image.examples]
            images[i] = replace(image, examples=nameless)
        return images


def train(cfg: RunConfig, folder: Path, processes: Processes, until: int) -> dict[str, float]:
    """Go on until a step, of which only the last process is told; all that was measured."""
    torch.manual_seed(cfg.seed)
    parts = build(cfg, torch.device("cpu"))
    sampler = HalfNamed(load(cfg.data, "train"), cfg.seed, cfg.optim.images_per_step, 2)
    trainer = Trainer(parts, sampler, cfg, folder, processes)
    trainer.resume()
    val = groups(e for s in load(cfg.data, "val") for e in s.examples)[:5]

    def score() -> dict[str, float]:
        records = evaluate(parts, val, cfg, "teacher_forced", processes)
        rows = in_order(processes.gather(records), val)
        return {"giou": sum(r["iou"] for r in rows) / len(rows), "rows": len(rows)}

    def told() -> bool:
        return trainer.step == until and processes.rank == processes.count - 1

    found = {}
    try:
        for value in trainer.fit(score, told):
            if "seconds" not in value.name:
                found[f"{value.name} {value.step}"] = value.value
    except Stopped:
        assert trainer.step == until
    if until == STEPS:
        trainer.load_best()
        with unsharded(parts.model):  # answers differ in length, and so do the processes' rounds
            records = evaluate(parts, val, cfg, "generated", processes)
            rows = in_order(processes.gather(records), val)
        found["generated"] = sum(r["iou"] for r in rows) / len(rows)
    return found


def main(folder: Path) -> None:
    """See the module."""
    torch.set_num_threads(1)
    with joined() as processes:
        for file in sorted(folder.glob("*.yaml")):
            checkpoints = folder / file.stem
            checkpoints.mkdir(exist_ok=True)
            cfg = validate(OmegaConf.load(file))  # type: ignore[arg-type]
            found = train(cfg, checkpoints, processes, HALF)
            if processes.first:
                shutil.copytree(checkpoints, folder / f"{file.stem}.half")
            found |= train(cfg, checkpoints, processes, STEPS)
            (folder / f"{file.stem}.{processes.rank}.json").write_text(json.dumps(found))
