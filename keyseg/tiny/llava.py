"""Stage 3: LLaVA learns to answer questions about scenes, all of an image behind one prefix.

Beside the answers, every image position that shows an object is asked for the word of that
object's location: a location is then something that attention can copy from the picture, which
the answers learn in a fraction of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from keyseg.data.scenes.world import SIZE
from keyseg.model.packing import PREFIX, Packed, pack
from keyseg.tiny.arch import cell_word
from keyseg.tiny.corpus import Corpus
from keyseg.tiny.questions import questions
from keyseg.tiny.vision import naming_loss, patch_owners, patch_words

IMAGES = 16
IGNORE = -100


@dataclass(frozen=True)
class Conversation:
    """The fixed words around a question, as tokens."""

    processor: LlavaProcessor

    @cached_property
    def cells(self) -> frozenset[int]:
        """Tokens of the words for locations."""
        words = self.processor.tokenizer.get_vocab()
        return frozenset(i for w, i in words.items() if len(w) == 3 and w[1:].isdigit())

    def prefix(self) -> list[int]:
        """`<s> user : <image> x patches`, as the processor expands it."""
        image = np.zeros((1, 3, *self._side()), dtype=np.uint8)
        out = self.processor(text=["user : <image>"], images=list(image), return_tensors="pt")
        ids: list[int] = out["input_ids"][0].tolist()
        return ids

    def _side(self) -> tuple[int, int]:
        crop = self.processor.image_processor.crop_size
        return crop["height"], crop["width"]

    def turn(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Tokens of question and answer, and the next token wherever it is asked for: all through
        the answer; and where a query ends, the place that the answer will name. Words are there,
        so that what they say meets what the picture shows without a detour through the answer."""
        tokenizer = self.processor.tokenizer
        ask = tokenizer(f"{question} assistant :", add_special_tokens=False)["input_ids"]
        reply = tokenizer(f"{answer} </s>", add_special_tokens=False)["input_ids"]
        following = [IGNORE] * (len(ask) - 1) + reply + [IGNORE]
        places = [i for i in reply if i in self.cells]
        if places:
            end = (
                len(ask) - 1 - len(tokenizer("assistant :", add_special_tokens=False)["input_ids"])
            )
            following[end - 1 : end + 1] = places[:1] * 2  # the last word, and the stop after it
        return ask + reply, following


@dataclass(frozen=True)
class Rows:
    """A batch: token rows, labels (B, L) of the next token at each position, pixels
    (B, 3, side, side), and for each image position the words (B, P, V) of what it shows."""

    packed: Packed
    labels: Tensor
    pixels: Tensor
    words: Tensor


def batch(
    corpus: Corpus, talk: Conversation, prefix: list[int], rng: np.random.Generator, images: int
) -> Rows:
    """Random scenes with their questions."""
    picks = rng.integers(0, len(corpus), images)
    turns = [[talk.turn(*qa) for qa in questions(corpus.scene(int(i)), rng)] for i in picks]
    tokenizer = talk.processor.tokenizer
    packed, starts = pack(
        [prefix] * images, [[ids for ids, _ in t] for t in turns], tokenizer.pad_token_id, 64
    )
    labels = torch.full_like(packed.input_ids, IGNORE)
    for row, (parts, begins) in enumerate(zip(turns, starts, strict=True)):
        for (_, wanted), begin in zip(parts, begins, strict=True):
            labels[row, begin : begin + len(wanted)] = torch.tensor(wanted)
    vocabulary = tokenizer.get_vocab()
    first = prefix.index(vocabulary["<image>"])
    shown = []
    for row, index in enumerate(picks):
        owners = patch_owners(corpus, int(index))
        places = [IGNORE]  # of the ground
        places += [vocabulary[cell_word(o["x"], o["y"], SIZE)] for o in corpus.objects[index]]
        labels[row, first : first + len(owners)] = torch.tensor(places)[owners]
        shown.append(patch_words(corpus, int(index), vocabulary))
    pictures = torch.from_numpy(corpus.images[picks]).permute(0, 3, 1, 2)
    pixels = talk.processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
    return Rows(packed, labels, pixels, torch.stack(shown))


def loss(
    llava: LlavaForConditionalGeneration, rows: Rows, cells: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the answers and locations, and of the words at image positions."""
    packed, labels = rows.packed, rows.labels
    asked = labels != IGNORE
    with torch.autocast("cpu", torch.bfloat16):
        features = llava.model.get_image_features(rows.pixels)
        states = llava.model(
            input_ids=packed.input_ids,
            mm_encoder_outputs={"image": features},
            attention_mask=packed.attention_mask(torch.bfloat16),
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        logits = llava.lm_head(states[asked]).float()
        aligned = naming_loss(llava, torch.stack(list(features.pooler_output)), rows.words)
    wanted = labels[asked]
    pictured = packed.segments[asked] == PREFIX
    located = torch.isin(wanted, cells) & ~pictured
    weight = torch.ones_like(wanted, dtype=torch.float32)
    weight[pictured], weight[located] = 0.3, 3.0  # finding things is the hard part, and the point
    each = F.cross_entropy(logits, wanted, reduction="none")
    answers = (each * weight).sum() / weight.sum()
    right = (logits.argmax(-1) == wanted)[located].float().mean()
    facts = {"loss": float(answers.detach()), "aligned": float(aligned.detach())}
    return answers + 0.5 * aligned, {**facts, "located": float(right)}
