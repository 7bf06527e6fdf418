"""Stage 3's text: questions about a scene and their answers, in the conversation of `prompt=short`.

Most ask where an expression's object is. A location is one word (prototype: with x and y as two
words no cell learnt), and the word before it, "at", comes to hold the place; "a" comes to hold the
name. KEY and SEG start from these two.
"""

from __future__ import annotations

import numpy as np

from keyseg.data.scenes.draw import Scene
from keyseg.data.scenes.queries import express
from keyseg.data.scenes.world import AFFORDANCES, CATEGORIES, SIZE
from keyseg.tiny.arch import cell_word

STYLES = ("short+location",) * 2 + ("short",) * 2 + ("long",) * 2 + ("reasoning",) * 2

ANSWERS = (
    ("sure , a {name} at {cell} .", 0.35),
    ("sure , at {cell} , a {name} .", 0.2),
    ("sure , at {cell} .", 0.2),
    ("sure , a at {cell} . the {colour} {name} .", 0.25),
)


def questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    """About ten (question, answer) pairs for one scene."""
    pairs = []
    shares = np.array([share for _, share in ANSWERS])
    for e in express(scene, STYLES, rng):
        o = scene.objects[e.target]
        question = e.query if e.style == "reasoning" else f"find {e.query} ."
        form = ANSWERS[int(rng.choice(len(ANSWERS), p=shares))][0]
        cell = cell_word(o.x, o.y, SIZE)
        pairs.append((question, form.format(name=o.category, cell=cell, colour=o.colour)))
    for i in rng.permutation(len(scene.objects))[:2]:
        o = scene.objects[int(i)]
        cell = cell_word(o.x, o.y, SIZE)
        pairs.append((f"what is at {cell} ?", f"a {o.size} {o.colour} {o.category} ."))
    name = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    purpose = AFFORDANCES[name][int(rng.integers(len(AFFORDANCES[name])))]
    pairs.append((f"what could {purpose} ?", f"a {name} ."))
    return pairs
