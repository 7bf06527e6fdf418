"""What refCOCOg costs at full size on 8 GPUs, any backbone: calculated, nothing is measured.

    python benchmarks/estimate.py                                     LLaVA-1.5-7B and SAM ViT-H
    python benchmarks/estimate.py --model qwen3_vl_4b --mask sam2_large
    python benchmarks/estimate.py --table                             every backbone, two tables
    python benchmarks/estimate.py --share 0.3 --rate 312e12           another GPU and assumption

--model, --mask: options of these groups (experiments/model, experiments/mask), with random weights
of their sizes: no file is needed. Operations and bytes are counted, not guessed: the real classes
take the trainer's step, forward, losses and backward, on tensors that have a shape and no content
(benchmarks/shapes.py), at two depths of the language model, of which each layer costs the same. How
long operations take is an assumption, --share of the device's peak
--rate, the same for all arrangements; so are tokens of a text and the memory rate that limits
generation. Memory is what tensors take: what an allocator loses and CUDA's own come on top, for
which --spare of the GPU is left. Frozen weights stand in their precision, a trained parameter takes
16 bytes (fp32, gradient, AdamW's two), the frozen encoders none: their features are stored.

The alternative is the arrangement that LISA and its successors use: both encoders in every step
(the language side's for every expression, the mask side's for every image), a sequence for each
expression, logits at all positions, layers checkpointed as a whole. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from shapes import CPU, Cost, Numbers, cost, without_content
from torch import Tensor, nn

from keyseg.config import PROJECT, RunConfig, validate
from keyseg.data.prefix import Prefix
from keyseg.model.backbones.encoders import Features, Levels
from keyseg.model.backbones.sides import DTYPES, load_mask
from keyseg.model.packing import Packed, pack
from keyseg.model.resample import to_original
from keyseg.train.batch import Batch
from keyseg.train.build import Parts, autocast, build
from keyseg.train.trainer import compute_losses

TRAIN_IMAGES, VAL_IMAGES, TEST_IMAGES = 21_899, 1_300, 2_600
"""refCOCOg, division of UMD, as published (https://github.com/lichengunc/refer)."""
VAL_EXPRESSIONS, TEST_EXPRESSIONS = 4_896, 9_602
PICTURE = (480, 640)
"""Height and width: the commonest size in COCO."""
FIXED = ("model.init=random", "optim=released")
PROMPTS = {"llava_1": "prompt=lisa", "smolvlm": "prompt=smolvlm"}
"""Of families that have one of their own; it has no part in what is counted."""
SMALL = ("tiny", "bruegel", "own")
"""Options of the groups that are no public backbone."""
LANGUAGE = "llava_1_5_7b"
"""The one that is counted unless another is named."""
DEPTH = 3
"""Layers that are built of the language model, and one less: the others cost what one costs."""


class Counted:
    """A model without content, and images with expressions of given numbers of tokens."""

    def __init__(self, options: argparse.Namespace, model: str, mask: str | None) -> None:
        chosen = [f"model={model}", *([f"mask={mask}"] if mask else [])]
        chosen.append(f"model.sizes.text.num_hidden_layers={DEPTH}")
        prompt = next((p for n, p in PROMPTS.items() if model.startswith(n)), "prompt=chatml")
        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            whole = compose("config", chosen[:-1], return_hydra_config=True)
            composed = compose("config", [*FIXED, prompt, *chosen, *options.overrides])
        self.options = options
        self.layers = int(whole.model.sizes.text.num_hidden_layers)
        """Of the language model, as its file has it."""
        self.mask_name = of_mask(str(whole.hydra.runtime.choices["model/sam"]))
        self.cfg: RunConfig = validate(composed)
        self.parts: Parts = build(self.cfg, torch.device("meta"))
        self.image = self.parts.language.places(PICTURE)
        (self.reads, self.language), (self.draws, self.mask) = (
            seen_by(e.module, e.preprocess, e.dtype) for e in self.parts.features.encoders
        )
        # A family's forward puts image tokens in their places and asks whether they fit, which a
        # tensor without content cannot say. It is no product; the layers are what counts.
        self.parts.model.vlm.forward = self.states  # type: ignore[method-assign]
        to_original(torch.zeros(1, self.grid, self.grid), self.parts.model.frame, PICTURE)

    @property
    def grid(self) -> int:
        """Side of the mask decoder's logits."""
        return 4 * int(self.mask[0].shape[-1])

    @property
    def kept_bytes(self) -> int:
        """Of the stored features of an image."""
        return kept_bytes(*self.language, *self.mask)

    def states(self, packed: Packed, language: Levels) -> Tensor:
        """Last hidden states of rows; as `Vlm.forward`."""
        vlm = self.parts.model.vlm
        tokens = vlm.project(language)[0]
        width = tokens.shape[-1]
        out: Tensor = vlm.language_model(
            inputs_embeds=tokens.new_zeros(*packed.input_ids.shape, width).requires_grad_(),
            attention_mask=packed.attention_mask(tokens.dtype),
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        return out

    @property
    def prefix(self) -> Prefix:
        """What all expressions of an image share."""
        return Prefix.of([1] * self.options.prefix_tokens).then(self.image)

    def batch(self, images: int, expressions: int, *, every_logit: bool = False) -> Batch:
        """Images of so many expressions each."""
        own = self.options.expression_tokens
        rows = [n for n in range(images) for _ in range(expressions)]
        packed, starts = pack([self.prefix] * images, [[[1] * own] * expressions] * images, 0)
        length = packed.input_ids.shape[1]
        begins = torch.tensor([start for row in starts for start in row])
        answer = torch.arange(own - self.options.answer_tokens, own)
        supervised = torch.tensor(rows)[:, None] * length + begins[:, None] + answer
        language = (torch.zeros(images * len(lv), lv.shape[1]).bfloat16() for lv in self.language)
        mask = (torch.zeros(images, *level.shape).bfloat16() for level in self.mask)
        return Batch(
            examples=[],
            owners=list(range(len(rows))),
            rows=rows,
            image_of=torch.tensor(rows),
            packed=packed,
            labels=torch.zeros(images, length, dtype=torch.long),
            supervised=torch.arange(images * length) if every_logit else supervised.flatten(),
            key_at=(begins + own - 9)[:, None],
            seg_at=begins + own - 8,
            keyword_ids=[[1]] * len(rows),
            features=Features(tuple(language), tuple(mask), [PICTURE] * images),
            masks=[torch.zeros(PICTURE, dtype=torch.uint8) for _ in rows],
            target_owners=list(range(len(rows))),
            asked=[True] * len(rows),
        )

    @cache  # noqa: B019 (one model, and it ends with the program)
    def training(
        self, images: int, expressions: int, *, every_logit: bool = False, selective: bool = True
    ) -> Cost:
        """Forward, losses and backward, layers checkpointed as a whole or selectively."""
        model, batch = self.parts.model, self.batch(images, expressions, every_logit=every_logit)
        model.vlm.checkpoint_gradients(selective=selective)
        model.train()

        def step() -> None:
            with autocast(self.cfg, CPU):
                losses = compute_losses(model(batch), batch, self.cfg, model.frame)
            losses.total.backward()

        def measured() -> Cost:
            try:
                return cost(step)
            finally:
                model.zero_grad(set_to_none=True)

        return self.whole(measured)

    @cache  # noqa: B019
    def reading(self, images: int, expressions: int, *, every_logit: bool = False) -> Cost:
        """Forward."""
        batch = self.batch(images, expressions, every_logit=every_logit)
        self.parts.model.eval()
        with torch.no_grad(), autocast(self.cfg, CPU):
            return self.whole(lambda: cost(lambda: self.parts.model(batch)))

    def whole(self, measured: Callable[[], Cost]) -> Cost:
        """A cost at the language model's full depth, from two smaller ones."""
        model = self.parts.model.vlm.language_model
        deep, layers = measured(), model.layers
        try:
            model.layers = layers[:-1]
            shallow = measured()
        finally:
            model.layers = layers
        more = self.layers - len(layers)
        return Cost(*(d + more * (d - s) for d, s in zip(deep, shallow, strict=True)))

    def sum(self, of: Callable[[nn.Parameter], float]) -> float:
        """Over all parameters, of every layer of the language model."""
        layers = self.parts.model.vlm.layers()
        rest = sum(map(of, self.parts.model.parameters()))
        return rest + (self.layers - len(layers)) * sum(map(of, layers[-1].parameters()))

    def standing(self) -> float:
        """Bytes of the weights and of AdamW's state; gradients are made in a step."""
        return self.sum(lambda p: p.numel() * (p.element_size() + 8 * p.requires_grad))

    def cache(self, questions: int) -> int:
        """Bytes of keys and values while as many answers are written."""
        text = self.parts.model.vlm.base.config.text_config
        heads = text.num_key_value_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        tokens = len(self.prefix.ids) + self.options.expression_tokens
        return questions * tokens * 2 * self.layers * heads * width * 2


def seen_by(
    module: nn.Module, preprocess: Callable[[Tensor], dict[str, Tensor]], dtype: torch.dtype
) -> tuple[float, Levels]:
    """TFLOP of an encoder for an image, and what is kept of that."""
    pixels = preprocess(torch.zeros(3, *PICTURE, dtype=torch.uint8))
    pixels = {k: p.to(dtype) if p.is_floating_point() else p for k, p in pixels.items()}
    kept: list[Levels] = []
    with torch.no_grad(), Numbers():
        found = cost(lambda: kept.append(module(**pixels)))
    return found.tflop, kept[0]


def kept_bytes(*levels: Tensor) -> int:
    """Of stored features."""
    return sum(level.numel() for level in levels) * 2


def of_mask(option: str) -> str:
    """The option of the group `mask` that is one of `model/sam`."""
    return f"sam_{option}" if option.startswith("vit_") else option


def memory(model: Counted) -> dict[str, float]:
    """Bytes: what stands, what a step takes for no image and for each more, and evaluation."""
    each, batch = model.cfg.optim.expressions_per_image, model.cfg.evaluation.images_per_batch
    one, two = (model.training(n, each).peak for n in (1, 2))
    asked = round(VAL_EXPRESSIONS / VAL_IMAGES)
    read = model.reading(batch, asked).peak
    return {
        "standing": model.standing(),
        "step": 2 * one - two,
        "image": two - one,
        "evaluation": model.standing() + max(read, model.cache(batch * asked)),
    }


def accumulation(found: dict[str, float], images: int, gpu: float) -> int | None:
    """Micro-batches of a step of so many images, as few as fit `gpu` bytes; None: not even one."""
    fit = math.floor((gpu - found["standing"] - found["step"]) / found["image"])
    return None if fit < 1 else math.ceil(images / min(fit, images))


def hours_of_a_cell(model: Counted, step: float, *, shared: bool) -> dict[str, float]:
    """Hours of a GPU; `step`: TFLOP for an image, `shared`: one row an image, stored features."""
    cfg, options = model.cfg, model.options
    share = options.share * options.rate / 1e12 * 3600  # TFLOP an hour

    def read(images: int, expressions: int) -> float:
        """TFLOP of a teacher-forced evaluation; expressions an image are rounded."""
        if shared:
            many = cfg.evaluation.images_per_batch
            return images * model.reading(many, round(expressions / images)).tflop / many
        alone = model.reading(1, 1, every_logit=True).tflop
        return expressions * (alone + model.reads) + images * model.draws

    token = model.sum(lambda p: p.numel() * 2) / options.memory  # all weights once
    batches = -(-TEST_IMAGES // cfg.evaluation.images_per_batch) if shared else TEST_EXPRESSIONS
    validations = cfg.optim.steps // cfg.optim.eval_every + 1
    hours = {
        "training": cfg.optim.steps * cfg.optim.images_per_step * step / share,
        "validation": validations * read(VAL_IMAGES, VAL_EXPRESSIONS) / share,
        # teacher-forced once; generated: the prompts and then the answers again, and writing
        "test": 3 * read(TEST_IMAGES, TEST_EXPRESSIONS) / share
        + batches * cfg.evaluation.max_new_tokens * token / 3600,
    }
    return hours | {"cell": sum(hours.values())}


def estimate(options: argparse.Namespace, name: str, mask: str | None) -> dict[str, Any]:
    """All numbers of this arrangement, by name."""
    model = Counted(options, name, mask)
    cfg, each = model.cfg, model.cfg.optim.expressions_per_image
    share = options.share * options.rate / 1e12
    with without_content(model.parts.model):
        ours = model.training(1, each).tflop
        bytes_ = memory(model)
        hours = {"ours": hours_of_a_cell(model, ours, shared=True)}
        arrangements = {"ours": ours}
        if not options.table:
            rows = model.training(each, 1, every_logit=True, selective=False).tflop
            prefix = model.training(1, each, every_logit=True, selective=False).tflop
            logits = model.training(1, each, selective=False).tflop
            theirs = rows + each * model.reads + model.draws
            arrangements |= {
                "one row an image, logits where supervised": logits,
                "one row an image, all logits": prefix,
                "a row an expression, without encoders": rows,
                "theirs": theirs,
            }
            hours["theirs"] = hours_of_a_cell(model, theirs, shared=False)
    images = TRAIN_IMAGES + VAL_IMAGES + TEST_IMAGES
    fill = images * (model.reads + model.draws) / share / 3600
    once = {"ours": fill, "theirs": 0.0}
    return {
        "model": cfg.model.name,
        "mask": model.mask_name,
        "billion": model.sum(lambda p: p.numel()) / 1e9,
        "trained_million": model.sum(lambda p: p.numel() * p.requires_grad) / 1e6,
        "image_tokens": len(model.image.ids),
        "encoders_tflop": [model.reads, model.draws],
        "image_tflop": arrangements,
        "step_tflop": {n: t * cfg.optim.images_per_step for n, t in arrangements.items()},
        "expressions_an_image": each,
        "images_a_step": cfg.optim.images_per_step,
        "steps": cfg.optim.steps,
        "tflop_a_second": share,
        "gb": {name: count / 1e9 for name, count in bytes_.items()},
        "images_an_evaluation": cfg.evaluation.images_per_batch,
        "accumulation": {
            str(gb): accumulation(bytes_, cfg.optim.images_per_step, (1 - options.spare) * gb * 1e9)
            for gb in options.gpu_gb
        },
        "feature_mb_an_image": model.kept_bytes / 1e6,
        "features_gb": images * model.kept_bytes / 1e9,
        "features_gpu_hours": fill,
        "gpu_hours_a_cell": hours,
        "hours": {
            n: (options.cells * h["cell"] + once[n]) / options.gpus for n, h in hours.items()
        },
        "cells": options.cells,
        "gpus": options.gpus,
    }


def drawing(mask: str) -> dict[str, Any]:
    """A mask side alone: what its encoder takes, what is kept, and what an image adds to a step."""
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        chosen = [*FIXED, "prompt=lisa", f"model={LANGUAGE}", f"mask={mask}"]
        cfg: RunConfig = validate(compose("config", chosen))
    side = load_mask(cfg.model, torch.device("meta"))
    dtype = DTYPES[cfg.model.precision]
    tflop, levels = seen_by(side.encoder().to(dtype), side.pixels, dtype)
    head, each = side.head().train(), cfg.optim.expressions_per_image

    def step(images: int) -> Cost:
        masks = images * each
        seen = tuple(torch.zeros(masks, *level.shape, dtype=dtype) for level in levels)
        prompts = torch.zeros(masks, 1, head.channels).requires_grad_()

        def draw() -> None:
            with autocast(cfg, CPU):
                drawn = head(seen, prompts).logits
            drawn.float().mean().backward()

        try:
            return cost(draw)
        finally:
            head.zero_grad(set_to_none=True)

    with without_content(head):
        one, two = step(1), step(2)
    images = TRAIN_IMAGES + VAL_IMAGES + TEST_IMAGES
    return {
        "mask": mask,
        "encoder_million": side.encoder_size() / 1e6,
        "encoder_tflop": tflop,
        "feature_mb_an_image": kept_bytes(*levels) / 1e6,
        "features_gb": images * kept_bytes(*levels) / 1e9,
        "image_gb": (two.peak - one.peak) / 1e9,
        "image_tflop": one.tflop,
    }


def options_of(group: str) -> list[str]:
    """The public backbones of a group."""
    files = (PROJECT / "experiments" / group).glob("*.yaml")
    return sorted(file.stem for file in files if file.stem not in SMALL)


def row(found: dict[str, Any]) -> str:
    """Of the table, as Markdown."""
    gb, parts = found["gb"], found["accumulation"]
    cells = [
        f"`{found['model']}`",
        f"`{found['mask']}`",
        f"{found['billion']:.2f}",
        f"{found['image_tokens']}",
        f"{gb['standing'] + gb['step']:.1f} + {gb['image']:.2f}",
        *("-" if count is None else str(count) for count in parts.values()),
        f"{gb['evaluation']:.0f}",
        f"{found['features_gb']:.0f}",
        f"{found['step_tflop']['ours']:.0f}",
        f"{found['gpu_hours_a_cell']['ours']['cell']:.1f}",
        f"{found['hours']['ours']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def mask_row(found: dict[str, Any]) -> str:
    """Of the second table."""
    return (
        f"| `{found['mask']}` | {found['encoder_million']:.0f} | {found['encoder_tflop']:.2f} | "
        f"{found['features_gb']:.0f} | {found['image_gb']:.2f} | {found['image_tflop']:.2f} |"
    )


def titled(first: Sequence[str], rest: Sequence[str]) -> str:
    """The head of a table: columns of words, then of numbers."""
    return f"| {' | '.join([*first, *rest])} |\n|{'---|' * len(first)}{'--:|' * len(rest)}"


def heads(options: argparse.Namespace) -> tuple[str, str]:
    """The heads of both tables."""
    fits = [f"micro-batches on {gb} GB" for gb in options.gpu_gb]
    costs = ["evaluation, GB", "features, GB", "TFLOP a step", "GPU hours a cell"]
    costs.append(f"hours of {options.cells} cells on {options.gpus} GPUs")
    sizes = ["billion parameters", "image tokens", "step, GB: + an image"]
    drawn = ["million parameters of its encoder", "TFLOP of it an image", "features, GB"]
    drawn += ["of a step: GB an image", "TFLOP an image"]
    return titled(["`model`", "`mask`"], [*sizes, *fits, *costs]), titled(["`mask`"], drawn)


def main() -> None:
    """Print the arithmetic, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=LANGUAGE, help=f"an option of the group ({LANGUAGE})")
    parser.add_argument("--mask", help="an option of the group (the model's own)")
    parser.add_argument("--table", action="store_true", help="every backbone, as Markdown")
    parser.add_argument("--rate", type=float, default=989e12, help="peak FLOP/s (H100 SXM, bf16)")
    parser.add_argument("--share", type=float, default=0.4, help="of it that is reached: assumed")
    parser.add_argument("--memory", type=float, default=3.35e12, help="bytes/s of its memory")
    parser.add_argument("--gpu-gb", type=int, nargs="+", default=[40, 80], help="memories (40 80)")
    parser.add_argument("--spare", type=float, default=0.1, help="of it that is left free (0.1)")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--cells", type=int, default=12, help="table 3: 4 variants, 3 seeds")
    parser.add_argument("--prefix-tokens", type=int, default=40, help="before the image: assumed")
    parser.add_argument("--expression-tokens", type=int, default=36, help="with its answer")
    parser.add_argument("--answer-tokens", type=int, default=12)
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.table:
        rows: dict[str, list[dict[str, Any]]] = {"language": [], "mask": []}
        first, second = heads(options)
        print(first)
        for name in options_of("model"):
            rows["language"].append(estimate(options, name, None))
            print(row(rows["language"][-1]), flush=True)
        print(f"\n{second}")
        for name in options_of("mask"):
            rows["mask"].append(drawing(name))
            print(mask_row(rows["mask"][-1]), flush=True)
        print(json.dumps({"benchmark": "estimate", "measured": False} | rows))
        return
    found = estimate(options, options.model, options.mask)
    for name, value in found.items():
        print(f"{name:24} {json.dumps(value)}")
    print(json.dumps({"benchmark": "estimate", "measured": False} | found))


if __name__ == "__main__":
    main()
