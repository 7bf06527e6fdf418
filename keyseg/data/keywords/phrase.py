"""Where the phrase that holds an expression's head begins and ends.

It begins after what only opens the sentence, and ends at the first preposition, pronoun or verb, or
where a second noun phrase begins: "there is (a red and blue kettle) the boy is holding".
"""

from __future__ import annotations

from functools import cache

from keyseg.data.keywords import words

_BE = ("is", "are", "was", "were")
_HAVE = ("has", "have", "had")
_TAKE_OBJECTS = ("wearing", "holding", "carrying")  # "wearing a cap" names no cap
_PARTICLES = ("up", "down", "out")
_OF_ONE = ("a", "an", "another", "this", "one")


def divided(clause: list[str]) -> tuple[list[str], list[str]]:
    """The phrase of a clause, and the words after it; both may be empty."""
    rest = _without_opening(clause)
    end = next((i for i in range(len(rest)) if _ends(rest, i)), len(rest))
    return rest[:end], rest[end:]


def nouns(phrase: list[str]) -> list[int]:
    """Where a phrase has words that may be its head: behind an owner ("the man's hand") only."""
    start = next((i for i in range(len(phrase), 0, -1) if phrase[i - 1].endswith("'s")), 0)
    return [i for i in range(start, len(phrase)) if _is_noun(phrase[i])]


@cache
def _is_noun(word: str) -> bool:
    no_noun = words.is_adjective(word) or words.is_verb(word) or words.is_adverb(word)
    listed = words.listed(word, "determiners", "places", "empty", "ends")
    return bool(word) and not (no_noun or listed or word.isdigit())


def _without_opening(rest: list[str]) -> list[str]:
    """Without what comes before the phrase: "there is a cat", "in the corner a cat"."""
    while rest:
        if words.listed(rest[0], "openings") and rest[0].endswith("'s"):
            rest = rest[1:]
        elif words.listed(rest[0], "openings") and rest[1:] and rest[1] in _BE:
            rest = rest[2:]
        elif rest[0] in _BE:  # "in front is a cat"
            rest = rest[1:]
        elif _is_preposition(rest):
            rest = _after_place(rest[1:])
        else:
            break
    return rest


def _is_preposition(rest: list[str]) -> bool:
    """Whether something else than the phrase begins: "near the door", "wearing a cap"."""
    word, following = rest[0], "".join(rest[1:2])
    if not words.listed(word, "ends") or words.listed(word, "determiners"):
        return word in _TAKE_OBJECTS
    if words.listed(word, "places"):  # "near the door", but "near door"
        return not following or words.listed(following, "determiners", "ends")
    return True


def _after_place(rest: list[str]) -> list[str]:
    """What follows a place: "the corner a cat" -> "a cat", "the fence is a cow" -> "a cow"."""
    start = 0
    while start < len(rest) and words.listed(rest[start], "determiners", "places", "empty"):
        start += 1
    if any(words.listed(word, "places", "empty") for word in rest[:start]):
        return rest[start:]
    for i in range(start + 1, len(rest)):
        if rest[i] in _BE:
            return rest[i + 1 :]
        if rest[i] in ("a", "an") and not words.listed(rest[i - 1], "ends"):
            return rest[i:]
    return []


def _ends(phrase: list[str], i: int) -> bool:
    """Whether the phrase that begins with `phrase[:i]` ends before word i."""
    word, before, after = phrase[i], phrase[:i], phrase[i + 1 :]
    begins_another = words.listed(word, "determiners") or word.isdigit()
    named = nouns(before)
    if before and words.is_compound(f"{before[-1]} {words.singular(word)}"):
        return False  # "garbage can"
    if word == "and":
        return not _joins_adjectives(before, after)
    if words.listed(word, "ends") and not (begins_another and not named):  # "that man"
        participle = before and not named and words.is_verb(before[-1])
        return not (participle and word in _PARTICLES)  # "a rolled up blanket"
    if not named:
        return _takes_object(before, word, begins_another)
    return begins_another or words.is_adverb(word) or _tells_of(before[named[-1]], phrase, i)


def _takes_object(before: list[str], word: str, begins_another: bool) -> bool:
    """Whether what follows is no head: "eating | a banana", "the one | eating cake"."""
    if before[-1:] == ["one"]:  # "one smiling man" has a head
        return words.is_verb(word) and (len(before) > 1 or word in _TAKE_OBJECTS)
    return begins_another and bool(before) and words.is_verb(before[-1])


def _tells_of(noun: str, phrase: list[str], i: int) -> bool:
    """Whether word i says something of the noun before it, and is no part of its name."""
    word, following = phrase[i], "".join(phrase[i + 1 : i + 2])
    if words.is_compound(f"{word} {words.singular(following)}"):
        return False
    if words.is_participle(word) and not words.listed(word, "verbs") and _is_noun(following):
        return False  # "snow covered mountain"
    if words.is_verb(word):
        return True
    if words.is_adjective(word):
        return words.acts(noun)  # "woman black dress", but "chocolate brown dog"
    clause = _begins_clause(phrase[i:]) and not words.acts(noun)
    return clause or _is_verb_of(noun, word, phrase[:i], following)


def _joins_adjectives(before: list[str], after: list[str]) -> bool:
    """Whether "and" stands between kinds of one thing: "red and blue kettle", not "cat and dog"."""
    owner = next((i for i in range(len(before), 0, -1) if before[i - 1].endswith("'s")), 0)
    own = [w for w in before[owner:] if not words.listed(w, "determiners", "places")]
    following = [w for w in after[:2] if w not in ("a", "the")]
    return all(map(words.may_be_adjective, [*own, *following[:1]]))


def _begins_clause(clause: list[str]) -> bool:
    """Whether a person begins a clause that lacks its object: "(surfboard) girl is carrying"."""
    person = words.listed(words.singular(clause[0]), "people")
    lacks = words.listed(clause[-1], "ends") or words.is_verb(clause[-1])
    return person and len(clause) > 2 and clause[1] in (*_BE, *_HAVE) and lacks


def _is_verb_of(subject: str, word: str, before: list[str], following: str) -> bool:
    """Whether a word that may be a noun as well is the verb: "a boat floats", "the cat drinks"."""
    has_object = words.listed(following, "determiners") and not words.listed(following, "ends")
    if word.endswith("ing"):  # "girl painting", but "oil painting"
        return words.is_form_of_verb(word) and (has_object or words.acts(subject))
    if not words.agrees(subject, word):
        return False
    if has_object or (any(w in _OF_ONE for w in before) and not words.is_plural(subject)):
        return True  # "a boat floats" is no plural
    object_first = words.listed(words.singular(word), "nouns", "people", "agents")  # "dog toys"
    return not object_first and (words.is_plural(subject) or words.acts(subject))
