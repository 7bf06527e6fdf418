"""Expressions a second beside the arrangement that LISA and its successors use, gain by gain.

    python benchmarks/step.py                                       model=tiny on the CPU
    python benchmarks/step.py --images 4 --overrides model=llava_1_5_7b model.init=random \\
        +model.sizes.tokenizer=keyseg/tiny/weights/llava prompt=lisa    on a GPU

One process, the same weights, the same images with four expressions each. The alternative: both
encoders in every step (CLIP once for each expression, SAM once for each image), a sequence for
each expression, logits at all positions, the states of all layers, SAM's own decoder and the mask
losses in a loop, all layers checkpointed where the config checkpoints; in evaluation one image at
a time, masks counted in a loop. Every gain is measured alone, then all together; losses must agree
before anything is timed. Ours includes reading features from the disk; theirs does not include
reading images. One pass counts operations, one memory, then each round times everything once.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from pair import PAIR
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import BaseModelOutputWithPooling

from keyseg.config import PROJECT, RunConfig, validate
from keyseg.data.mix import ImageGroup, groups, load, prepare
from keyseg.model.backbones.encoders import Features
from keyseg.model.backbones.sides import DTYPES
from keyseg.model.features import FrozenFeatures, Store, read_image
from keyseg.model.keyseg import Output
from keyseg.model.resample import to_original
from keyseg.train.batch import NO_LABEL, Batch, Collator
from keyseg.train.build import autocast, build, load_backbones
from keyseg.train.device import pick_device
from keyseg.train.evaluate import evaluate
from keyseg.train.losses import bce_loss, dice_loss, named_keyword, weigh, weighted_terms
from keyseg.train.trainer import compute_losses, make_optimizer

GAINS = {
    "features": "frozen features from disk",
    "prefix": "one row an image",
    "logits": "logits where supervised",
    "states": "last hidden state only",
    "decoder": "one call of the mask decoder",
    "kept": "wide products kept",
}
COMPILED = "compiled"
THEIRS = "LISA's arrangement"
EXPRESSIONS = 4
Ours = frozenset[str]


class Bench:
    """Weights, images and both arrangements."""

    def __init__(self, cfg: RunConfig, images: int, folder: Path) -> None:
        self.cfg = cfg
        self.device = pick_device(cfg.runtime.device)
        prepare(cfg.data)
        every = groups(e for source in load(cfg.data, "train") for e in source.examples)
        enough = [g for g in every if len(g.examples) >= EXPRESSIONS][:images]
        self.groups = [replace(g, examples=g.examples[:EXPRESSIONS]) for g in enough]
        torch.manual_seed(0)
        self.parts = build(cfg, self.device)
        self.sam = load_backbones(cfg, self.device, part="vision")[1].sam  # type: ignore[attr-defined]
        self.sam.to(self.device)
        self.sam.requires_grad_(False)
        self.sam.mask_decoder = self.parts.model.mask_head.decoder  # the weights that are trained
        self.sam.image_encoder = torch.nn.Identity()  # there is one already
        self.clip, self.see = self.parts.features.encoders
        self.tower: Any = self.clip.module
        stored = FrozenFeatures(self.clip, self.see, Store(folder, 2**40))
        for _ in stored.fill(g.image for g in self.groups):
            pass
        self.ours = replace(self.parts, collator=Collator(self.parts.conversation, stored))
        # theirs: pixels are ready, as a data loader would have made them
        pictures = {g.image: read_image(g.image) for g in self.groups}
        self.sizes = {path: (p.shape[1], p.shape[2]) for path, p in pictures.items()}
        make = ((e.name, e.preprocess) for e in (self.clip, self.see))
        self.pixels = {n: {path: see(p) for path, p in pictures.items()} for n, see in make}
        self.optimizer = make_optimizer(self.parts.model, cfg.optim)
        inner = self.parts.model.vlm.base.model
        self.language_models = {False: inner.language_model}

    def batch(self, chosen: Sequence[ImageGroup], ours: Ours) -> Batch:
        """What the step is given, on the device."""
        rows = list(chosen)
        if "prefix" not in ours:
            rows = [replace(g, examples=[e]) for g in chosen for e in g.examples]
        features = self.ours.collator.features if "features" in ours else self.encode
        batch = Collator(self.parts.conversation, features)(rows)
        return batch.to(self.device)

    @torch.no_grad()
    def encode(self, images: Sequence[Path]) -> Features:
        """Both encoders: CLIP on every row, SAM on every image, one after the other."""
        dtype = next(self.clip.module.parameters()).dtype

        def pixels(name: str, paths: Sequence[Path]) -> Tensor:
            found = torch.cat([self.pixels[name][p]["pixels"] for p in paths])
            return found.to(self.device, dtype)

        with autocast(self.cfg, self.device):
            clip = self.tower.states(pixels("clip", images))
            seen = {p: self.see.module(pixels("sam", [p]))[0] for p in dict.fromkeys(images)}
        kept = self.clip.dtype
        sam = torch.stack([seen[p] for p in images])
        sizes = [self.sizes[p] for p in images]
        return Features((clip.flatten(0, 1).to(kept),), (sam.to(kept),), sizes)

    def forward(self, batch: Batch, ours: Ours) -> tuple[Output, Tensor]:
        """KeySeg's own forward, with what is not ours done the other way; and the text's labels."""
        model = self.parts.model
        states = self._states(
            batch,
            every_layer="states" not in ours,
            compiled=COMPILED in ours,
            kept="kept" in ours,
        )
        rows = batch.image_of
        key_states = states[rows[:, None], batch.key_at]
        prompt = model._prompt(batch, states, rows, batch.seg_at, key_states)[:, None]
        if "logits" in ours:
            text = model.vlm.logits(states.flatten(0, 1)[batch.supervised])
            labels = batch.labels.flatten()[batch.supervised]
        else:
            text, labels = model.vlm.logits(states).flatten(0, 1), batch.labels.flatten()
        embeddings = batch.features.mask[0]
        if "decoder" in ours:
            masks, expected, _ = model.mask_head((embeddings[rows],), prompt)
        else:
            by_image = range(len(batch.sizes))
            masks = torch.cat([self._decode(embeddings[i], prompt[rows == i]) for i in by_image])
            expected = masks.new_zeros(len(masks))
        head = model.keyword_head
        assert head is not None
        return Output(text, head(key_states), head.table, masks, expected), labels

    def _states(self, batch: Batch, *, every_layer: bool, compiled: bool, kept: bool) -> Tensor:
        vlm = self.parts.model.vlm
        if (how := self.cfg.model.gradient_checkpointing) != "none":
            vlm.checkpoint_gradients(selective=kept and how == "selective")
        [tokens] = vlm.project(batch.features.language)
        vlm.base.model.language_model = self.language_models[compiled]
        out = vlm.base.model(
            input_ids=batch.packed.input_ids,
            attention_mask=batch.packed.attention_mask(tokens.dtype),
            position_ids=batch.packed.positions,
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=[tokens])},
            output_hidden_states=every_layer,
            use_cache=False,
        )
        states: Tensor = out.last_hidden_state
        return states

    def _decode(self, embedding: Tensor, prompts: Tensor) -> Tensor:
        _, dense = self.sam.prompt_encoder(points=None, boxes=None, masks=None)
        masks, _ = self.sam.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return masks[:, 0]

    def loss(self, batch: Batch, ours: Ours) -> Tensor:
        """Total loss."""
        with autocast(self.cfg, self.device):
            output, labels = self.forward(batch, ours)
            if "decoder" in ours and "logits" in ours:
                return compute_losses(output, batch, self.cfg, self.parts.model.frame).total
            text = F.cross_entropy(output.text_logits.float(), labels, ignore_index=NO_LABEL)
            bce, dice = [], []
            for n, target in enumerate(batch.masks):
                size = (target.shape[0], target.shape[1])
                logits = to_original(output.mask_logits[n : n + 1], self.parts.model.frame, size)
                bce.append(bce_loss(logits, target[None]))
                dice.append(dice_loss(logits, target[None]))
            terms = {term.name: term for term in weighted_terms(self.cfg.loss)}
            values = {
                "text": text,
                "bce": torch.cat(bce).mean(),
                "dice": torch.cat(dice).mean(),
                "keyword": named_keyword(output, batch, **terms["keyword"].options),
            }
            return weigh(values, {name: terms[name].weight for name in values}).total

    def train_step(self, ours: Ours) -> float:
        """One optimiser step; returns the loss."""
        self.parts.model.train()
        loss = self.loss(self.batch(self.groups, ours), ours)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            [p for p in self.parts.model.parameters() if p.requires_grad], self.cfg.optim.clip
        )
        self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def evaluate_theirs(self) -> None:
        """One image at a time; every mask is counted by itself."""
        self.parts.model.eval()
        for group in self.groups:
            batch = self.batch([group], frozenset())
            with autocast(self.cfg, self.device):
                output, _ = self.forward(batch, frozenset())
            for n, target in enumerate(batch.masks):
                size = (target.shape[0], target.shape[1])
                logits = output.mask_logits[n : n + 1].float()
                hard = to_original(logits, self.parts.model.frame, size)[0] > 0
                counted = target != 255
                both = (hard & (target == 1) & counted).sum()
                either = ((hard | (target == 1)) & counted).sum()
                float(both), float(either)

    def evaluate_ours(self, images: int) -> None:
        """`keyseg.train.evaluate`, with all it writes down; so many images at a time."""
        evaluation = replace(self.cfg.evaluation, images_per_batch=images)
        cfg = replace(self.cfg, evaluation=evaluation)
        for _ in evaluate(self.ours, self.groups, cfg, "teacher_forced"):
            pass


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Of one call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """What a call allocates at most, above what was allocated before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiled:
        work()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def compiled(bench: Bench, rounds: int) -> dict[str, float]:
    """What torch.compile of the language model takes, and what it saves in a step, in turns.

    The batch is always the same: rows of another length would be compiled again.
    """
    named = {"eager": frozenset(GAINS), COMPILED: frozenset({*GAINS, COMPILED})}
    eager = bench.language_models[False]
    bench.language_models[True] = torch.compile(eager)
    for _ in range(2):  # warms up
        bench.train_step(named["eager"])
    first = seconds(lambda: bench.train_step(named[COMPILED]), bench.device)
    times: dict[str, list[float]] = {name: [] for name in named}
    for turn in range(rounds + 1):
        for name, ours in named.items():
            taken = seconds(lambda o=ours: bench.train_step(o), bench.device)  # type: ignore[misc]
            if turn:
                times[name].append(taken)
    step = {name: statistics.median(taken) for name, taken in times.items()}
    ratios = [e / c for e, c in zip(times["eager"], times[COMPILED], strict=True)]
    saved = step["eager"] - step[COMPILED]
    found = {
        "compile_seconds": first - step[COMPILED],
        "eager_step_seconds": step["eager"],
        "compiled_step_seconds": step[COMPILED],
        "times": statistics.median(ratios),
        "times_lowest": min(ratios),
        "times_highest": max(ratios),
        "break_even_steps": (first - step[COMPILED]) / saved if saved > 0 else math.inf,
    }
    print(
        f"compiling took {found['compile_seconds']:.1f} s; a step {found['times']:.2f} times as "
        f"fast [{min(ratios):.2f}, {max(ratios):.2f}], {step['eager']:.2f} -> "
        f"{step[COMPILED]:.2f} s; even after {found['break_even_steps']:.0f} steps"
    )
    return found


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measured FLOP/s of a square matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * side**3 / statistics.median(seconds(lambda: a @ b, device) for _ in range(5))


