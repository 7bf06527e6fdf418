"""Expressions that name exactly one object of a scene, in the four styles of the benchmarks.

`short+location` after refCOCO, `short` after refCOCO+ (no location words), `long` after refCOCOg
(relations), `reasoning` after ReasonSeg (says what the object is for, never what it is called).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keyseg.data.scenes.draw import Object, Scene
from keyseg.data.scenes.world import AFFORDANCES, CATEGORIES, COLOURS, PLACES, RADIUS, RELATIONS

MARGIN = 10.0
"""Pixels by which a location or a relation must hold, and fail for every other candidate."""

LOCATED = ("{place} {thing}", "{thing} on the {place}", "{thing} at the {place}")
RELATED = (
    "the {thing} that is {relation} the {anchor}",
    "the {thing} {relation} the {anchor} in this picture",
    "a {thing} which you can see {relation} the {anchor}",
)
CLOSEST = ("the {thing} that is closest to the {anchor}",)
REASONS = (
    "which {thing} could {purpose} ?",
    "show me the {thing} that could {purpose} .",
    "someone wants a {thing} that could {purpose} ; where is it ?",
)


WITHOUT_TARGET = -1
"""Target of an expression that fits no object."""


@dataclass(frozen=True)
class Expression:
    """A query and the index of the only object it fits; part: of it, where that is asked for."""

    query: str
    target: int
    style: str
    part: str = ""


def short_location(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "left red ball": a location word picks the extreme one among those of that description."""
    for words in _descriptions(scene.objects[target], rng):
        rivals = _matching(scene, words)
        places = [p for p in PLACES if extreme(scene, target, rivals, p)]
        if len(rivals) > 1 and places:
            place = places[int(rng.integers(len(places)))]
            text = pick(LOCATED, rng).format(place=place, thing=" ".join(words))
            return Expression(text, target, "short+location")
    return None


