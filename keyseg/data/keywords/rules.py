"""From what a model wrote to a keyword: one form for one thing, and a reason where it is none.

The rules: lower case without punctuation; articles, numbers and possessives dropped; of a phrase
its head noun with the words that belong to its name; adjectives before it dropped; an incomplete
name completed where the text only has it whole; the singular; one name for all synonyms. Adjectives
and verbs alone are rejected. What is left may still be doubtful: the reason says why.
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

    `proposal`: what a person might put in the place of a rejected one; "" where nothing is near.
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
    found = words.split(raw)
    while found and (words.listed(found[0], "determiners") or found[0].isdigit()):
        found = found[1:]
    found = [w.removesuffix("'s") for w in found]
    if not found or all(words.listed(w, "empty", "places", "ends") for w in found):
        return Normalised(None, "no word" if not found else "names nothing by itself")
    text = words.split(f"{query} {answer}")
    if len(found) == 1 and (kind := _no_noun(found[0])):
        return Normalised(None, kind, _completed(found[0], text))
    name = _name(found, text)
    if all(words.listed(w, "determiners", "empty", "places", "ends") for w in name.split()):
        return Normalised(None, "names nothing by itself")
    return Normalised(name, _doubt(name, found, words.split(query), text))


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


def _name(found: list[str], text: list[str]) -> str:
    if any(words.listed(w, "ends") for w in found) and (head := head_noun(" ".join(found))):
        return head
    kept = [*found[:-1], words.singular(found[-1])]
    if (whole := words.one_name(" ".join(kept))) != " ".join(kept):
        return whole
    if len(kept) > MAX_WORDS:
        kept = kept[-2:]
    if words.is_compound(" ".join(kept[-2:])):
        return words.one_name(" ".join(kept[-2:]))
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


def _doubt(name: str, found: list[str], query: list[str], text: list[str]) -> str:
    wrote = list(map(words.singular, found))
    if text and not set(wrote) <= set(map(words.singular, text)):
        return "not in the text"
    if words.is_abstract(name.split()[-1]):
        return "may be no object"
    if len(name.split()) > 1 and not words.is_compound(name):
        return "several words that are no known name"
    asked = f" {' '.join(map(words.singular, query))} "
    stands = any(f" {form} " in asked for form in (name, " ".join(wrote)))
    return "stands in the query" if stands else ""