def flops(work: Callable[[], Any]) -> int:
    """Of the matrix products and convolutions of a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def arrangements(cfg: RunConfig, *, alone: bool = True) -> dict[str, Ours]:
    """Theirs, each gain alone, all. Nothing is kept of layers that are not checkpointed."""
    selective = cfg.model.gradient_checkpointing == "selective"
    gains = {name: title for name, title in GAINS.items() if selective or name != "kept"}
    chosen = {THEIRS: frozenset[str]()}
    if alone:
        chosen |= {f"{title}, alone": frozenset({name}) for name, title in gains.items()}
    if selective:
        chosen["all but wide products kept"] = frozenset(gains) - {"kept"}
    return chosen | {"all": frozenset(gains)}


def check(bench: Bench, chosen: dict[str, Ours]) -> None:
    """All arrangements compute the same loss, before any weight has moved."""
    bench.parts.model.eval()  # no dropout
    with torch.no_grad():
        found = {n: float(bench.loss(bench.batch(bench.groups, o), o)) for n, o in chosen.items()}
    first = found[THEIRS]
    loose = 1e-4 if bench.cfg.model.precision == "fp32" else 0.02
    assert all(abs(v - first) <= loose * abs(first) for v in found.values()), found


def main() -> None:
    """Measure, print a table, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12, help="images a step (12)")
    parser.add_argument("--rounds", type=int, default=5, help="each round times everything once")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU (all cores)")
    parser.add_argument(
        "--compile", action="store_true", help="only torch.compile of the language model, or not"
    )
    parser.add_argument(
        "--together", action="store_true", help="leave out each gain alone (hours at 7B on a CPU)"
    )
    parser.add_argument("--memory", action="store_true", help="only peaks of memory, one pass each")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", [*PAIR, "runtime.features=false", *options.overrides]))
    cfg.evaluation.images_per_batch = options.images
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(cfg, options.images, Path(folder))
        chosen = arrangements(cfg, alone=not options.together)
        if options.memory:
            found = memory(bench, chosen)
        else:
            check(bench, chosen)
            found = (
                compiled(bench, options.rounds)
                if options.compile
                else measure(bench, chosen, options.rounds)
            )
        result = about(bench) | found
    print(json.dumps(result | {"command": " ".join(["benchmarks/step.py", *sys.argv[1:]])}))


