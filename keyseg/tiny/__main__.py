"""`python -m keyseg.tiny`: pre-train the bundled backbones; goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from keyseg.config import resolve_path
from keyseg.data.scenes.worlds import BRUEGEL, PLAIN_WORLD
from keyseg.model.backbones.sam import FOLDER_TYPE, build_sam, load_sam
from keyseg.tiny import llava as llava_stage
from keyseg.tiny import sam as sam_stage
from keyseg.tiny import vision as vision_stage
from keyseg.tiny.arch import SAM_SIZES, make_llava, make_processor
from keyseg.tiny.corpus import Corpus, load_or_draw
from keyseg.tiny.curriculum import CURRICULA, Ask, Length
from keyseg.tiny.finding import found_share, known
from keyseg.tiny.llava import FINDER
from keyseg.tiny.stage import run_stage

_SCORES = {PLAIN_WORLD: found_share, BRUEGEL: known}
_PLACES = {
    PLAIN_WORLD: ("cache/tiny", "keyseg/tiny/weights"),
    BRUEGEL: ("cache/tiny/bruegel", "keyseg/tiny/weights/bruegel"),
}
"""Of work and results, by world."""

_ABOUT = {"scenes": "pictures to draw", "sam_start": "a SAM to begin with"}
"""Of lengths that are no steps."""


@dataclass(frozen=True)
class Scope:
    """World, folder of checkpoints and pictures, of the results; pictures to train and score on."""

    world: str
    work: Path
    out: Path
    length: Length
    held_out: int
    scored_batches: int
    device: torch.device

    def corpora(self) -> tuple[Corpus, Corpus]:
        """For training, and held out from it."""
        return (
            load_or_draw(self.work, self.length.scenes, self.world),
            load_or_draw(self.work, self.held_out, self.world, held_out=True),
        )


def pretrain_sam(scope: Scope) -> None:
    """Stage 1. Writes `out/sam` (config.json, model.safetensors in bf16, scores.json)."""
    torch.manual_seed(1)
    corpus, unseen = scope.corpora()
    start, steps = scope.length.sam_start, scope.length.sam_steps
    sam = load_sam(resolve_path(start), FOLDER_TYPE) if start else build_sam(SAM_SIZES)
    sam.to(scope.device)
    run_stage(
        "sam", scope.work, [sam], lambda rng: sam_stage.loss(sam, corpus, rng), steps=steps, lr=1e-3
    )
    folder = scope.out / "sam"
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in sam.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SAM_SIZES, indent=2) + "\n")
    sam.load_state_dict({k: v.float() for k, v in state.items()})
    batches = scope.scored_batches
    scores = {k: round(sam_stage.score(sam, unseen, k, batches), 4) for k in ("point", "box")}
    (folder / "scores.json").write_text(json.dumps(scores) + "\n")
    print(json.dumps({"stage": "sam", "held_out_iou": scores}), flush=True)


def pretrain_llava(scope: Scope, *, compiled: bool = False) -> None:
    """Stages 2 to 5. Writes `out/llava` (save_pretrained, bf16, with processor; scores.json)."""
    torch.manual_seed(2)
    corpus, unseen = scope.corpora()
    curriculum, length = CURRICULA[scope.world], scope.length
    processor = make_processor(curriculum.said, curriculum.patch)
    model = make_llava(processor)
    model.set_attn_implementation("eager")  # faster than sdpa here: bf16 with a mask on a CPU
    talk = llava_stage.Template(processor)
    tower = model.model.vision_tower
    layers = model.model.language_model.layers
    if compiled:
        for module in (tower, *(layer for i, layer in enumerate(layers) if i != FINDER)):
            module.compile(dynamic=False)  # the finder is watched: a hook would break the graph

    counts = [len(names) for names in curriculum.lists]
    heads = vision_stage.PatchHeads(model.config.vision_config.hidden_size, counts)
    if curriculum.placed:
        vision_stage.place(tower.embeddings.position_embedding)
    llava_stage.meet(model)
    model.to(scope.device)
    heads.to(scope.device)
    words = model.model.language_model.embed_tokens  # tied: also the words that patches say

    def see(rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = vision_stage.batch(corpus, processor, rng, vision_stage.IMAGES)
        return vision_stage.loss(model, heads, rows)

    seeing = [tower, model.model.multi_modal_projector, words, heads]
    run_stage("vision", scope.work, seeing, see, steps=length.vision_steps, lr=1e-3)

    # As in LLaVA, from here on the vision tower is frozen. (Trained on, it forgot categories.)
    tower.requires_grad_(False)
    seen = vision_stage.see(model, processor, corpus)

    def answer(ask: Ask, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = llava_stage.batch(corpus, seen, talk, ask, rng, llava_stage.IMAGES)
        return llava_stage.loss(model, rows, talk)

    for name, ask, count in (
        ("words", curriculum.find, length.words_steps),
        ("llava", curriculum.ask, length.llava_steps),
    ):
        run_stage(name, scope.work, [model], partial(answer, ask), steps=count, lr=1e-3)

    if length.places_steps:
        place = nn.Linear(model.config.text_config.hidden_size, 2).to(scope.device)

        def keep(rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
            rows = llava_stage.batch(
                corpus, seen, talk, curriculum.ask, rng, llava_stage.IMAGES, strays=0.3
            )
            return llava_stage.loss(model, rows, talk, place)

        run_stage("places", scope.work, [model, place], keep, steps=length.places_steps, lr=5e-4)

    folder = scope.out / "llava"
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    model.float().eval()
    seen = vision_stage.see(model, processor, unseen)
    images = min(len(unseen), 32 * scope.scored_batches)
    scores = _SCORES[scope.world](model, unseen, seen, talk, images)
    (folder / "scores.json").write_text(json.dumps(scores) + "\n")
    print(json.dumps({"stage": "llava", "right": scores}), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stages that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m keyseg.tiny", description=__doc__)
    parser.add_argument("stages", nargs="*", help="sam, llava; default: both")
    parser.add_argument(
        "--world", choices=list(CURRICULA), default=PLAIN_WORLD, help="whose scenes; default: plain"
    )
    for which, at in (("work", 0), ("out", 1)):
        said = ", ".join(f"{places[at]} for {world}" for world, places in _PLACES.items())
        parser.add_argument(f"--{which}", type=Path, help=f"default: {said}")
    for field in fields(Length):
        kind, what = (Path, "FOLDER") if field.name == "sam_start" else (int, "N")
        said = ", ".join(f"{getattr(c.length, field.name)} for {w}" for w, c in CURRICULA.items())
        option = f"--{field.name.replace('_', '-')}"
        about = _ABOUT.get(field.name, f"steps of the stage {field.name.removesuffix('_steps')}")
        parser.add_argument(option, type=kind, metavar=what, help=f"{about}; default: {said}")
    parser.add_argument("--held-out", type=int, default=500, help="pictures to draw for scoring")
    parser.add_argument("--scored-batches", type=int, default=16, help="of the held-out pictures")
    parser.add_argument("--compile", action="store_true", help="LLaVA 1.4 times faster; needs g++")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=best, help=f"default: {best}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    stages = args.stages or ["sam", "llava"]
    if unknown := set(stages) - {"sam", "llava"}:
        parser.error(f"unknown stage {', '.join(sorted(unknown))}: choose from sam, llava")
    given = {f.name: getattr(args, f.name) for f in fields(Length)}
    length = replace(
        CURRICULA[args.world].length, **{k: v for k, v in given.items() if v is not None}
    )
    work, out = (resolve_path(place) for place in _PLACES[args.world])
    scope = Scope(
        args.world,
        args.work or work,
        args.out or out,
        length,
        args.held_out,
        args.scored_batches,
        args.device,
    )
    if "sam" in stages:
        pretrain_sam(scope)
    if "llava" in stages:
        pretrain_llava(scope, compiled=args.compile)


if __name__ == "__main__":
    main()
