"""What scenes are made of: categories, colours, words. All that a query can say is listed here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Polygon corners (n, 2) as x, y in units of the object's radius, centre at 0, y down."""

SIZE = 128
"""Side of a scene in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "green": (50, 155, 65),
    "blue": (50, 85, 205),
    "yellow": (230, 200, 50),
    "purple": (145, 65, 175),
    "white": (238, 238, 238),
}

RADIUS: dict[str, tuple[float, float]] = {"small": (13.5, 16.5), "big": (21.0, 26.0)}
"""Range of an object's radius in pixels."""


def ring(n: int, radius: float | list[float], start: float = -90.0) -> Points:
    """n corners around the centre; radius: of all, or in turn. start: degrees of the first."""
    angle = np.deg2rad(start + np.arange(n) * 360.0 / n)
    r = np.resize(np.asarray(radius, dtype=float), n)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def heart() -> Points:
    """The outline of a heart."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, y / 17], axis=1)


def _corners(text: str) -> Points:
    """ "x,y x,y ..." as points."""
    return np.array([pair.split(",") for pair in text.split()], dtype=float)


SHAPES: dict[str, Callable[[], Points]] = {
    "ball": lambda: ring(36, 0.95),
    "box": lambda: _corners("-.85,-.85 .85,-.85 .85,.85 -.85,.85"),
    "kite": lambda: _corners("0,-1.1 .65,-.25 0,1.1 -.65,-.25"),
    "star": lambda: ring(10, [1.1, 0.48]),
    "heart": heart,
    "house": lambda: _corners("0,-1.05 1,-.15 .75,-.15 .75,.9 -.75,.9 -.75,-.15 -1,-.15"),
    "cup": lambda: _corners("-.85,-.7 .45,-.7 .45,-.5 1,-.5 1,.25 .3,.25 .2,.85 -.6,.85"),
    "tree": lambda: _corners(
        "0,-1.1 .6,-.35 .3,-.35 .85,.45 .2,.45 .2,1 -.2,1 -.2,.45 -.85,.45 -.3,-.35 -.6,-.35"
    ),
    "traffic cone": lambda: _corners("-.14,-1 .14,-1 .5,.65 .9,.65 .9,.95 -.9,.95 -.9,.65 -.5,.65"),
    "traffic light": lambda: _corners(
        "-.42,-1.1 .42,-1.1 .42,.7 .15,.7 .15,1.1 -.15,1.1 -.15,.7 -.42,.7"
    ),
}
"""Outlines by category. Two names share their first word, so that first-token targets collide."""

CATEGORIES: tuple[str, ...] = tuple(SHAPES)

AFFORDANCES: dict[str, tuple[str, ...]] = {
    "ball": ("be kicked across a yard", "roll down a hill", "be thrown for a dog"),
    "box": ("hold old books", "be packed before moving away", "be carried by the mail"),
    "kite": ("fly high on a string", "need a windy day", "dance above the beach"),
    "star": ("shine at night", "guide a sailor", "be wished upon"),
    "heart": ("stand for love", "be drawn on a wedding card", "beat in a chest"),
    "house": ("keep a family dry", "have a kitchen inside", "be sold with a garden"),
    "cup": ("keep tea warm", "be filled with coffee", "be washed after breakfast"),
    "tree": ("grow leaves in spring", "give shade in summer", "have a nest on it"),
    "traffic cone": ("warn drivers of road work", "close a lane", "mark a hole in the street"),
    "traffic light": ("tell cars when to stop", "let people cross safely", "hang over a crossing"),
}
"""What reasoning queries say of a category without its name."""

PLACES = ("left", "right", "top", "bottom")
RELATIONS = ("to the left of", "to the right of", "above", "below")
