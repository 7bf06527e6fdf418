"""Stage 2: vision tower and projector learn what stands in each patch, and the words for it.

A dense, supervised warm-up, not CLIP's contrastive pre-training: it gives a tiny tower in minutes
the local features that CLIP has after hundreds of millions of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from keyseg.data.scenes.world import SIZE
from keyseg.tiny.arch import GRID, cell_word
from keyseg.tiny.corpus import Corpus

IMAGES = 32
NOTHING = 0


class PatchHeads(nn.Module):
    """Category, colour, size (0 = ground) and offset to the object's centre, for each patch."""

    def __init__(self, width: int, counts: Sequence[int]) -> None:
        """`counts`: of categories, colours and sizes."""
        super().__init__()
        self.classes = nn.ModuleList(nn.Linear(width, n + 1) for n in counts)
        self.offset = nn.Linear(width, 2)


_WAVES = np.linspace(0.5, 6, 32)
"""Half periods over the board."""
_HEIGHT = 0.3


def place(position_embedding: nn.Embedding) -> None:
    """Start the embeddings of a tower's positions as waves along the rows and columns of the board.

    Drawn at random they are a twentieth of what a patch brings, and patches were not able to name
    their place after 1,800 steps (1.5 % of them, chance is 1 %); so they name 19 % after 240.
    """
    angle = np.pi / GRID * _WAVES
    rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
    phases = [np.outer(place, angle) for place in (columns, rows)]
    waves = np.concatenate([wave(phase) for phase in phases for wave in (np.sin, np.cos)], axis=1)
    with torch.no_grad():
        width = min(waves.shape[1], position_embedding.embedding_dim)
        position_embedding.weight[1:, :width] = torch.from_numpy(_HEIGHT * waves[:, :width]).float()


def patch_owners(corpus: Corpus, index: int) -> NDArray[np.int64]:
    """Which object each patch shows (GRID * GRID,): its number, counted from 1, or 0 = ground."""
    owner, objects = corpus.owners[index], corpus.objects[index]
    edges = np.linspace(0, SIZE, GRID + 1).round().astype(int)
    area = np.zeros((len(objects) + 1, GRID, GRID), dtype=np.int64)
    for k in range(len(objects) + 1):
        rows = np.add.reduceat(owner == k, edges[:-1], axis=0, dtype=np.int64)
        area[k] = np.add.reduceat(rows, edges[:-1], axis=1)
    area[0] //= 2  # a patch that shows a third of an object shows that object
    owners: NDArray[np.int64] = area.argmax(axis=0).ravel()
    return owners


