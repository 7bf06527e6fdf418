"""What the language model of data=bruegel is asked: what is where, and nothing that a cell asks.

Captions, questions on regions, on things, on relations, and on what things are. Neither the words
around an expression ("find ...") nor the answer of a cell ("sure , [KEY] [SEG] . the cup .") occur.
No question is a referring expression: places, rivals, groups, parts, two steps and purposes are a
cell's to put together. Where something is stands at several distances from the question ("p37 .",
"it is at p37 ."). Left out on top of it: `HELD_OUT_RELATION` and the second purpose of every
category; the scenes hold no held-out categories and pairs.
"""

from __future__ import annotations

import numpy as np

from keyseg.data.scenes.bruegel import (
    CATEGORIES,
    GROUP_OF,
    HELD_OUT_CATEGORIES,
    HELD_OUT_RELATION,
    is_called,
)
from keyseg.data.scenes.draw import Object, Scene
from keyseg.data.scenes.purposes import KNOWN_PURPOSES
from keyseg.data.scenes.queries import holds
from keyseg.data.scenes.shapes import SHAPES
from keyseg.data.scenes.world import RELATIONS, SIZE
from keyseg.tiny.arch import cell_word
from keyseg.tiny.questions import KINDS, PHRASES, QuestionAnswer

BARE_TALK = (
    "user", "assistant", ":", ".", ",", "?", ";", "sure", "it", "is", "no", "at", "to", "find",
    "what", "where", "the", "here", "does", "have",
)  # fmt: skip
"""Words that are not a world's: of these questions, and of a cell's conversation."""
_SAID_WHERE = ("{cell} .", "at {cell} .", "it is at {cell} .", "{thing} is at {cell} .")
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
        fits = [
            i
            for i, o in enumerate(scene.objects, 1)
            if all(w in (o.colour, o.size) or is_called(o.category, w) for w in said)
        ]
        question = f"where is the {' '.join(said)} ?"
        turns.append(QuestionAnswer(question, cell=_cell(target), shown=tuple(fits)))
    return turns


def facts(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """A caption, four places by name, two regions, two relations, and what something is."""
    turns = []
    for turn in places(scene, rng)[: PHRASES // 3]:
        thing = turn.question.removeprefix("where is ").removesuffix(" ?")
        said = _SAID_WHERE[int(rng.integers(len(_SAID_WHERE)))].format(cell=turn.cell, thing=thing)
        answer = said if len(turn.shown) == 1 else ""
        turns.append(QuestionAnswer(turn.question, answer, turn.cell, turn.shown))
    told = [f"{_cell(o)} {_name(o)}" for o in sorted(scene.objects, key=lambda o: o.x)[:3]]
    turns.append(QuestionAnswer("what is here ?", f"{' , '.join(told)} ."))
    for i in rng.permutation(len(scene.objects))[:2]:
        o = scene.objects[i]
        turns.append(QuestionAnswer(f"what is at {_cell(o)} ?", f"{_name(o)} ."))
    turns += [turn for _ in range(2) for turn in _relation(scene, rng)]
    turns.append(_what_for(rng) if rng.random() < 0.6 else _what_is(rng))
    return turns


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
