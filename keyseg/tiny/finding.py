"""How often the bundled LLaVA finds the right object, by style: what bounds every cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from keyseg.data.scenes.queries import STYLES, express
from keyseg.data.scenes.world import SIZE
from keyseg.model.packing import pack
from keyseg.tiny.arch import GRID
from keyseg.tiny.corpus import Corpus
from keyseg.tiny.llava import Template, states

_IMAGES = 32


@torch.no_grad()
def found(
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
