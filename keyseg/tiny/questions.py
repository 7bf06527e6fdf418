"""What the language model is asked about a scene, in the conversation of `prompt=short`.

Most ask where an expression's object is. A location is one word (prototype: with x and y as two
words no cell learnt), and the word before it, "at", comes to hold the place; "a" comes to hold the
name. KEY and SEG start from these two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keyseg.data.scenes.draw import Scene
from keyseg.data.scenes.queries import STYLES, express
from keyseg.data.scenes.world import AFFORDANCES, CATEGORIES, SIZE
from keyseg.tiny.arch import cell_word

PHRASES = 12
KINDS = (
    *(("category",),) * 2,
    ("colour",),
    *(("colour", "category"),) * 2,
    ("size", "category"),
    ("size", "colour"),
    *(("size", "colour", "category"),) * 2,
)
"""What a phrase may say of an object, in the order of speech; twice where it is more common."""

_ANSWERS = (
    ("sure , a {name} at {cell} .", 0.3),
    ("sure , at {cell} , a {name} .", 0.15),
    ("sure , a at {cell} .", 0.3),
    ("sure , a at {cell} . the {colour} {name} .", 0.25),
)


@dataclass(frozen=True)
class QuestionAnswer:
    """A question and its answer ("" where the question alone is trained on).

    `cell` is the word for the place asked for, `shown` the objects that the question fits, counted
    from 1 as in `Corpus.owners`; both are empty where no object is asked for. `named_last`: the
    question's last word names that object, not another one or what it is for.
    """

    question: str
    answer: str = ""
    cell: str = ""
    shown: tuple[int, ...] = ()
    named_last: bool = True


def phrases(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """ "find red kite ." twelve times: words meet patches, nothing else to learn.

    A phrase may fit several objects: the place is then that of one of them.
    """
    turns = []
    for _ in range(PHRASES):
        target = scene.objects[int(rng.integers(len(scene.objects)))]
        kind = KINDS[int(rng.integers(len(KINDS)))]
        said = [getattr(target, k) for k in kind]
        fits = [i for i, o in enumerate(scene.objects, 1) if [getattr(o, k) for k in kind] == said]
        cell = cell_word(target.x, target.y, SIZE)
        turns.append(QuestionAnswer(f"find {' '.join(said)} .", cell=cell, shown=tuple(fits)))
    return turns


def questions(scene: Scene, rng: np.random.Generator) -> list[QuestionAnswer]:
    """Two expressions of each style, four phrases, a place and a purpose."""
    turns = phrases(scene, rng)[: PHRASES // 3]
    chances = np.array([share for _, share in _ANSWERS])
    for e in express(scene, (*STYLES, *STYLES), rng):
        o = scene.objects[e.target]
        question = e.query if e.style == "reasoning" else f"find {e.query} ."
        form = _ANSWERS[int(rng.choice(len(_ANSWERS), p=chances))][0]
        cell = cell_word(o.x, o.y, SIZE)
        answer = form.format(name=o.category, cell=cell, colour=o.colour)
        turns.append(QuestionAnswer(question, answer, cell, (e.target + 1,)))
    o = scene.objects[int(rng.integers(len(scene.objects)))]
    place = cell_word(o.x, o.y, SIZE)
    turns.append(QuestionAnswer(f"what is at {place} ?", f"a {o.size} {o.colour} {o.category} ."))
    name = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    purpose = AFFORDANCES[name][int(rng.integers(len(AFFORDANCES[name])))]
    turns.append(QuestionAnswer(f"what could {purpose} ?", f"a {name} ."))
    return turns
