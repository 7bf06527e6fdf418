"""How many keywords share their first token, which is all that the keyword loss sees of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Collisions:
    """How far the first tokens of keywords, which the keyword loss takes for targets, tell apart.

    keywords: how many there are. distinct: different ones. colliding: those that share their first
    token with a different keyword. majority: those with the most frequent first token, which is
    what a model that always says it would get right.
    """

    keywords: int
    distinct: int
    colliding: int
    majority: int


def ambiguous_tokens(keywords: Iterable[str], tokens: Iterable[str]) -> dict[str, list[str]]:
    """{first token: its keywords} where it has several; those with the most examples first."""
    by_token: dict[str, Counter[str]] = {}
    for keyword, token in zip(keywords, tokens, strict=True):
        by_token.setdefault(token, Counter())[keyword] += 1
    several = [
        (token, keywords_of) for token, keywords_of in by_token.items() if len(keywords_of) > 1
    ]
    several.sort(key=lambda item: -item[1].total())
    return {
        token: [keyword for keyword, _ in keywords_of.most_common()]
        for token, keywords_of in several
    }


def collisions(keywords: Iterable[str], tokens: Iterable[str]) -> Collisions:
    """Count keywords by their first tokens, given beside them."""
    words, firsts = list(keywords), list(tokens)
    ambiguous = ambiguous_tokens(words, firsts)
    return Collisions(
        keywords=len(words),
        distinct=len(set(words)),
        colliding=sum(token in ambiguous for token in firsts),
        majority=max(Counter(firsts).values(), default=0),
    )
