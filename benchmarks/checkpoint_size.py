"""What a run keeps on disk, and of which parts it is made: counted, without weights or memory.

    python benchmarks/checkpoint_size.py                    LLaVA-1.5 7B, SAM ViT-H, fusion=full
    python benchmarks/checkpoint_size.py fusion=seg_only model.lora.r=16
    python benchmarks/checkpoint_size.py model=llava_1_5_13b

The model is built on torch's meta device. best.safetensors holds what is trained, in fp32;
last.pt, which is there until the run is done, holds AdamW's two moments too. The last line is JSON.
"""

from __future__ import annotations

import json
import sys

import torch
from hydra import compose, initialize_config_dir

from keyseg.config import PROJECT, validate
from keyseg.model.manifest import manifest
from keyseg.train.build import build

BYTES = 4  # fp32


def main() -> None:
    """See the module."""
    overrides = ["model=llava_1_5_7b", "prompt=lisa", *sys.argv[1:], "model.init=random"]
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", overrides))
    rows = [r for r in manifest(build(cfg, torch.device("meta")).model) if r["trainable"]]
    parts: dict[str, int] = {}
    for row in rows:
        name = row["module"].split(".")[0]
        parts[name] = parts.get(name, 0) + row["parameters"]
    total = sum(parts.values())
    for name, count in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{name:24} {count / 1e6:8.2f} M {BYTES * count / 1e6:8.1f} MB {count / total:6.1%}")
    best, last = BYTES * total / 1e6, 3 * BYTES * total / 1e6
    print(f"{'best.safetensors':24} {total / 1e6:8.2f} M {best:8.1f} MB; last.pt {last:.0f} MB")
    print(
        json.dumps(
            {
                "benchmark": "checkpoint_size",
                "overrides": overrides,
                "parameters": parts,
                "best_mb": round(best, 1),
                "last_mb": round(last, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
