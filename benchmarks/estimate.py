"""What refCOCOg costs at LLaVA-1.5-7B and SAM ViT-H on 8 GPUs: calculated, nothing is measured.

    python benchmarks/estimate.py
    python benchmarks/estimate.py --share 0.3 --rate 312e12      another GPU, another assumption

Floating-point operations are counted, not guessed: the real classes run at their real sizes on
torch's meta device, where a tensor has a shape and no content (torch.utils.flop_counter: matrix
products and convolutions, a multiplication and an addition each). How long they take is an
assumption, --share of the device's peak --rate, the same for both arrangements; so are tokens of a
text and the memory rate that limits generation. The alternative is the arrangement that LISA and
its successors use: both encoders in every step (CLIP for every expression, SAM for every image), a
sequence for each expression, logits at all positions, layers checkpointed as a whole. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from step import flops

from keyseg.config import PROJECT, validate
from keyseg.data.prefix import Prefix
from keyseg.model.backbones.encoders import Features, Levels
from keyseg.model.packing import Packed, pack
from keyseg.train.batch import Batch
from keyseg.train.build import Parts, build

TRAIN_IMAGES, VAL_IMAGES, TEST_IMAGES = 21_899, 1_300, 2_600
"""refCOCOg, division of UMD, as published (https://github.com/lichengunc/refer)."""
VAL_EXPRESSIONS, TEST_EXPRESSIONS = 4_896, 9_602
OVERRIDES = ("model=llava_1_5_7b", "model.init=random", "prompt=lisa", "optim=released")


def count(work: Callable[[], Any]) -> float:
    """TFLOP of a call."""
    return flops(work) / 1e12


class Counted:
    """The model on the meta device, and images with expressions of given numbers of tokens."""

    def __init__(self, options: argparse.Namespace) -> None:
        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            cfg = validate(compose("config", [*OVERRIDES, *options.overrides]))
        self.cfg, self.options = cfg, options
        self.parts: Parts = build(cfg, torch.device("meta"))
        self.clip, self.sam = (e.module for e in self.parts.features.encoders)
        sizes = cfg.model.sizes["vision"]
        self.patches = (sizes["image_size"] // sizes["patch_size"]) ** 2
        self.width = sizes["hidden_size"]
        # LLaVA's forward puts image tokens in their places and asks whether they fit, which a
        # tensor without content cannot say. It is no product; the layers are what counts.
        self.parts.model.vlm.forward = self.states  # type: ignore[method-assign]

    def states(self, packed: Packed, language: Levels) -> torch.Tensor:
        """Last hidden states of rows; as `Vlm.forward`."""
        vlm = self.parts.model.vlm
        [tokens] = vlm.project(language)
        width = tokens.shape[-1]
        out: torch.Tensor = vlm.language_model(
            inputs_embeds=tokens.new_zeros(*packed.input_ids.shape, width).requires_grad_(),
            attention_mask=packed.attention_mask(tokens.dtype),
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        return out

    def batch(self, images: int, expressions: int, *, every_logit: bool = False) -> Batch:
        """Images of so many expressions each."""
        own = self.options.expression_tokens
        prefix = [0] * (self.options.prefix_tokens + self.patches)
        prefix[-self.patches :] = [self.parts.model.vlm.base.config.image_token_id] * self.patches
        rows = [n for n in range(images) for _ in range(expressions)]
        packed, starts = pack([Prefix.of(prefix)] * images, [[[1] * own] * expressions] * images, 0)
        length = packed.input_ids.shape[1]
        begins = torch.tensor([start for row in starts for start in row])
        answer = torch.arange(own - self.options.answer_tokens, own)
        supervised = torch.tensor(rows)[:, None] * length + begins[:, None] + answer
        batch = Batch(
            examples=[],
            owners=list(range(len(rows))),
            rows=rows,
            image_of=torch.tensor(rows),
            packed=packed,
            labels=torch.zeros(images, length),
            supervised=torch.arange(images * length) if every_logit else supervised.flatten(),
            key_at=(begins + own - 9)[:, None],
            seg_at=begins + own - 8,
            keyword_ids=[],
            features=Features(
                (torch.zeros(images * self.patches, self.width),),
                (torch.zeros(images, 256, 64, 64),),
                [],
            ),
            masks=[],
            target_owners=[],
            asked=[True] * len(rows),
        )
        return batch.to("meta")

    def forward(self, batch: Batch) -> torch.Tensor:
        """The model; a number that depends on all that is trained."""
        out = self.parts.model(batch)
        parts = (out.text_logits, out.key_query, out.mask_logits)
        return sum((p.float().mean() for p in parts), torch.zeros((), device="meta"))

    def training(self, batch: Batch, *, selective: bool) -> float:
        """TFLOP forward and backward, layers checkpointed as a whole or selectively."""
        self.parts.model.vlm.checkpoint_gradients(selective=selective)
        self.parts.model.train()
        return count(lambda: self.forward(batch).backward())

    @torch.no_grad()
    def reading(self, batch: Batch) -> float:
        """TFLOP forward."""
        self.parts.model.eval()
        return count(lambda: self.forward(batch))

    def encoders(self) -> tuple[float, float]:
        """TFLOP of CLIP and of SAM's encoder for an image."""
        dtype = next(self.clip.parameters()).dtype
        side = self.cfg.model.sizes["vision"]["image_size"]

        @torch.no_grad()
        def of(module: torch.nn.Module, side: int) -> float:
            pixels = torch.zeros(1, 3, side, side, dtype=dtype, device="meta")
            return count(lambda: module(pixels))

        return of(self.clip, side), of(self.sam, self.parts.model.frame.side)


def estimate(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers, by name."""
    model = Counted(options)
    cfg, share = model.cfg, options.share * options.rate / 1e12  # TFLOP a second
    each = cfg.optim.expressions_per_image
    clip, sam = model.encoders()
    ours = model.training(model.batch(1, each), selective=True)
    rows = model.training(model.batch(each, 1, every_logit=True), selective=False)
    prefix = model.training(model.batch(1, each, every_logit=True), selective=False)
    logits = model.training(model.batch(1, each), selective=False)
    theirs = rows + each * clip + sam
    images = cfg.optim.steps * cfg.optim.images_per_step
    all_images = TRAIN_IMAGES + VAL_IMAGES + TEST_IMAGES
    fill = all_images * (clip + sam)
    validations = cfg.optim.steps // cfg.optim.eval_every + 1

    def read(images: int, expressions: int, *, shared: bool) -> float:
        """TFLOP of a teacher-forced evaluation; expressions an image are rounded."""
        if shared:
            return images * model.reading(model.batch(1, round(expressions / images)))
        alone = model.reading(model.batch(1, 1, every_logit=True))
        return expressions * (alone + clip) + images * sam

    weights = sum(p.numel() for p in model.parts.model.vlm.parameters()) * 2  # bytes in bf16
    token = weights / options.memory  # seconds: a token of a batch reads all weights once
    batches = -(-TEST_IMAGES // cfg.evaluation.images_per_batch)
    writing = {
        "ours": batches * cfg.evaluation.max_new_tokens * token,
        "theirs": TEST_EXPRESSIONS * cfg.evaluation.max_new_tokens * token,
    }
    hours = {}
    for name, shared, step in (("ours", True, ours), ("theirs", False, theirs)):
        val = read(VAL_IMAGES, VAL_EXPRESSIONS, shared=shared)
        test = read(TEST_IMAGES, TEST_EXPRESSIONS, shared=shared)
        hours[name] = {
            "training": images * step / share / 3600,
            "validation": validations * val / share / 3600,
            # teacher-forced once; generated: the prompts and then the answers again, and writing
            "test": (3 * test / share + writing[name]) / 3600,
        }
        hours[name]["cell"] = sum(hours[name].values())
    cells = options.cells
    return {
        "clip_tflop": clip,
        "sam_tflop": sam,
        "image_tflop": {
            "ours": ours,
            "one row an image, logits where supervised": logits,
            "one row an image, all logits": prefix,
            "theirs": theirs,
        },
        "step_tflop": {
            "ours": ours * cfg.optim.images_per_step,
            "theirs": theirs * cfg.optim.images_per_step,
        },
        "expressions_an_image": each,
        "images_a_step": cfg.optim.images_per_step,
        "steps": cfg.optim.steps,
        "validations": validations,
        "tflop_a_second": share,
        "feature_mb_an_image": (model.patches * model.width + 256 * 64 * 64) * 2 / 1e6,
        "features_gb": all_images * (model.patches * model.width + 256 * 64 * 64) * 2 / 1e9,
        "features_gpu_hours": fill / share / 3600,
        "gpu_hours_a_cell": hours,
        "hours": {
            "ours": (cells * hours["ours"]["cell"] + fill / share / 3600) / options.gpus,
            "theirs": cells * hours["theirs"]["cell"] / options.gpus,
        },
        "cells": cells,
        "gpus": options.gpus,
    }


def main() -> None:
    """Print the arithmetic, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=989e12, help="peak FLOP/s (H100 SXM, bf16)")
    parser.add_argument("--share", type=float, default=0.4, help="of it that is reached: assumed")
    parser.add_argument("--memory", type=float, default=3.35e12, help="bytes/s of its memory")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--cells", type=int, default=12, help="table 3: 4 variants, 3 seeds")
    parser.add_argument("--prefix-tokens", type=int, default=40, help="before the image: assumed")
    parser.add_argument("--expression-tokens", type=int, default=36, help="with its answer")
    parser.add_argument("--answer-tokens", type=int, default=12)
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    found = estimate(options)
    for name, value in found.items():
        print(f"{name:24} {json.dumps(value, default=float)}")
    print(json.dumps({"benchmark": "estimate", "measured": False} | found))


if __name__ == "__main__":
    main()