def short(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "small red ball": attributes alone fit one object."""
    for words in _descriptions(scene.objects[target], rng):
        if _matching(scene, words) == [target]:
            return Expression(" ".join(words), target, "short")
    return None


def long(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "the ball that is to the left of the blue cup": a relation to another, named object."""
    for anchor in rng.permutation(len(scene.objects)):
        if anchor == target:
            continue
        named = short(scene, int(anchor), rng)
        if named is None:
            continue
        for words in _descriptions(scene.objects[target], rng):
            rivals = [i for i in _matching(scene, words) if i != anchor]
            relations = [r for r in RELATIONS if related(scene, target, int(anchor), rivals, r)]
            thing = " ".join(words)
            if len(rivals) > 1 and closest(scene, target, int(anchor), rivals):
                text = pick(CLOSEST, rng).format(thing=thing, anchor=named.query)
                return Expression(text, target, "long")
            if relations:
                relation = relations[int(rng.integers(len(relations)))]
                text = pick(RELATED, rng)
                text = text.format(thing=thing, relation=relation, anchor=named.query)
                return Expression(text, target, "long")
    return None


def reasoning(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "which red thing could be kicked across a yard ?": purpose, with a hint if needed."""
    return reason(scene, target, AFFORDANCES[scene.objects[target].category], rng)


def reason(
    scene: Scene, target: int, purposes: Sequence[str], rng: np.random.Generator
) -> Expression | None:
    """The same by one of the purposes of the target's category."""
    obj = scene.objects[target]
    same = [i for i, o in enumerate(scene.objects) if o.category == obj.category]
    things = []
    if same == [target]:
        things.append("thing")
    if [i for i in same if scene.objects[i].colour == obj.colour] == [target]:
        things.append(f"{obj.colour} thing")
    if [i for i in same if scene.objects[i].size == obj.size] == [target]:
        things.append(f"{obj.size} thing")
    if len(same) > 1:
        things += [f"thing on the {p}" for p in PLACES if extreme(scene, target, same, p)]
    if not things:
        return None
    purpose = pick(purposes, rng)
    text = pick(REASONS, rng).format(thing=pick(things, rng), purpose=purpose)
    return Expression(text, target, "reasoning")


Styles = dict[str, Callable[[Scene, int, np.random.Generator], Expression | None]]
"""By style: an expression for an object, None where none is possible."""

STYLES: Styles = {
    "short+location": short_location,
    "short": short,
    "long": long,
    "reasoning": reasoning,
}


def express(
    scene: Scene, styles: Sequence[str], rng: np.random.Generator, ways: Styles = STYLES
) -> list[Expression]:
    """One expression for each style, of an object chosen at random; none where none is possible."""
    candidates = []
    for style in styles:
        for target in rng.permutation(len(scene.objects)):
            expression = ways[style](scene, int(target), rng)
            if expression is not None and expression not in candidates:
                candidates.append(expression)
                break
    return candidates


def words() -> list[str]:
    """Every word that a query can hold, sorted: the vocabulary a tokenizer needs."""
    texts = [*CATEGORIES, *COLOURS, *RADIUS, *PLACES, *RELATIONS]
    texts += [phrase for phrases in AFFORDANCES.values() for phrase in phrases]
    texts += [*LOCATED, *RELATED, *CLOSEST, *REASONS, "thing on the"]
    return sorted({w for t in texts for w in re.sub(r"\{\w+\}", " ", t).split()})


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of them at random."""
    return options[int(rng.integers(len(options)))]


def _descriptions(obj: Object, rng: np.random.Generator) -> Iterator[list[str]]:
    """Ways to describe an object, from fewest words to most, ties in random order."""
    two = [[obj.colour, obj.category], [obj.size, obj.category]]
    if rng.random() < 0.5:
        two.reverse()
    yield from ([obj.category], *two, [obj.size, obj.colour, obj.category])


def _matching(scene: Scene, words: list[str]) -> list[int]:
    return [
        i
        for i, o in enumerate(scene.objects)
        if all(w in (o.category, o.colour, o.size) for w in words)
    ]


def _along(obj: Object, place: str) -> float:
    """How far an object lies towards a place, in pixels."""
    return {"left": -obj.x, "right": obj.x, "top": -obj.y, "bottom": obj.y}[place]


def extreme(scene: Scene, target: int, rivals: list[int], place: str) -> bool:
    """Whether the target lies farthest towards a place, on that side of the picture."""
    mine = _along(scene.objects[target], place)
    return all(
        mine > _along(scene.objects[i], place) + MARGIN for i in rivals if i != target
    ) and mine > (-64 if place in ("left", "top") else 64)


def holds(obj: Object, anchor: Object, relation: str) -> float:
    """Pixels by which `obj` stands in `relation` to `anchor`; negative: it does not."""
    dx, dy = obj.x - anchor.x, obj.y - anchor.y
    side = {"to the left of": -dx, "to the right of": dx, "above": -dy, "below": dy}[relation]
    across = abs(dy) if relation.startswith("to") else abs(dx)
    return side - 0.6 * across  # within about 60 degrees of the axis


def related(scene: Scene, target: int, anchor: int, rivals: list[int], relation: str) -> bool:
    """Whether the target, and none of its rivals, stands in the relation to the anchor."""
    a = scene.objects[anchor]
    fits = [holds(scene.objects[i], a, relation) for i in rivals if i != target]
    return holds(scene.objects[target], a, relation) > MARGIN / 2 and all(f < -2.0 for f in fits)


def closest(scene: Scene, target: int, anchor: int, rivals: list[int]) -> bool:
    """Whether the target is clearly nearer to the anchor than its rivals."""
    a = scene.objects[anchor]
    away = {i: np.hypot(scene.objects[i].x - a.x, scene.objects[i].y - a.y) for i in rivals}
    return all(away[target] + MARGIN < d for i, d in away.items() if i != target)
