"""The head noun of a referring expression, by rules: "the man on the left in red" -> "man".

Refer expressions put the object first and what tells it apart around it: the head is the last noun
of the phrase that comes first.
"""

from __future__ import annotations

from keyseg.data.keywords import words
from keyseg.data.keywords.phrase import divided, nouns


def head_noun(expression: str) -> str | None:
    """The head in the singular, names of two words whole, synonyms as one; None if none is found.

    None for what names no kind of object, such as "far left" or "the one in front".
    """
    maybe = None
    for clause in words.clauses(expression):
        phrase, after = divided(clause)
        head = _head(phrase)
        if (named := _after_of(after)) and _stands_for_another(phrase, head):
            head = head_noun(" ".join(named)) or head
        if head and (after or not all(map(_may_describe, phrase))):
            return head
        maybe = maybe or head  # "orange, white and red bus" has another head than "orange, big"
        if not head and _is_object(phrase, after):
            return None
    return maybe


def _may_describe(word: str) -> bool:
    return words.may_be_adjective(word) or words.listed(word, "determiners", "places")


def _after_of(after: list[str]) -> list[str]:
    """What "of" names: "(a slice) of pizza", "(this image) is of a man"."""
    if after[:2] == ["is", "of"]:
        return after[2:]
    return after[1:] if after[:1] == ["of"] else []


def _stands_for_another(phrase: list[str], head: str | None) -> bool:
    """Whether "of" names what is meant: "a slice of", "an action shot of", "the smallest of"."""
    return not head or words.listed(head, "measures") or words.listed(phrase[-1], "empty")


def _is_object(phrase: list[str], after: list[str]) -> bool:
    """Whether a phrase without a noun is the object, not its place: "the one", "the red in front".

    Nouns after it are others'; after "on the left," they are not.
    """
    described = any(map(words.is_adjective, phrase))
    return (described and bool(after)) or not {"one", "ones"}.isdisjoint(phrase)


def _head(phrase: list[str]) -> str | None:
    indices = nouns(phrase)
    if not indices:  # "the woman's"
        owners = [word.removesuffix("'s") for word in phrase if word.endswith("'s")]
        return words.one_name(words.singular(owners[-1])) if owners else None
    if len(indices) > 1 and words.listed(words.singular(phrase[indices[-1]]), "measures"):
        indices.pop()  # "pizza slice"
    for at in (indices[-1], len(phrase) - 1):  # "garbage can" ends in no noun
        last = words.singular(phrase[at])
        for start in (at - 2, at - 1):
            name = " ".join([*phrase[max(start, 0) : at], last]).replace("-", " ")
            if words.is_compound(name):
                return words.one_name(name)
    return words.one_name(words.singular(phrase[indices[-1]]))
