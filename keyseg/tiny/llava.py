"""Stages 3 to 5: the language model learns to find what words say, to answer, and to hold places.

All questions about an image stand behind one prefix. Left to next-word prediction alone, words did
not come to look at the patches that show what they say (1,900 steps: "find kite ." chose a kite no
more often than chance). Two things make it happen within a few hundred steps: heads that begin as
`meet` leaves them, and a loss on where one head looks when an object is asked for.

The last stage is for what comes after: next-word prediction leaves a place only where it is said
next, and a token that is new finds little of it. There, every state of an answer is to hold the
place of what the answer is about, whatever words it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from keyseg.data.prefix import Prefix
from keyseg.data.scenes.world import SIZE
from keyseg.model.packing import Packed, pack
from keyseg.tiny.arch import cell_word
from keyseg.tiny.corpus import Corpus
from keyseg.tiny.curriculum import Ask
from keyseg.tiny.questions import QuestionAnswer
from keyseg.tiny.vision import naming_loss, patch_owners, patch_words
from keyseg.train.batch import NO_LABEL

IMAGES = 16
BRIDGE = "assistant :"
"""Between a question and its answer."""
FINDER = 3
"""The layer whose first head is shown where to look; the one after it can say what is there."""


def meet(llava: LlavaForConditionalGeneration) -> None:
    """Start one head of each layer up to the finder with equal queries and keys.

    A word then looks at patches that say the same word from the first step on. Only pairs of
    dimensions that rotary positions hardly turn over an image's tokens are set.
    """
    config = llava.config.text_config
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    slow = range(size // 2 - 18, size // 2)
    dimensions = [*slow, *(i + size // 2 for i in slow)]
    with torch.no_grad():
        for layer in llava.model.language_model.layers[: FINDER + 1]:
            attention = layer.self_attn
            attention.q_proj.weight[:size] *= 0.05
            direction = torch.randn(len(dimensions), config.hidden_size) / config.hidden_size**0.5
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[dimensions] = direction


@dataclass(frozen=True)
class Template:
    """The fixed words around a question, as tokens."""

    processor: LlavaProcessor

    @cached_property
    def cells(self) -> frozenset[int]:
        """Tokens of the words for locations."""
        words = self.processor.tokenizer.get_vocab()
        return frozenset(i for w, i in words.items() if len(w) == 3 and w[1:].isdigit())

    @cached_property
    def words(self) -> list[int]:
        """Tokens of all words that are not locations, by their numbers."""
        tokenizer = self.processor.tokenizer
        known = set(tokenizer.get_vocab().values())
        return sorted(known - self.cells - set(tokenizer.all_special_ids))

    @cached_property
    def prefix(self) -> Prefix:
        """`<s> user : <image> x patches`, as the processor expands it."""
        crop = self.processor.image_processor.crop_size
        image = np.zeros((1, 3, crop["height"], crop["width"]), dtype=np.uint8)
        out = self.processor(text=["user : <image>"], images=list(image), return_tensors="pt")
        ids: list[int] = out["input_ids"][0].tolist()
        return Prefix.of(ids)

    def tokens(self, text: str) -> list[int]:
        """Of a text amid the conversation."""
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def turn(self, turn: QuestionAnswer) -> tuple[list[int], list[int], list[int]]:
        """Tokens; the token wanted at each of them, or NO_LABEL; where the object is looked for.

        Wanted are the next word all through the answer and, where a question ends, the place that
        it asks for: the words are there, so what they say meets what the picture shows without a
        detour through the answer.
        """
        asked = self.tokens(turn.question)
        wanted = [NO_LABEL] * len(asked)
        looking = []
        if turn.cell:
            looking = [len(asked) - 1]  # the stop, and the word before it
            if turn.named_last:
                looking.insert(0, len(asked) - 2)
            for i in looking:
                wanted[i] = self.tokens(turn.cell)[0]
        if not turn.answer:
            return asked, wanted, looking
        bridge, reply = self.tokens(BRIDGE), self.tokens(f"{turn.answer} </s>")
        begin = len(asked) + len(bridge)
        looking += [begin + i - 1 for i, word in enumerate(reply) if word in self.cells]
        wanted += [NO_LABEL] * (len(bridge) - 1) + reply + [NO_LABEL]
        return asked + bridge + reply, wanted, looking


@dataclass(frozen=True)
class AnswerBatch:
    """A batch: token rows; labels (B, L), the token wanted at each position; seen (B, P, W), what
    the vision tower sees; words (B, P, V), shares of what each patch shows; places (B, L, P): the
    patches of the object that a position looks for; about (B, L, 2): centre (x, y) of the object
    that an answer is about, as shares of the picture, at its tokens and those of the `BRIDGE`
    before it; NaN elsewhere."""

    packed: Packed
    labels: Tensor
    seen: Tensor
    words: Tensor
    places: Tensor
    about: Tensor

    def to(self, device: torch.device) -> AnswerBatch:
        """The same batch on another device."""
        parts = (self.labels, self.seen, self.words, self.places, self.about)
        return AnswerBatch(self.packed.to(device), *(part.to(device) for part in parts))


def batch(
    corpus: Corpus,
    seen: Tensor,
    talk: Template,
    ask: Ask,
    rng: np.random.Generator,
    images: int,
    strays: float = 0.0,
) -> AnswerBatch:
    """Random scenes with their questions; seen (N, P, W) of all scenes, by `vision.see`.

    In half of the answers that say where something is, that share of the words, `strays`, is
    replaced by any others; what is wanted next stays.
    """
    picks = rng.integers(0, len(corpus), images)
    tokenizer = talk.processor.tokenizer
    vocabulary = tokenizer.get_vocab()
    asked = [ask(corpus.scene(int(i)), rng) for i in picks]
    turns = [[talk.turn(turn) for turn in row] for row in asked]
    packed, starts = pack(
        [talk.prefix] * images, [[t[0] for t in row] for row in turns], tokenizer.pad_token_id, 64
    )
    labels = torch.full_like(packed.input_ids, NO_LABEL)
    patches = seen.shape[1]
    first = talk.prefix.ids.index(vocabulary["<image>"])
    places = torch.zeros(*labels.shape, patches, dtype=torch.bool)
    about = torch.full((*labels.shape, 2), torch.nan)
    words, others = [], torch.tensor(talk.words)
    for row, index in enumerate(picks):
        owners = torch.from_numpy(patch_owners(corpus, int(index)))
        for turn, (_, wanted, looking), begin in zip(
            asked[row], turns[row], starts[row], strict=True
        ):
            labels[row, begin : begin + len(wanted)] = torch.tensor(wanted)
            places[row, [begin + i for i in looking]] = torch.isin(owners, torch.tensor(turn.shown))
            if not strays or not turn.answer or len(turn.shown) != 1:
                continue
            o = corpus.objects[index][turn.shown[0] - 1]
            bridge, end = begin + len(talk.tokens(turn.question)), begin + len(wanted)
            reply = bridge + len(talk.tokens(BRIDGE))
            about[row, bridge:end] = torch.tensor((o["x"] / SIZE, o["y"] / SIZE))
            if rng.random() < 0.5:
                stray = reply + np.flatnonzero(rng.random(end - reply) < strays)
                drawn = others[rng.integers(len(others), size=len(stray))]
                packed.input_ids[row, stray] = drawn
        cells = [NO_LABEL]  # of the ground
        cells += [vocabulary[cell_word(o["x"], o["y"], SIZE)] for o in corpus.objects[index]]
        labels[row, first : first + patches] = torch.tensor(cells)[owners]
        words.append(patch_words(corpus, int(index), vocabulary))
    return AnswerBatch(packed, labels, seen[picks], torch.stack(words), places, about)


def states(llava: LlavaForConditionalGeneration, packed: Packed, features: Tensor) -> Tensor:
    """Last hidden states (B, L, D) of token rows behind image tokens (B, P, D)."""
    hidden: Tensor = llava.model(
        input_ids=packed.input_ids,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=list(features))},
        attention_mask=packed.attention_mask(torch.bfloat16),
        position_ids=packed.positions,
        use_cache=False,
    ).last_hidden_state
    return hidden


def loss(
    llava: LlavaForConditionalGeneration,
    rows: AnswerBatch,
    talk: Template,
    place: nn.Module | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of answers and locations, of the words at image tokens, and of the look.

    place: reads a centre (N, 2) off states (N, D) of answers; with it, its error counts as well.
    """
    rows = rows.to(llava.device)
    asked = rows.labels != NO_LABEL
    first = talk.prefix.ids.index(llava.config.image_token_id)
    patches = slice(first, first + rows.seen.shape[1])
    with torch.autocast(llava.device.type, torch.bfloat16), _watched(llava) as looks:
        features = llava.model.multi_modal_projector(rows.seen)
        hidden = states(llava, rows.packed, features)
        logits = llava.lm_head(hidden[asked]).float()
        aligned = naming_loss(llava, features, rows.words)
    wanted = rows.labels[asked]
    at_image = torch.zeros_like(asked)
    at_image[:, patches] = True
    pictured = at_image[asked]
    located = torch.isin(wanted, torch.tensor(sorted(talk.cells), device=wanted.device))
    located &= ~pictured
    weight = torch.ones_like(wanted, dtype=torch.float32)
    weight[pictured], weight[located] = 0.3, 3.0  # finding things is the hard part, and the point
    each = F.cross_entropy(logits, wanted, reduction="none")
    answers = (each * weight).sum() / weight.sum()
    seeking = rows.places.any(-1)
    on_object = (looks[0][:, 0, :, patches].float() * rows.places).sum(-1)[seeking]
    looked = -(on_object + 1e-4).log().mean()
    facts = {
        "loss": float(answers.detach()),
        "aligned": float(aligned.detach()),
        "looked": float(on_object.detach().mean()),
        "located": float((logits.argmax(-1) == wanted)[located].float().mean()),
    }
    total = answers + 0.5 * aligned + looked
    if place is not None:
        known = ~rows.about[..., 0].isnan()
        read, centres = place(hidden[known].float()), rows.about[known]
        total = total + 5 * F.smooth_l1_loss(read, centres, beta=0.05)
        unexplained = (read.detach() - centres).square().sum()
        facts["held"] = float(1 - unexplained / (centres - centres.mean(0)).square().sum())
    return total, facts


@contextmanager
def _watched(llava: LlavaForConditionalGeneration) -> Iterator[list[Tensor]]:
    """The finder's attention (B, heads, L, L) of each pass, in a list; eager attention only."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: tuple[Tensor, Tensor]) -> None:
        seen.append(output[1])

    hook = llava.model.language_model.layers[FINDER].self_attn.register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()
