"""Expressions of data=bruegel, in the four styles of `queries.py`.

An object is called by its category, by a word for several ("vehicle") or just "thing". Short
queries may ask for a part of it, long ones take one step or two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from keyseg.data.scenes import queries
from keyseg.data.scenes.bruegel import (
    CATEGORIES,
    COLOURS,
    GROUP_OF,
    GROUPS,
    PARTS,
    RADIUS,
    THING,
    is_called,
)
from keyseg.data.scenes.draw import Object, Scene
from keyseg.data.scenes.purposes import PURPOSES
from keyseg.data.scenes.queries import (
    CLOSEST,
    LOCATED,
    REASONS,
    RELATED,
    WITHOUT_TARGET,
    Expression,
    closest,
    extreme,
    pick,
    related,
)
from keyseg.data.scenes.world import PLACES, RELATIONS

_STEPS = "{anchor} that is {relation} the {other}"
_PART = "{part} of the {thing}"
_NOUNS = (0.6, 0.2, 0.2)
"""How often an object is called by its category, by its group, and "thing"."""
_PARTS, _TWO_STEPS = 0.3, 0.4
"""Share of short queries that ask for a part where there is one, and of long ones of two steps."""


def short_location(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "left red ball": a location word picks the extreme one among those of that description."""
    for words in _descriptions(scene.objects[target], rng):
        rivals = _matching(scene, words)
        places = [p for p in PLACES if extreme(scene, target, rivals, p)]
        if len(rivals) > 1 and places:
            place = places[int(rng.integers(len(places)))]
            text = pick(LOCATED, rng).format(place=place, thing=" ".join(words))
            return _of_part(scene, Expression(text, target, "short+location"), rng)
    return None


def short(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "small red ball": attributes alone fit one object."""
    words = _named(scene, target, rng)
    if words is None:
        return None
    return _of_part(scene, Expression(" ".join(words), target, "short"), rng)


def long(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "the ball that is to the left of the blue cup": a relation to another, named object.

    Of two steps, that other object is named by a relation to a third one.
    """
    steps = _two_steps if rng.random() < _TWO_STEPS else _one_step
    for anchor in rng.permutation(len(scene.objects)):
        if anchor == target:
            continue
        named = steps(scene, target, int(anchor), rng)
        text = named and _relate(scene, target, int(anchor), named, rng)
        if text:
            return Expression(text, target, "long")
    return None


def _one_step(scene: Scene, target: int, anchor: int, rng: np.random.Generator) -> str | None:
    words = _named(scene, anchor, rng)
    return None if words is None else " ".join(words)


def _two_steps(scene: Scene, target: int, anchor: int, rng: np.random.Generator) -> str | None:
    """The anchor by a relation to a third object, needed because its own words fit several."""
    for other in rng.permutation(len(scene.objects)):
        if other in (target, anchor):
            continue
        named = _named(scene, int(other), rng)
        if named is None:
            continue
        for words in _descriptions(scene.objects[anchor], rng):
            alike = [i for i in _matching(scene, words) if i != other]
            fitting = [r for r in RELATIONS if related(scene, anchor, int(other), alike, r)]
            if len(alike) > 1 and fitting:
                relation = fitting[int(rng.integers(len(fitting)))]
                other_name = " ".join(named)
                return _STEPS.format(anchor=" ".join(words), relation=relation, other=other_name)
    return None


def _relate(
    scene: Scene, target: int, anchor: int, name: str, rng: np.random.Generator
) -> str | None:
    """The target by a relation to the anchor, which is called `name`."""
    for words in _descriptions(scene.objects[target], rng):
        rivals = [i for i in _matching(scene, words) if i != anchor]
        fitting = [r for r in RELATIONS if related(scene, target, anchor, rivals, r)]
        thing = " ".join(words)
        if len(rivals) > 1 and closest(scene, target, anchor, rivals) and rng.random() < 0.5:
            return pick(CLOSEST, rng).format(thing=thing, anchor=name)
        if fitting:
            relation = fitting[int(rng.integers(len(fitting)))]
            return pick(RELATED, rng).format(thing=thing, relation=relation, anchor=name)
    return None


def reasoning(scene: Scene, target: int, rng: np.random.Generator) -> Expression | None:
    """ "which red thing could bounce on the floor ?": any wording of any of its purposes."""
    ways = PURPOSES[scene.objects[target].category]
    return queries.reason(scene, target, [said for way in ways for said in way], rng)


BRUEGEL_STYLES: queries.Styles = {
    "short+location": short_location,
    "short": short,
    "long": long,
    "reasoning": reasoning,
}


def express(scene: Scene, styles: Sequence[str], rng: np.random.Generator) -> list[Expression]:
    """`queries.express` in these ways."""
    return queries.express(scene, styles, rng, BRUEGEL_STYLES)


def fits_nothing(scene: Scene, rng: np.random.Generator) -> Expression | None:
    """ "green kite", with green things and a kite in the scene, but no green kite: no target."""
    pairs = [[a.colour, b.category] for a in scene.objects for b in scene.objects]
    made = [words for words in pairs if not _matching(scene, words)]
    if not made:
        return None
    return Expression(" ".join(made[int(rng.integers(len(made)))]), WITHOUT_TARGET, "no target")


def words() -> list[str]:
    """Every word that a query can hold, sorted: the vocabulary a tokenizer needs."""
    texts = [*CATEGORIES, *COLOURS, *RADIUS, *PLACES, *RELATIONS, *GROUPS, *PARTS, THING]
    texts += [said for ways in PURPOSES.values() for way in ways for said in way]
    texts += [*LOCATED, *RELATED, *CLOSEST, _STEPS, _PART, *REASONS, "thing on the"]
    return sorted({w for t in texts for w in re.sub(r"\{\w+\}", " ", t).split()})


def _descriptions(obj: Object, rng: np.random.Generator) -> Iterator[list[str]]:
    """Ways to describe an object, from fewest words to most, ties in random order."""
    noun = (obj.category, GROUP_OF[obj.category], THING)[int(rng.choice(3, p=_NOUNS))]
    two = [[obj.colour, noun], [obj.size, noun]]
    if rng.random() < 0.5:
        two.reverse()
    yield from ([noun], *two, [obj.size, obj.colour, noun])


def _named(scene: Scene, target: int, rng: np.random.Generator) -> list[str] | None:
    """The fewest words that fit the target alone."""
    ways = _descriptions(scene.objects[target], rng)
    return next((words for words in ways if _matching(scene, words) == [target]), None)


def _of_part(scene: Scene, whole: Expression, rng: np.random.Generator) -> Expression:
    """Perhaps a part of what the expression asks for."""
    parts = sorted(scene.objects[whole.target].parts)
    if not parts or rng.random() > _PARTS:
        return whole
    part = pick(parts, rng)
    text = _PART.format(part=part, thing=whole.query)
    return Expression(text, whole.target, whole.style, part)


def _matching(scene: Scene, words: list[str]) -> list[int]:
    return [
        i
        for i, o in enumerate(scene.objects)
        if all(w in (o.colour, o.size) or is_called(o.category, w) for w in words)
    ]
