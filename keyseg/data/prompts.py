"""Conversations: a query becomes a question, and an answer with KEY and SEG in it.

Nothing before the two tokens may depend on the target: under teacher forcing it would hand the
model what it is to find. The words that name it come after both.

An answer to a query that may have several targets holds the two tokens once for each of them, after
its name (`prompt.each`), as the data of such queries has it: there, a given answer tells how many
targets there are and what they are called, and only what the model writes itself is its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken

from keyseg.config import PromptConfig, TokensConfig
from keyseg.data.example import NAMELESS, PLACE, Example, Target
from keyseg.data.prefix import ImagePlaces, Prefix, Size
from keyseg.data.templates import IMAGE_TOKEN, check_templates, check_tokens

_CUT = "\0"
"""Where a text is tokenised piece by piece."""


def new_tokens(tokens: TokensConfig) -> list[str]:
    """The new tokens as they are written, SEG last.

    No KEY where answers hold none, and REJ only where they may reject.
    """
    rej = [tokens.rej] if tokens.no_target == "reject" else []
    key = [tokens.key] if tokens.n_keys else []
    return [*rej, *key, tokens.seg]


def add_tokens(tokenizer: Any, tokens: TokensConfig) -> list[int]:
    """Make them tokens of their own, written as they are (no lower-casing); their ids.

    Raises:
        ConfigError: they are something else in this tokenizer.
    """
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    check_tokens(tokens, tokenizer.get_vocab(), added, [*named, IMAGE_TOKEN])
    texts = new_tokens(tokens)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
    ids: list[int] = tokenizer.convert_tokens_to_ids(texts)
    return ids


def asked(prompt: PromptConfig, is_sentence: bool, *, test: bool) -> list[str]:
    """Templates of the question: those of training, or the one of val and test first."""
    forms = prompt.long if is_sentence else prompt.short
    return [prompt.test, *forms] if test and prompt.test else forms


def name_of(example: Example) -> str | None:
    """What an answer calls the target; None where neither a text nor a keyword is known."""
    return example.text or (f"the {example.keyword}" if example.keyword else None)


def name_of_target(target: Target) -> str:
    """What an answer calls one of several targets."""
    return f"the {target.name or target.keyword or NAMELESS}"


class Places(NamedTuple):
    """Where the tokens of one mask are, as indices into a turn's `ids`; None: the answer lacks it.

    No keys where none are asked for.
    """

    keys: list[int] | None
    seg: int | None


@dataclass(frozen=True)
class Turn:
    """One expression as tokens. ids: question and answer. answer: where the answer starts.
    places: of the new tokens, for each mask; once where the answer has no SEG at all. rejects:
    whether the answer holds REJ."""

    ids: list[int]
    answer: int
    places: list[Places]
    rejects: bool = False

    @property
    def keys(self) -> list[int] | None:
        """Those of the first mask."""
        return self.places[0].keys

    @property
    def seg(self) -> int | None:
        """That of the first mask."""
        return self.places[0].seg


class Conversation:
    """Templates of a prompt config, in the tokens of one tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: PromptConfig,
        tokens: TokensConfig,
        places: ImagePlaces,
    ) -> None:
        """`places`: the tokens that stand for an image, as the language side says."""
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = set(added) - {tokenizer.unk_token_id}
        names = sorted(map(str, added.values()), key=len, reverse=True)
        # in capitals, too: a tokenizer may know a name as it knows words, in lower case
        self._names = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
        self.prompt = prompt
        self.n_keys = tokens.n_keys
        self.key_first = tokens.order == "key_first"
        texts = new_tokens(tokens)
        ids = dict(zip(texts, tokenizer.convert_tokens_to_ids(texts), strict=True))
        self.seg_id = ids[tokens.seg]
        self.key_id = ids[tokens.key] if tokens.n_keys else None
        """None where answers hold no KEY."""
        self.rej = tokens.rej
        self.rej_id = ids[tokens.rej] if tokens.no_target == "reject" else None
        """None where no answer rejects."""
        self.scored = tokens.no_target == "score"
        """Whether a score beside the answer says that there is no target."""
        pair = [*[tokens.key] * tokens.n_keys, tokens.seg]
        self.pair = prompt.between.join(pair if self.key_first else [pair[-1], *pair[:-1]])
        check_templates(prompt, tokens)
        before, _, after = prompt.user.partition(IMAGE_TOKEN)
        self._head = Prefix.of(tokenizer(prompt.system + before)["input_ids"])
        self._places = places
        self._question = after + prompt.assistant

    def prefix(self, size: Size) -> Prefix:
        """Shared by all expressions of an image of that size: system text, user's turn, image."""
        return self._head.then(self._places(size))

    @property
    def names_target(self) -> bool:
        """Whether answers are to name the target."""
        return self.prompt.names_target and any("{text}" in a for a in self.prompt.answers)

    def said(self, answer: Sequence[int]) -> str:
        """What an answer says after its tokens: where it may name the target."""
        tokens = (self.key_id, self.seg_id, self.rej_id)
        new = [at for at, number in enumerate(answer) if number in tokens]
        return self.text(answer[new[-1] + 1 if new else 0 :])

    def turn(self, example: Example, rng: np.random.Generator | None = None) -> Turn:
        """Question and full answer; templates drawn with `rng`, those of a test without.

        Under test no answer rejects: it is given up to the tokens, and whether to reject is then
        the model's to say.
        """
        template = self._choose(self.prompt.answers, rng)
        rejects = self.rej_id is not None and example.no_target and rng is not None
        if not self.prompt.names_target or example.targets or rejects:
            template = template.partition("{text}")[0].rstrip()
        if rejects:
            answer = template.format(tokens=self.rej)
        elif not example.targets:
            text = name_of(example) or f"the {NAMELESS}"
            answer = template.format(tokens=self.pair, text=self._plain(text))
        elif example.answer and self.prompt.names_target:
            answer = self.pair.join(map(self._plain, example.answer.split(PLACE)))
        else:
            answer = template.format(tokens=self._each(example.targets))
        ids = self._ids(answer + self.prompt.end)
        return self.read(self.question(example, rng), ids, several=example.targets is not None)

    def _each(self, targets: Sequence[Target]) -> str:
        """The tokens of every target, after its name."""
        form = self.prompt.each if self.prompt.names_target else "{tokens}"
        names = (self._plain(name_of_target(target)) for target in targets)
        return ", ".join(form.format(tokens=self.pair, text=name) for name in names)

    def question(self, example: Example, rng: np.random.Generator | None = None) -> list[int]:
        """Tokens from the end of the image to where the answer starts."""
        forms = asked(self.prompt, example.is_sentence, test=rng is None)
        question = self._choose(forms, rng).format(query=self._plain(example.query))
        return self._ids(self._question.format(question=question).rstrip())

    def read(self, question: list[int], answer: list[int], *, several: bool = False) -> Turn:
        """A turn from tokens, such as a generated answer, in which tokens may be missing.

        `several`: every SEG is a mask, with the KEYs between it and the SEG before it (behind it,
        where SEG comes first); else the first SEG alone is one, with the answer's first KEYs.
        """
        ids = question + answer
        start = len(question)
        keys = [i for i in range(start, len(ids)) if ids[i] == self.key_id]
        segs = [i for i in range(start, len(ids)) if ids[i] == self.seg_id]
        rejects = self.rej_id is not None and self.rej_id in answer
        if not several or not segs:
            first = self._all_keys(keys[: self.n_keys])
            return Turn(ids, start, [Places(first, segs[0] if segs else None)], rejects)
        ends = [start - 1, *segs, len(ids)]
        places = []
        for n, seg in enumerate(segs, start=1):
            if self.key_first:
                own = [k for k in keys if ends[n - 1] < k < seg][-self.n_keys or len(keys) :]
            else:
                own = [k for k in keys if seg < k < ends[n + 1]][: self.n_keys]
            places.append(Places(self._all_keys(own), seg))
        return Turn(ids, start, places, rejects)

    def _all_keys(self, places: list[int]) -> list[int] | None:
        return places if len(places) == self.n_keys else None

    def keyword_ids(self, keyword: str | None) -> list[int]:
        """Sub-tokens of a keyword; none for no keyword."""
        return self._ids(self._plain(keyword)) if keyword else []

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text, new tokens included."""
        out: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return out.replace(self.prompt.end, "").strip()

    def _plain(self, text: str) -> str:
        """A text from outside, with names of tokens in it ("<image>", "[SEG]", "</s>") cut in two.

        It is what somebody wrote, and must not become an image's place or the end of an answer.
        """
        text = self._names.sub(lambda name: name[0][:1] + _CUT + name[0][1:], text)
        return _CUT.join(text) if self._added & set(self._ids(text)) else text

    def _ids(self, text: str) -> list[int]:
        pieces = [
            self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in text.split(_CUT)
        ]
        return [number for piece in pieces for number in piece]

    @staticmethod
    def _choose(forms: Sequence[str], rng: np.random.Generator | None) -> str:
        return forms[0] if rng is None else forms[int(rng.integers(len(forms)))]
