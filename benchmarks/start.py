"""From the start of a job to its first step, beside the bare import of what it stands on.

    python benchmarks/start.py                    model=tiny, features stored before

The alternative is a process that imports torch, transformers and peft, reads the weights, and does
nothing else. In turns, one run; medians. Of the run, a val image is scored before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir
from pair import PAIR

from keyseg.config import PROJECT, resolve_path, validate
from keyseg.data.mix import load, prepare
from keyseg.model.backbones.weights import weights_path
from keyseg.runs.run_directory import RunDirectory
from keyseg.train.build import build_features
from keyseg.train.device import pick_device

BARE = """
import sys
import torch, peft, segment_anything
from transformers import AutoProcessor, LlavaForConditionalGeneration
LlavaForConditionalGeneration.from_pretrained(sys.argv[1])
AutoProcessor.from_pretrained(sys.argv[1])
from keyseg.model.backbones.sam import load_sam
from pathlib import Path
load_sam(Path(sys.argv[2]), sys.argv[3])
"""
OVERRIDES = (
    *PAIR,
    "optim.steps=1",
    "optim.warmup=0",
    "runtime.log_every=1",
    "runtime.threads=1",
    "evaluation.val_images=1",
    "evaluation.protocols=[]",
)


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", [*OVERRIDES, *options.overrides]))
    prepare(cfg.data)
    images = {
        e.image for split in ("train", "val") for s in load(cfg.data, split) for e in s.examples
    }
    features = build_features(cfg, pick_device(cfg.runtime.device))
    for _ in features.fill(features.missing(list(images))):
        pass
    sam = str(resolve_path(cfg.model.sam))
    bare_command = [
        sys.executable,
        "-c",
        BARE,
        weights_path(cfg.model.language_weights),
        sam,
        cfg.model.sam_type,
    ]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1"}
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds + 1):
            start = time.time()
            subprocess.run(bare_command, env=environment, check=True, capture_output=True)
            bare.append(time.time() - start)
            run = RunDirectory.create(Path(folder) / str(turn), cfg)
            command = [sys.executable, "-m", "keyseg.worker", str(run.path)]
            start = time.time()
            subprocess.run(command, env=environment, check=True, capture_output=True)
            rows = run.metrics()
            moments = rows.loc[rows["name"] == "train/loss", "time"]
            ours.append(float(moments.iloc[0]) - start)
    ratios = [o / b for o, b in zip(ours[1:], bare[1:], strict=True)]  # the first round warms up
    result = {
        "benchmark": "start",
        "model": cfg.model.name,
        "bare_seconds": statistics.median(bare[1:]),
        "first_step_seconds": statistics.median(ours[1:]),
        "times": statistics.median(ratios),
        "times_lowest": min(ratios),
        "times_highest": max(ratios),
    }
    print(
        f"{result['first_step_seconds']:.1f} s to the first step, {result['times']:.2f} of the bare"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
