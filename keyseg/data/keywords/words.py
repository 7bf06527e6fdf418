"""What the keyword rules know of English: the lists of words.toml, and endings where lists end.

No tagger and no model: rules are the same on every machine, and a wrong word is one line to add.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("words.toml")
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_ADJECTIVE_ENDINGS = ("ous", "ful", "less", "able", "ible", "iest")
_ABSTRACT_ENDINGS = ("ation", "ition", "ness", "ment", "ity", "ance", "ence", "ism", "ship", "hood")
_PLURAL_ES = ("ses", "xes", "zes", "ches", "shes", "oes")


@cache
def _table(name: str) -> frozenset[str]:
    """A list of words.toml; of `compounds` the entries between commas."""
    text: str = _content()[name]
    parts = text.split(",") if name == "compounds" else text.split()
    return frozenset(" ".join(part.split()) for part in parts)


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def split(text: str) -> list[str]:
    """Words in lower case, punctuation dropped; hyphens and apostrophes inside a word stay."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def listed(word: str, *tables: str) -> bool:
    """Whether a word stands in one of the lists."""
    return any(word in _table(name) for name in tables)


def is_adjective(word: str) -> bool:
    """An adjective and nothing else: "large", "wooden", "famous"; not "orange" or "glass"."""
    if word in _table("nouns"):
        return False
    return word in _table("adjectives") or (len(word) > 5 and word.endswith(_ADJECTIVE_ENDINGS))


def is_verb(word: str) -> bool:
    """A verb form and nothing else: "holding", "sits"; not "building" or "ring"."""
    if singular(word) in _table("nouns"):
        return False
    return word in _table("verbs") or (len(word) > 4 and word.endswith("ing"))


def is_abstract(word: str) -> bool:
    """By its ending probably nothing that has a place in a picture: "identification"."""
    return len(word) > 7 and word.endswith(_ABSTRACT_ENDINGS)


def singular(word: str) -> str:
    """The singular of a noun, or the noun itself: "buses" -> "bus", "scissors" stays."""
    irregular: dict[str, str] = _content()["irregular"]
    if word in irregular:
        return irregular[word]
    if word in _table("unchanged") or not word.endswith("s") or word.endswith("ss"):
        return word
    if len(word) < 3:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(_PLURAL_ES):
        return word[:-2]
    return word[:-1]


def is_compound(phrase: str) -> bool:
    """A name of several words that stay together: "traffic light"."""
    return phrase in _table("compounds")


def compounds_from(word: str) -> list[str]:
    """Names of several words that begin with this one, in order of the alphabet."""
    return sorted(name for name in _table("compounds") if name.split()[0] == word)


def one_name(phrase: str) -> str:
    """The form that stands for all its synonyms: "sofa" -> "couch"."""
    synonyms: dict[str, str] = _content()["synonyms"]
    return synonyms.get(phrase, phrase)
