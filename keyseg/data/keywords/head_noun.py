"""The head noun of a referring expression, by rules: "the man on the left in red" -> "man".

Refer expressions put the object first and what tells it apart around it. The phrase that holds the
head ends at the first preposition, pronoun or verb; its last noun is the head.
"""

from __future__ import annotations

from keyseg.data.keywords import words

_NOT_HEADS = ("determiners", "places", "empty")


def head_noun(expression: str) -> str | None:
    """The head in the singular, names of two words whole, synonyms as one; None if none is found.

    None for what names no kind of object, such as "far left" or "the one in front".
    """
    found = words.split(expression)
    while found and (words.listed(found[0], *_NOT_HEADS) or _ends_phrase(found, 0)):
        found = found[1:]  # "in the corner, a cat", "holding a cat"
    head = _last_noun(_phrase(found))
    if head is not None and words.listed(head, "measures") and "of" in found:
        inner = head_noun(" ".join(found[found.index("of") + 1 :]))
        head = inner or head
    return head


def _ends_phrase(found: list[str], i: int) -> bool:
    """Whether no phrase of a noun goes on at this word; "dining table" does."""
    name = f"{found[i]} {words.singular(found[i + 1])}" if i + 1 < len(found) else ""
    verb = words.is_verb(found[i]) and not words.is_compound(name)
    return verb or words.listed(found[i], "ends")


def _phrase(found: list[str]) -> list[str]:
    end = next((i for i in range(len(found)) if _ends_phrase(found, i)), len(found))
    return found[:end]


def _last_noun(phrase: list[str]) -> str | None:
    nouns = [
        w for w in phrase if not (w.isdigit() or w.endswith("'s") or words.listed(w, *_NOT_HEADS))
    ]
    while nouns and words.is_adjective(nouns[-1]):
        nouns.pop()
    if not nouns:
        return None
    last = words.singular(nouns[-1])
    if len(nouns) > 1:
        if words.is_compound(both := f"{nouns[-2]} {last}"):
            return words.one_name(both)
        if words.listed(last, "measures") and not words.is_adjective(nouns[-2]):
            return words.one_name(words.singular(nouns[-2]))  # "pizza slice"
    return words.one_name(last)
