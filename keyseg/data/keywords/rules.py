"""A language model's words as a keyword: one form for one thing, or the reason why there is none.

The rules: lower case without punctuation; articles, numbers and possessives dropped; of a phrase
its head noun with the words that belong to its name; adjectives before it dropped; an incomplete
name completed where the text only has it whole; the singular; one name for all synonyms. Adjectives
and forms of verbs alone are rejected. What is left may still be doubtful: the reason says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from keyseg.data.keywords import words
from keyseg.data.keywords.head_noun import head_noun

MAX_WORDS = 3
"""A keyword of more words than this is cut to the noun that they end with."""


@dataclass(frozen=True)
class Normalised:
    """`keyword`: the one form; None = rejected. `reason`: why rejected or in doubt; "" = neither.

    `proposal`: what a person might put in its place; "" where nothing is near.
    """

    keyword: str | None
    reason: str = ""
    proposal: str = ""


def normalise(raw: str, query: str = "", answer: str = "") -> Normalised:
    """Bring a keyword to its one form.

    Args:
        raw: as a model, a file or a person wrote it.
        query, answer: the text that it was taken from; without any, nothing is held against it.
    """
    rest = words.split(raw)
    while rest and (words.listed(rest[0], "determiners") or rest[0].isdigit()):
        rest = rest[1:]
    rest = [w.removesuffix("'s") for w in rest]
    if not rest or all(words.listed(w, "empty", "places", "ends") for w in rest):
        return Normalised(None, "no word" if not rest else "names nothing by itself")
    text = words.split(f"{query} {answer}")
    if len(rest) == 1 and (kind := _no_noun(rest[0])):
        return Normalised(None, kind, _completed(rest[0], text))
    name = _name(rest, text)
    if all(words.listed(w, "determiners", "empty", "places", "ends") for w in name.split()):
        return Normalised(None, "names nothing by itself")
    if longer := _begins(name, query, answer):
        return Normalised(name, f'stands before "{longer.split()[-1]}" only', longer)
    return Normalised(name, _doubt(name, rest, query, text))


def _no_noun(word: str) -> str:
    if words.is_adjective(word):
        return "adjective"
    return "verb" if words.is_verb(word) else ""


def _completed(word: str, text: list[str]) -> str:
    """What follows the word in its text, if that can be a noun: "wooden" -> "deck"."""
    if whole := _whole(word, text):
        return whole
    for here, following in pairwise(text):
        usable = not words.listed(following, "ends", "determiners", "empty", "places")
        if here == word and usable and not _no_noun(following):
            return words.one_name(words.singular(following))
    return ""


def _whole(word: str, text: list[str]) -> str:
    """The name of two or more words that begins with `word` and stands in the text."""
    bare = " ".join(map(words.singular, text))
    for name in words.compounds_from(word):
        if f" {name} " in f" {bare} ":
            return words.one_name(name)
    return ""


def _name(phrase: list[str], text: list[str]) -> str:
    if any(words.listed(w, "ends") for w in phrase) and not words.is_compound(" ".join(phrase)):
        return head_noun(" ".join(phrase)) or ""
    kept = [*phrase[:-1], words.singular(phrase[-1])]
    if (whole := words.one_name(" ".join(kept))) != " ".join(kept):
        return whole
    for start in (-3, -2):
        if words.is_compound(known := " ".join(kept[start:])):
            return words.one_name(known)
    if len(kept) > MAX_WORDS:
        kept = kept[-2:]
    while len(kept) > 1 and (_no_noun(kept[0]) or words.listed(kept[0], "places", "ends")):
        kept = kept[1:]
    name = " ".join(kept)
    whole = _whole(name, text)
    return whole if whole and not _stands_alone(name, text) else words.one_name(name)


def _stands_alone(word: str, text: list[str]) -> bool:
    """Whether the text has the word anywhere without the rest of a longer name behind it."""
    bare = list(map(words.singular, text))
    pairs = zip(bare, [*bare[1:], ""], strict=True)
    return any(a == word and not words.is_compound(f"{a} {b}") for a, b in pairs)


def _begins(name: str, query: str, answer: str) -> str:
    """The longer name that a word only begins in its text: "sea" -> "sea urchin"; else ""."""
    longer = ""
    for clause in [*words.clauses(query), *words.clauses(answer)]:
        for word, following in zip(clause, [*clause[1:], ""], strict=True):
            if words.singular(word.removesuffix("'s")) != name:
                continue
            if word != name or not _may_go_on(name, following):
                return ""
            longer = longer or f"{name} {words.singular(following)}"
    return longer


def _may_go_on(name: str, following: str) -> bool:
    """Whether the next word may belong to the same name: no verb, adjective or place."""
    listed = words.listed(following, "determiners", "ends", "empty", "places")
    no_noun = _no_noun(following) or words.is_adverb(following) or words.agrees(name, following)
    return bool(following) and not (listed or no_noun)


def _doubt(name: str, phrase: list[str], query: str, text: list[str]) -> str:
    wrote = list(map(words.singular, phrase))
    if text and not set(wrote) <= {words.singular(w.removesuffix("'s")) for w in text}:
        return "not in the text"
    if words.is_abstract(name.split()[-1]):
        return "may be no object"
    if words.listed(name, "materials") and not words.listed(name, "nouns"):
        return "may be a material"
    if len(name.split()) > 1 and not words.is_compound(name):
        return "several words that are no known name"
    asked = [words.singular(w.removesuffix("'s")) for w in words.split(query)]
    stands = any(f" {form} " in f" {' '.join(asked)} " for form in (name, " ".join(wrote)))
    return "stands in the query" if stands else ""
