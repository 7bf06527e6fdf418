"""What a pre-trained LLaVA gets right on held-out scenes: what bounds every cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from keyseg.data.scenes.queries import STYLES, express
from keyseg.data.scenes.world import SIZE
from keyseg.model.packing import pack
from keyseg.tiny.arch import GRID, cell_word
from keyseg.tiny.bruegel_questions import places
from keyseg.tiny.corpus import Corpus
from keyseg.tiny.llava import Template, states

_IMAGES = 32


@torch.no_grad()
def found_share(
    llava: LlavaForConditionalGeneration,
    corpus: Corpus,
    seen: Tensor,
    talk: Template,
    images: int,
) -> dict[str, float]:
    """Share of expressions whose object lies nearest to the location word after "sure , a at".

    A word on another object counts as wrong however close it is; one object drawn at random
    would be right in "chance" of the cases. The locations alone compete.
    """
    tokenizer = talk.processor.tokenizer
    cells = sorted(talk.cells)
    names = tokenizer.convert_ids_to_tokens(cells)
    centres = np.array([(int(w[2]), int(w[1])) for w in names]) + 0.5
    hits: dict[str, list[float]] = {style: [] for style in (*STYLES, "chance")}
    for begin in range(0, images, _IMAGES):
        picks = range(begin, min(images, begin + _IMAGES))
        scenes = [corpus.scene(i) for i in picks]
        asked = [
            express(s, tuple(STYLES), np.random.default_rng([7, i]))
            for s, i in zip(scenes, picks, strict=True)
        ]
        queries = [
            [e.query if e.style == "reasoning" else f"find {e.query} ." for e in row]
            for row in asked
        ]
        tokens = [[talk.tokens(f"{q} assistant : sure , a at") for q in row] for row in queries]
        packed, starts = pack([talk.prefix] * len(scenes), tokens, tokenizer.pad_token_id)
        packed = packed.to(llava.device)
        with torch.autocast(llava.device.type, torch.bfloat16):
            features = llava.model.multi_modal_projector(seen[list(picks)].to(llava.device))
            hidden = states(llava, packed, features)
            logits = llava.lm_head(hidden)[..., cells].float()
        for row, scene in enumerate(scenes):
            spots = np.array([(o.x, o.y) for o in scene.objects])
            for e, b, t in zip(asked[row], starts[row], tokens[row], strict=True):
                said = centres[int(logits[row, b + len(t) - 1].argmax())] * SIZE / GRID
                nearest = int(np.linalg.norm(spots - said, axis=1).argmin())
                hits[e.style].append(nearest == e.target)
                hits["chance"].append(1 / len(spots))
    return {k: round(float(np.mean(v)), 4) for k, v in hits.items() if v}


@torch.no_grad()
def known(
    llava: LlavaForConditionalGeneration,
    corpus: Corpus,
    seen: Tensor,
    talk: Template,
    images: int,
) -> dict[str, float]:
    """Shares of right answers on that many scenes.

    "where": the object that lies nearest to the location word is the one asked for, for phrases
    that fit one object. A word on another object counts as wrong however close it is; one object
    drawn at random would be right in "chance" of the cases. The locations alone compete. "what":
    the first word of the category, after "what is at p37 ?", size and colour.
    """
    tokenizer = talk.processor.tokenizer
    cells = sorted(talk.cells)
    names = tokenizer.convert_ids_to_tokens(cells)
    centres = np.array([(int(w[2]), int(w[1])) for w in names]) + 0.5
    hits: dict[str, list[float]] = {"where": [], "what": [], "chance": []}
    for begin in range(0, images, _IMAGES):
        picks = range(begin, min(images, begin + _IMAGES))
        rows, answers = [], []
        for i in picks:
            scene = corpus.scene(i)
            turns = places(scene, np.random.default_rng([7, i]))
            alone = [t for t in turns if len(t.shown) == 1]
            asked = [f"{t.question} assistant :" for t in alone]
            right = [t.shown[0] - 1 for t in alone]
            for o in scene.objects:
                asked.append(
                    f"what is at {cell_word(o.x, o.y, SIZE)} ? assistant : {o.size} {o.colour}"
                )
            rows.append([talk.tokens(text) for text in asked])
            answers.append(right)
        packed, starts = pack([talk.prefix] * len(rows), rows, tokenizer.pad_token_id)
        packed = packed.to(llava.device)
        with torch.autocast(llava.device.type, torch.bfloat16):
            features = llava.model.multi_modal_projector(seen[list(picks)].to(llava.device))
            logits = llava.lm_head(states(llava, packed, features)).float()
        for row, i in enumerate(picks):
            objects = corpus.scene(i).objects
            spots = np.array([(o.x, o.y) for o in objects])
            ends = [b + len(t) - 1 for b, t in zip(starts[row], rows[row], strict=True)]
            for end, target in zip(ends, answers[row], strict=False):
                said = centres[int(logits[row, end, cells].argmax())] * SIZE / GRID
                nearest = int(np.linalg.norm(spots - said, axis=1).argmin())
                hits["where"].append(nearest == target)
                hits["chance"].append(1 / len(spots))
            for end, o in zip(ends[len(answers[row]) :], objects, strict=True):
                hits["what"].append(int(logits[row, end].argmax()) == talk.tokens(o.category)[0])
    return {k: round(float(np.mean(v)), 4) for k, v in hits.items() if v}