def all_works(bench: Bench, chosen: dict[str, Ours]) -> dict[tuple[str, str], Callable[[], Any]]:
    """What is measured, by kind and name."""
    images = len(bench.groups)
    evaluating: dict[str, Callable[[], Any]] = {
        THEIRS: bench.evaluate_theirs,
        "all": partial(bench.evaluate_ours, images),
    }
    if images > 1:
        evaluating["all, one image at a time"] = partial(bench.evaluate_ours, 1)
    return {
        **{("training", n): partial(bench.train_step, ours) for n, ours in chosen.items()},
        **{("evaluation", n): work for n, work in evaluating.items()},
    }


def memory(bench: Bench, chosen: dict[str, Ours]) -> dict[str, Any]:
    """Peaks alone. The first step also allocates the optimiser's state, so it does not count."""
    bench.train_step(frozenset(GAINS))
    found: dict[str, dict[str, float]] = {"training": {}, "evaluation": {}}
    for (kind, name), work in all_works(bench, chosen).items():
        found[kind][name] = peak_bytes(work, bench.device) / 2**20
        print(f"{kind}: {name:36} {found[kind][name]:8.0f} MiB", flush=True)
    return {"peak_mib": found}


def measure(bench: Bench, chosen: dict[str, Ours], rounds: int) -> dict[str, Any]:
    """Interleaved rounds, so that a slow minute is slow for all; medians."""
    device, expressions = bench.device, EXPRESSIONS * len(bench.groups)
    works = all_works(bench, chosen)
    operations: dict[tuple[str, str], int] = {}
    peaks: dict[tuple[str, str], int] = {}
    times: dict[tuple[str, str], list[float]] = {place: [] for place in works}
    with Progress(console=Console(stderr=True)) as progress:
        passes = progress.add_task("passes", total=len(works) * (2 + rounds))
        for place, work in works.items():  # this also warms up
            operations[place] = flops(work)
            progress.advance(passes)
            gc.collect()  # the counter's hooks hold tensors in cycles
            peaks[place] = peak_bytes(work, device)
            progress.advance(passes)
        for _ in range(rounds):
            for place, work in works.items():
                times[place].append(seconds(work, device))
                progress.advance(passes)
    rate = matrix_rate(device, DTYPES[bench.cfg.model.precision])
    rows: dict[str, dict[str, dict[str, float]]] = {"training": {}, "evaluation": {}}
    for (kind, name), taken in times.items():
        median, base = statistics.median(taken), times[kind, THEIRS]
        ratios = [b / t for b, t in zip(base, taken, strict=True)]
        rows[kind][name] = {
            "expressions_per_second": expressions / median,
            "times": statistics.median(ratios),
            "times_lowest": min(ratios),
            "times_highest": max(ratios),
            "peak_mib": peaks[kind, name] / 2**20,
            "tflop": operations[kind, name] / 1e12,
        }
        rows[kind][name]["share_of_matrix_rate"] = rows[kind][name]["tflop"] * 1e12 / median / rate
    for kind, found in rows.items():
        print(f"\n{kind:36} expr/s    times  (rounds)         peak MiB   GFLOP  of matrix rate")
        for name, row in found.items():
            between = f"{row['times_lowest']:.2f}-{row['times_highest']:.2f}"
            print(
                f"{name:36} {row['expressions_per_second']:6.1f} {row['times']:8.2f}  {between:14} "
                f"{row['peak_mib']:10.0f} {row['tflop'] * 1e3:8.1f} "
                f"{row['share_of_matrix_rate']:10.0%}"
            )
    return {"rounds": rounds, "matrix_tflops": rate / 1e12, **rows}


def about(bench: Bench) -> dict[str, Any]:
    """What was measured, and on what."""
    gpu = bench.device.type == "cuda"
    chip = torch.cuda.get_device_name() if gpu else platform.processor()
    return {
        "benchmark": "step",
        "device": chip or platform.machine(),
        "threads": torch.get_num_threads(),
        "model": bench.cfg.model.name,
        "precision": bench.cfg.model.precision,
        "images": len(bench.groups),
        "expressions_an_image": EXPRESSIONS,
    }


if __name__ == "__main__":
    main()
