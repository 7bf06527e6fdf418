"""Conversations: a query becomes a question, and an answer with KEY and SEG in it.

Nothing before the two tokens may depend on the target: under teacher forcing it would hand the
model what it is to find (paper.md section 7 item 9). The words that name it come after both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import AddedToken

from keyseg.config import PromptConfig, TokensConfig
from keyseg.data.example import NAMELESS, Example
from keyseg.data.templates import IMAGE_TOKEN, check_templates, check_tokens

_CUT = "\0"
"""Where a text is tokenised piece by piece."""


def new_tokens(tokens: TokensConfig) -> list[str]:
    """KEY and SEG as they are written; SEG alone where answers hold no KEY."""
    return [tokens.key, tokens.seg] if tokens.n_keys else [tokens.seg]


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


@dataclass(frozen=True)
class Turn:
    """One expression as tokens. Places are indices into `ids`; None: the answer lacks the token.

    ids: question and answer. answer: where the answer starts. keys, seg: the new tokens' places; no
    keys where none are asked for.
    """

    ids: list[int]
    answer: int
    keys: list[int] | None
    seg: int | None


class Conversation:
    """Templates of a prompt config, in the tokens of one tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: PromptConfig,
        tokens: TokensConfig,
        image_tokens: int,
    ) -> None:
        """`image_tokens`: image positions per picture, as the processor says."""
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = set(added) - {tokenizer.unk_token_id}
        names = sorted(map(str, added.values()), key=len, reverse=True)
        # in capitals, too: a tokenizer may know a name as it knows words, in lower case
        self._names = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
        self.prompt = prompt
        self.n_keys = tokens.n_keys
        *key_id, self.seg_id = tokenizer.convert_tokens_to_ids(new_tokens(tokens))
        self.key_id = key_id[0] if key_id else None
        """None where answers hold no KEY."""
        pair = [*[tokens.key] * tokens.n_keys, tokens.seg]
        self.pair = " ".join(pair if tokens.order == "key_first" else [pair[-1], *pair[:-1]])
        check_templates(prompt, tokens)
        before, _, after = prompt.user.partition(IMAGE_TOKEN)
        image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        head: list[int] = tokenizer(prompt.system + before)["input_ids"]
        self.prefix = head + [image_id] * image_tokens
        """Shared by all expressions of an image: system text, user's turn, image."""
        self._question = after + prompt.assistant

    @property
    def names_target(self) -> bool:
        """Whether answers are to name the target."""
        return self.prompt.names_target and any("{text}" in a for a in self.prompt.answers)

    def said(self, answer: Sequence[int]) -> str:
        """What an answer says after its tokens: where it may name the target."""
        new = [at for at, number in enumerate(answer) if number in (self.key_id, self.seg_id)]
        return self.text(answer[new[-1] + 1 if new else 0 :])

    def turn(self, example: Example, rng: np.random.Generator | None = None) -> Turn:
        """Question and full answer; templates drawn with `rng`, those of a test without."""
        template = self._choose(self.prompt.answers, rng)
        if not self.prompt.names_target:
            template = template.partition("{text}")[0].rstrip()
        text = name_of(example) or f"the {NAMELESS}"
        answer = template.format(tokens=self.pair, text=self._plain(text))
        return self.read(self.question(example, rng), self._ids(answer + self.prompt.end))

    def question(self, example: Example, rng: np.random.Generator | None = None) -> list[int]:
        """Tokens from the end of the image to where the answer starts."""
        forms = asked(self.prompt, example.is_sentence, test=rng is None)
        question = self._choose(forms, rng).format(query=self._plain(example.query))
        return self._ids(self._question.format(question=question).rstrip())

    def read(self, question: list[int], answer: list[int]) -> Turn:
        """A turn from tokens, such as a generated answer, in which tokens may be missing."""
        ids = question + answer
        start = len(question)
        keys = [i for i in range(start, len(ids)) if ids[i] == self.key_id][: self.n_keys]
        segs = [i for i in range(start, len(ids)) if ids[i] == self.seg_id]
        return Turn(
            ids, start, keys if len(keys) == self.n_keys else None, segs[0] if segs else None
        )

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
