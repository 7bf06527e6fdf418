"""What the language model of data=bruegel is asked: what is where, and nothing that a cell asks.

Captions, questions on regions, on things, on relations, and on what things are. Where something is
is asked by its name, by its group, by how it lies among its like and by what it stands next to, and
is said in many ways ("p37 .", "sure , it is at p37 ."); the answer of a cell ("sure , [KEY] [SEG] .
the cup .") is none of them. Left to the cells are parts, two steps, the closest of several, and the
held-out: `HELD_OUT_RELATION`, the second purpose of every category, and the categories and pairs
that no scene of the pre-training holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keyseg.data.scenes.bruegel import (
    CATEGORIES,
    GROUP_OF,
    HELD_OUT_CATEGORIES,
    HELD_OUT_RELATION,
    THING,
    is_called,
)
from keyseg.data.scenes.draw import Object, Scene
from keyseg.data.scenes.purposes import KNOWN_PURPOSES
from keyseg.data.scenes.queries import extreme, holds, related
from keyseg.data.scenes.shapes import SHAPES
from keyseg.data.scenes.world import PLACES, RELATIONS, SIZE
from keyseg.tiny.arch import cell_word
from keyseg.tiny.questions import KINDS, PHRASES, QuestionAnswer

BARE_TALK = (
    "user", "assistant", ":", ".", ",", "?", ";", "sure", "it", "is", "no", "at", "to", "find",
    "what", "where", "the", "here", "does", "have",
)  # fmt: skip
"""Words that are not a world's: of these questions, and of a cell's conversation."""
_ASKED_WHERE = (
    "where is the {thing} ?", "where is the {thing} ?", "find where the {thing} is .",
    "the {thing} ?", "{thing} ?", "{thing} .",
)  # fmt: skip
_SAID_WHERE = (
    "{cell} .", "at {cell} .", "it is at {cell} .", "the {thing} is at {cell} .",
    "sure , {cell} .", "sure , at {cell} .", "sure , it is at {cell} .", "sure , here : {cell} .",
    "here it is : {cell} .", "here : the {thing} , {cell} .",
)  # fmt: skip
_SOUGHT = 6
_KNOWN_RELATIONS = tuple(r for r in RELATIONS if r != HELD_OUT_RELATION)
_KNOWN_CATEGORIES = tuple(c for c in CATEGORIES if c not in HELD_OUT_CATEGORIES)


def places(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """ "where is the red kite ?" twelve times: words meet patches, nothing else to learn.

    A phrase may fit several objects: the place is then that of one of them.
    """
    turns = []
    for _ in range(PHRASES):
        target = scene.objects[int(rng.integers(len(scene.objects)))]
        kind = KINDS[int(rng.integers(len(KINDS)))]
        said = [getattr(target, k) for k in kind]
        fits = [i + 1 for i in _fitting(scene, said)]
        question = f"where is the {' '.join(said)} ?"
        turns.append(QuestionAnswer(question, cell=_cell(target), shown=tuple(fits)))
    return turns


def facts(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """A caption, where things are, two regions, a relation, and what something is."""
    turns = []
    for turn in places(scene, rng)[: PHRASES // 4]:
        thing = turn.question.removeprefix("where is the ").removesuffix(" ?")
        turns.append(_where(thing, turn.cell, turn.shown, rng))
    turns += [turn for _ in range(_SOUGHT) for turn in _sought(scene, rng)]
    named = [f"{_cell(o)} {_name(o)}" for o in sorted(scene.objects, key=lambda o: o.x)[:3]]
    turns.append(QuestionAnswer("what is here ?", f"{' , '.join(named)} ."))
    for i in rng.permutation(len(scene.objects))[:2]:
        o = scene.objects[i]
        turns.append(QuestionAnswer(f"what is at {_cell(o)} ?", f"{_name(o)} ."))
    turns += _relation(scene, rng)
    turns.append(_what_for(rng) if rng.random() < 0.6 else _what_is(rng))
    return turns


def _where(
    thing: str,
    cell: str,
    shown: tuple[int, ...],
    rng: np.random.Generator,
    *,
    named_last: bool = True,
) -> QuestionAnswer:
    """A way to ask where a thing is, and a way to say it; nothing is said of one among several."""
    question, answer = (
        ways[int(rng.integers(len(ways)))].format(thing=thing, cell=cell)
        for ways in (_ASKED_WHERE, _SAID_WHERE)
    )
    return QuestionAnswer(question, answer if len(shown) == 1 else "", cell, shown, named_last)


def _sought(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """An object by its group, by how it lies among its like, by a relation, or by what it is for.

    Nothing where the way that is drawn fits no object.
    """
    target = int(rng.integers(len(scene.objects)))
    o = scene.objects[target]
    shown = (target + 1,)
    noun = (o.category, GROUP_OF[o.category], THING)[int(rng.integers(3))]
    said = ((noun,), (o.colour, noun), (o.size, noun))[int(rng.integers(3))]
    alike = _fitting(scene, said)
    thing = " ".join(said)
    way = int(rng.integers(4))
    if way == 0 and alike == [target]:
        return [_where(thing, _cell(o), shown, rng)]
    if way == 1 and len(alike) > 1:
        lies = [place for place in PLACES if extreme(scene, target, alike, place)]
        return [_where(f"{place} {thing}", _cell(o), shown, rng) for place in lies[:1]]
    if way == 2:
        anchor = int(rng.integers(len(scene.objects)))
        name = _name(scene.objects[anchor])
        alone = [_name(other) for other in scene.objects].count(name) == 1
        rivals = [i for i in alike if i != anchor]
        fitting = [r for r in _KNOWN_RELATIONS if related(scene, target, anchor, rivals, r)]
        if anchor != target and alone and fitting:
            thing = f"{thing} {fitting[int(rng.integers(len(fitting)))]} the {name}"
            return [_where(thing, _cell(o), shown, rng, named_last=False)]
    same = [other.category for other in scene.objects].count(o.category)
    if way == 3 and same == 1:
        purpose = KNOWN_PURPOSES[o.category]
        question = f"what could {purpose[int(rng.integers(len(purpose)))]} ?"
        return [QuestionAnswer(question, f"{_cell(o)} {o.category} .", _cell(o), shown, False)]
    return []


def _fitting(scene: Scene, said: Sequence[str]) -> list[int]:
    """The objects that all words fit: a colour, a size, and a noun."""
    return [
        i
        for i, o in enumerate(scene.objects)
        if all(w in (o.colour, o.size) or is_called(o.category, w) for w in said)
    ]


def _relation(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """What stands to the left of something, or whether it does: of two objects named in full."""
    a, b = (int(i) for i in rng.choice(len(scene.objects), 2, replace=False))
    anchor, other = scene.objects[a], scene.objects[b]
    named = [_name(o) for o in scene.objects]
    if named.count(_name(anchor)) > 1 or named.count(_name(other)) > 1:
        return []
    relation = _KNOWN_RELATIONS[int(rng.integers(len(_KNOWN_RELATIONS)))]
    there = [i for i, o in enumerate(scene.objects) if i != a and holds(o, anchor, relation) > 0]
    if len(there) == 1 and rng.random() < 0.6:
        target = scene.objects[there[0]]
        answer = f"{_cell(target)} {_name(target)} ."
        return [QuestionAnswer(f"what is {relation} the {_name(anchor)} ?", answer)]
    answer = "sure ." if holds(other, anchor, relation) > 0 else "no ."
    return [QuestionAnswer(f"is the {_name(other)} {relation} the {_name(anchor)} ?", answer)]


def _what_for(rng: np.random.Generator) -> QuestionAnswer:
    name = _KNOWN_CATEGORIES[int(rng.integers(len(_KNOWN_CATEGORIES)))]
    said = KNOWN_PURPOSES[name]
    return QuestionAnswer(f"what could {said[int(rng.integers(len(said)))]} ?", f"{name} .")


def _what_is(rng: np.random.Generator) -> QuestionAnswer:
    """The word for what a category belongs to, or a part of it."""
    name = _KNOWN_CATEGORIES[int(rng.integers(len(_KNOWN_CATEGORIES)))]
    parts = sorted({piece.part for piece in SHAPES[name] if piece.part})
    if parts and rng.random() < 0.5:
        part = parts[int(rng.integers(len(parts)))]
        return QuestionAnswer(f"what does the {name} have ?", f"{part} .")
    return QuestionAnswer(f"what is the {name} ?", f"{GROUP_OF[name]} .")


def _name(o: Object) -> str:
    return f"{o.size} {o.colour} {o.category}"


def _cell(o: Object) -> str:
    return cell_word(o.x, o.y, SIZE)