def patch_labels(corpus: Corpus, index: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes (GRID * GRID, 3) and offsets (GRID * GRID, 2) in patches, by the patch's majority."""
    objects = corpus.objects[index]
    winner = patch_owners(corpus, index)
    table = np.zeros((len(objects) + 1, 3), dtype=np.int64)
    centre = np.zeros((len(objects) + 1, 2), dtype=np.float32)
    for k, o in enumerate(objects, start=1):
        values = (o["category"], o["colour"], o["size"])
        table[k] = [names.index(v) + 1 for names, v in zip(corpus.lists, values, strict=True)]
        centre[k] = (o["x"], o["y"])
    ys, xs = np.divmod(np.arange(GRID * GRID), GRID)
    middle = (np.stack([xs, ys], axis=1) + 0.5) * SIZE / GRID
    return table[winner], ((centre[winner] - middle) * GRID / SIZE).astype(np.float32)


def patch_words(corpus: Corpus, index: int, vocabulary: dict[str, int]) -> Tensor:
    """Words for what each patch shows (GRID * GRID, V), as shares; all 0 on the ground.

    The word for the object's location is one of them: a place is then something that attention
    can copy from the picture, which the answers learn in a fraction of the steps.
    """
    objects = corpus.objects[index]
    table = torch.zeros(len(objects) + 1, len(vocabulary))
    for k, o in enumerate(objects, start=1):
        said = (
            f"{o['size']} {o['colour']} {o['category']} {cell_word(o['x'], o['y'], SIZE)}".split()
        )
        table[k, [vocabulary[w] for w in said]] = 1 / len(said)
    return table[patch_owners(corpus, index)]


@dataclass(frozen=True)
class SceneBatch:
    """A batch: pixels (B, 3, side, side); classes (B, P, 3) and offsets (B, P, 2) of
    `patch_labels`; words (B, P, V) of `patch_words`."""

    pixels: Tensor
    classes: Tensor
    offsets: Tensor
    words: Tensor

    def to(self, device: torch.device) -> SceneBatch:
        """The same batch on another device."""
        parts = (self.pixels, self.classes, self.offsets, self.words)
        return SceneBatch(*(part.to(device) for part in parts))


def batch(
    corpus: Corpus, processor: LlavaProcessor, rng: np.random.Generator, images: int
) -> SceneBatch:
    """Random scenes with what their patches show."""
    picks = rng.integers(0, len(corpus), images)
    vocabulary = processor.tokenizer.get_vocab()
    labels = [patch_labels(corpus, int(i)) for i in picks]
    classes, offsets = (torch.from_numpy(np.stack(part)) for part in zip(*labels, strict=True))
    words = torch.stack([patch_words(corpus, int(i), vocabulary) for i in picks])
    return SceneBatch(pixels_of(corpus.images[picks], processor), classes, offsets, words)


def pixels_of(images: NDArray[np.uint8], processor: LlavaProcessor) -> Tensor:
    """Scenes (B, SIZE, SIZE, 3) as the processor shows them to the tower."""
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
    pixels: Tensor = processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
    return pixels


def naming_loss(llava: LlavaForConditionalGeneration, tokens: Tensor, words: Tensor) -> Tensor:
    """Image tokens (B, P, D) say the words (B, P, V) of `patch_words` through the LM's own head.

    It aligns pictures with words before the language model sees them, as LLaVA's first stage does
    with captions: "red kite" then finds a red kite by likeness.
    """
    there = words.sum(-1) > 0
    named = llava.lm_head(llava.model.language_model.norm(tokens[there]))
    return F.cross_entropy(named.float(), words[there])


def loss(
    llava: LlavaForConditionalGeneration, heads: PatchHeads, rows: SceneBatch
) -> tuple[Tensor, dict[str, float]]:
    """Errors of the heads and of the words that image tokens say; the log leaves the latter out."""
    rows = rows.to(llava.device)
    pixels, classes, offsets, words = rows.pixels, rows.classes, rows.offsets, rows.words
    with torch.autocast(llava.device.type, torch.bfloat16):
        states = llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        states = states[:, 1:]  # without the class token, as LLaVA takes them
        guesses = [head(states) for head in heads.classes]
        offset = heads.offset(states)
        aligned = naming_loss(llava, llava.model.multi_modal_projector(states), words)
    there = classes[..., 0] != NOTHING
    total = F.smooth_l1_loss(offset.float()[there], offsets[there])
    for k, guess in enumerate(guesses):
        each = F.cross_entropy(
            guess.float().flatten(0, 1), classes[..., k].flatten(), reduction="none"
        )
        each = each.view_as(there)
        total = (
            total + each[there].mean() + 0.3 * each[~there].mean()
        )  # ground is five times as common
    right = (guesses[0].argmax(-1) == classes[..., 0])[there].float().mean()
    facts = {"loss": float(total.detach()), "aligned": float(aligned.detach())}
    return total + aligned, {**facts, "category": float(right)}


@torch.no_grad()
def see(llava: LlavaForConditionalGeneration, processor: LlavaProcessor, corpus: Corpus) -> Tensor:
    """What the tower makes of each patch of each scene (N, P, W): once, since it is frozen then."""
    seen = []
    for begin in range(0, len(corpus), IMAGES):
        pixels = pixels_of(corpus.images[begin : begin + IMAGES], processor).to(llava.device)
        with torch.autocast(llava.device.type, torch.bfloat16):
            states = llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        seen.append(states[:, 1:].to("cpu", torch.bfloat16))
    return torch.cat(seen)
