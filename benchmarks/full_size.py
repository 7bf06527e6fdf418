"""A training step at full size, without weights: how long, how much memory, and which part of it.

    python benchmarks/full_size.py                      LLaVA-1.5 7B and SAM ViT-H, bf16, on a GPU
    python benchmarks/full_size.py --model tiny         the same at the size of the bundled ones
    python benchmarks/full_size.py --model qwen3_vl_4b mask=sam2_large
    python benchmarks/full_size.py --images 4 fusion=released model/sam=vit_b optim.clip=0

Weights are random (`model.init=random`), pictures are noise of 640 x 480; neither changes the
time. Each variant runs in a process of its own, so that peak memory and the time to its first step
are its own. A step is the trainer's (forward, four losses, backward, AdamW). `seconds_per_step`
has both frozen encoders in it, as in the first epoch; `stored` is the step when their features
come from the store, as in every later epoch and in all other cells of a sweep. The parts are timed
alone, forward and, where it is trained through, backward; `clip` is the language side's encoder and
`sam_encoder` the mask side's, whatever they are; `rest` is what they leave of the step: losses,
fusion, optimiser. Each number is the median of --steps, with the smallest and the largest.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
SIZE = (480, 640)
"""Height and width."""
QUERY = "the person in the red coat who waits left of the bus"
VARIANTS = ("seg_only", "full")


def measure(options: argparse.Namespace, variant: str, folder: Path) -> dict[str, Any]:
    """One variant in this process."""
    import torch
    from hydra import compose, initialize_config_dir
    from noise import examples

    from keyseg.config import PROJECT, validate
    from keyseg.data.mix import ImageSampler, Source
    from keyseg.train.build import autocast, build
    from keyseg.train.device import pick_device
    from keyseg.train.trainer import Trainer

    llava = options.model.startswith("llava_1")
    prompt = "short" if options.model == "tiny" else "lisa" if llava else "chatml"
    chosen = [f"model={options.model}", f"fusion={variant}", f"prompt={prompt}"]
    fixed = ["model.init=random", "optim=released", "runtime.features=false"]
    if llava:  # words, not bytes: a text is as long as with LLaMA's tokenizer
        fixed.append("+model.sizes.tokenizer=keyseg/tiny/weights/llava")
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", [*chosen, *fixed, *options.overrides]))
    device = pick_device(options.device)
    torch.manual_seed(cfg.seed)
    parts = build(cfg, device)
    noise = examples(folder, options.images, options.expressions, SIZE, QUERY, "person")
    rest = Source(list(noise), 1.0)
    sampler = ImageSampler([rest], cfg.seed, options.images, options.expressions)
    trainer = Trainer(parts, sampler, cfg, folder)
    parts.model.train()

    def step() -> None:
        trainer.step += 1
        trainer._train_step(trainer._make_batches(trainer.step))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def timed(work: Callable[[], object]) -> list[float]:
        seconds = []
        for _ in range(options.steps):
            wait()
            begin = time.perf_counter()
            work()
            wait()
            seconds.append(time.perf_counter() - begin)
        return seconds

    step()
    wait()
    first = time.perf_counter() - STARTED
    whole = timed(step)
    [batch] = trainer._make_batches(1)

    def stored() -> None:
        trainer.step += 1
        trainer._train_step([batch])

    from_store = timed(stored)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    from keyseg.model.features import read_image

    pictures = [read_image(group.image) for group in sampler.step(0)]
    clip, sam = parts.features.encoders
    moved, model = batch.to(device), parts.model
    rows = tuple(level[moved.image_of] for level in moved.features.mask)
    prompts = torch.randn(len(moved.rows), 1, model.dim, device=device, requires_grad=True)

    def language() -> None:
        with autocast(cfg, device):
            states = model.vlm(moved.packed, moved.features.language)
            text = model.vlm.logits(states.flatten(0, 1)[moved.supervised])
        (states.float().mean() + text.float().mean()).backward()

    def decoder() -> None:
        with autocast(cfg, device):
            drawn = model.mask_head(rows, prompts).logits
        drawn.float().mean().backward()

    alone = {
        "clip": timed(lambda: [clip(p) for p in pictures]),
        "sam_encoder": timed(lambda: [sam(p) for p in pictures]),
        "language_model": timed(language),
        "mask_decoder": timed(decoder),
    }
    seconds = statistics.median(whole)
    share = {name: statistics.median(times) / seconds for name, times in alone.items()}
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {
        "variant": variant,
        "model": cfg.model.name,
        "sam": cfg.model.sam_type,
        "precision": cfg.model.precision,
        "device": name,
        "threads": torch.get_num_threads(),
        "images": options.images,
        "expressions": len(batch.examples),
        "tokens": list(batch.packed.input_ids.shape),
        "parameters": sum(p.numel() for p in model.parameters())
        + sum(p.numel() for e in (clip, sam) for p in e.module.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "seconds_per_step": spread(whole),
        "seconds_per_step_stored": spread(from_store),
        "expressions_per_second": round(len(batch.examples) / seconds, 3),
        "expressions_per_second_stored": round(
            len(batch.examples) / statistics.median(from_store), 3
        ),
        "seconds_to_first_step": round(first, 2),
        "peak_gib": round(peak / 2**30, 3),
        "share": {k: round(v, 3) for k, v in (share | {"rest": 1 - sum(share.values())}).items()},
    }


def spread(seconds: list[float]) -> list[float]:
    """Median, smallest, largest."""
    return [round(f(seconds), 4) for f in (statistics.median, min, max)]


def show(found: dict[str, Any]) -> None:
    """A few lines for people."""
    middle, low, high = found["seconds_per_step"]
    shares = ", ".join(f"{name} {value:.0%}" for name, value in found["share"].items())
    print(
        f"{found['model']} + {found['sam']}, {found['variant']}, {found['device']}, "
        f"{found['precision']}: {found['images']} images, {found['expressions']} expressions\n"
        f"  {middle:.3f} s a step ({low:.3f} to {high:.3f}), "
        f"{found['seconds_per_step_stored'][0]:.3f} s with stored features; "
        f"{found['expressions_per_second']:.2f} and {found['expressions_per_second_stored']:.2f} "
        "expressions a second\n"
        f"  first step after {found['seconds_to_first_step']:.1f} s, "
        f"peak {found['peak_gib']:.2f} GiB\n  {shares}"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config")
    parser.add_argument("--model", help="llava_1_5_7b on a GPU, tiny without one")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of the fusion")
    parser.add_argument("--steps", type=int, default=5, help="timed, after the first (5)")
    parser.add_argument("--images", type=int, default=2, help="in a step (2, as the paper's GPU)")
    parser.add_argument("--expressions", type=int, default=3, help="of an image (3)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model is None:
        import torch

        gpu = options.device != "cpu" and torch.cuda.is_available()
        options.model = "llava_1_5_7b" if gpu else "tiny"
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options, options.one, Path(folder))))
        return
    results = []
    for variant in options.variants.split(","):
        line = [sys.executable, __file__, *sys.argv[1:], "--model", options.model, "--one", variant]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        show(results[-1])
    print(json.dumps({"benchmark": "full_size", "steps": options.steps, "results": results}))


if __name__ == "__main__":
    main()
