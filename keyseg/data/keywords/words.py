"""What the keyword rules know of English: a lexicon, the lists of words.toml, and endings.

The lexicon is lemminflect's: what a word can be, and of what it is a form. The lists say what it
does not, endings help where it has no entry. No tagger and no model: rules are the same on every
machine, and a wrong word is one line to add.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("words.toml")
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_CLAUSE_END = re.compile(r"[,;:!?/()]|\.(?=\s|$)")
_SPACED_HYPHEN = re.compile(r"(?<=\w) - (\w+)")
_ADJECTIVE_ENDINGS = ("ous", "ful", "less", "able", "ible", "iest")
_ABSTRACT_ENDINGS = ("ation", "ition", "ness", "ment", "ity", "ance", "ence", "ism", "ship", "hood")


@cache
def _table(name: str) -> frozenset[str]:
    """A list of words.toml; of `compounds` the entries between commas."""
    text: str = _content()[name]
    parts = text.split(",") if name == "compounds" else text.split()
    return frozenset(" ".join(part.split()) for part in parts)


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


@cache
def _readings(word: str) -> dict[str, tuple[str, ...]]:
    """What the lexicon takes a word for: its base forms by NOUN, VERB, ADJ and ADV."""
    from lemminflect import getAllLemmas  # 0.2 s: paid by those who look words up

    readings: dict[str, tuple[str, ...]] = getAllLemmas(word)
    return readings


def split(text: str) -> list[str]:
    """Words in lower case, punctuation dropped; hyphens and apostrophes inside a word stay."""
    return _WORD.findall(text.lower().replace("’", "'"))


def clauses(text: str) -> list[list[str]]:
    """Words between commas and the like; marks that a tokenizer set apart are joined again.

    "the boy 's t - shirt , w/ a dog & a cat" -> the boy's t-shirt | with a dog and a cat.
    """
    text = text.lower().replace("’", "'")
    for written, meant in _content()["spellings"].items():
        text = text.replace(written, meant)
    text = _SPACED_HYPHEN.sub(_joined, text)
    parts = [[_possessive(word) for word in split(part)] for part in _CLAUSE_END.split(text)]
    return [words for words in parts if words]


def _joined(match: re.Match[str]) -> str:
    """A hyphen that joins two words, or a dash: "t - shirt", "man - in black"."""
    dash = listed(match[1], "ends", "determiners", "places")
    return f", {match[1]}" if dash else f"-{match[1]}"


def _possessive(word: str) -> str:
    """Possessives that are often written without their apostrophe: "mans" -> "man's"."""
    return f"{word[:-1]}'s" if listed(word, "possessives") else word


def listed(word: str, *tables: str) -> bool:
    """Whether a word stands in one of the lists."""
    return any(word in _table(name) for name in tables)


def is_adjective(word: str) -> bool:
    """An adjective and nothing else: "large", "wooden", "half-full"; not "orange" or "glass"."""
    if word in _table("nouns"):
        return False
    if word in _table("adjectives"):
        return True
    first, hyphen, last = word.rpartition("-")
    if hyphen and (listed(first, "determiners", "places") or first.isdigit()):
        return True
    if hyphen:
        return is_adjective(last) or is_verb(last)
    if known := _readings(word):
        return "ADJ" in known and "NOUN" not in known
    return len(word) > 5 and word.endswith(_ADJECTIVE_ENDINGS)


def is_verb(word: str) -> bool:
    """A verb form and nothing else: "holding", "sits", "docked"; not "building" or "ring"."""
    if word in _table("verbs"):
        return True
    if singular(word) in _table("nouns"):
        return False
    if known := _readings(word):
        gerund = word.endswith("ing") and is_form_of_verb(word)
        return gerund or ("VERB" in known and not known.keys() & {"NOUN", "ADJ"})
    return len(word) > 4 and word.endswith(("ing", "ed"))


def is_participle(word: str) -> bool:
    """A verb form that may stand before a noun as well: "covered", "drawn"; not "holding"."""
    verb = is_verb(word) or is_adjective(word)
    return verb and is_form_of_verb(word) and not word.endswith(("ing", "s"))


def is_form_of_verb(word: str) -> bool:
    """Whether a word is no base form, though it may be a noun as well: "painting", not "ring"."""
    return _readings(word).get("VERB", (word,))[0] != word


def is_adverb(word: str) -> bool:
    """An adverb and nothing else: "directly", "mostly"."""
    known = _readings(word)
    return word in _table("adverbs") or ("ADV" in known and not known.keys() & {"NOUN", "ADJ"})


def may_be_adjective(word: str) -> bool:
    """What may tell a noun's kind before it: adjectives, participles, colours, materials."""
    known = is_adjective(word) or is_verb(word) or listed(word, "materials")
    return known or "ADJ" in _readings(word)


def agrees(subject: str, word: str) -> bool:
    """Whether a word can be the verb of this noun: "boat floats", "zebras graze"."""
    base = _readings(word).get("VERB")
    if not base:
        return False
    third_person = word != base[0] and word.endswith("s")
    many = word == base[0] and is_plural(subject)
    return many or (third_person and singular(subject) == subject)


def acts(noun: str) -> bool:
    """Whether a noun is who does things in pictures, so that a verb may follow it."""
    return listed(singular(noun), "people", "agents")


def is_plural(noun: str) -> bool:
    """Whether a noun means several: "zebras", "people", "sheep"."""
    return singular(noun) != noun or noun in _table("one_or_more")


def is_abstract(word: str) -> bool:
    """By its ending probably nothing that has a place in a picture: "identification"."""
    return len(word) > 7 and word.endswith(_ABSTRACT_ENDINGS)


@cache
def singular(word: str) -> str:
    """The singular of a noun, or the noun itself: "buses" -> "bus", "scissors" stays."""
    irregular: dict[str, str] = _content()["irregular"]
    if word in irregular:
        return irregular[word]
    if word in _table("unchanged"):
        return word
    first, hyphen, last = word.rpartition("-")
    if hyphen:
        return f"{first}-{singular(last)}"
    if known := _readings(word).get("NOUN"):
        return known[0]
    return _regular_singular(word)


def _regular_singular(word: str) -> str:
    """For nouns that the lexicon does not have: "hoodies", "snowboarders"."""
    if len(word) < 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith(("sses", "xes", "ches", "shes")):
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
