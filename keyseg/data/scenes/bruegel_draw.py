"""One scene of data=bruegel. The same generator, the same bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from keyseg.data.scenes.bruegel import (
    CATEGORIES,
    COLOURS,
    GROUP_OF,
    GROUPS,
    RADIUS,
    TAIL,
    known,
)
from keyseg.data.scenes.draw import Object, Scene, fill, finish, ground
from keyseg.data.scenes.shapes import SHAPES, Piece
from keyseg.data.scenes.world import SIZE

MIN_VISIBLE = 0.5
"""Share of an object that must stay visible behind the ones in front of it."""
_NEAR = 0.62
"""Centres are at least this share of the sum of their radii apart."""
_SMALL = 0.5
_SAME, _DECOY = 0.7, 0.6
"""Share of small objects; of scenes with several of a category, and with decoys."""

_SHARES = 1 / (TAIL + np.arange(len(CATEGORIES)))
_SHARES = _SHARES / _SHARES.sum()

_TURN, _STRETCH = 15, (0.9, 1.1)
"""Degrees by which an object may be turned, and factors by which it may be stretched."""
MIN_PART = 80
"""Pixels of a part that must be visible if a query is to ask for it."""

Mask = NDArray[np.bool_]


def draw_scene(rng: np.random.Generator, *, known_only: bool = False) -> Scene:
    """Draw 4-7 objects; most scenes have several of a category, and decoys.

    known_only: without what the backbones are not shown (`bruegel.known`).
    """
    while True:
        scene = _try(rng, known_only)
        if scene is not None:
            return scene


def _try(rng: np.random.Generator, known_only: bool) -> Scene | None:
    n = int(rng.integers(4, 8))
    kinds, paints = _choose(rng, n)
    if known_only and not all(map(known, paints, kinds)):
        return None
    sizes = ["small" if s else "big" for s in rng.random(n) < _SMALL]
    placed: list[tuple[float, float, float]] = []
    for size in sizes:
        r = float(rng.uniform(*RADIUS[size]))
        for _ in range(30):
            x, y = (float(v) for v in rng.uniform(r * 0.9, SIZE - r * 0.9, 2))
            if all(np.hypot(x - a, y - b) > _NEAR * (r + q) for a, b, q in placed):
                placed.append((x, y, r))
                break
        else:
            return None
    order = rng.permutation(n)  # back to front
    shapes = [_shape(kinds[i], placed[i], rng) for i in order]
    full = [np.logical_or.reduce([fill(p.outline) for p in pieces]) for pieces in shapes]
    hidden = np.zeros((SIZE, SIZE), dtype=bool)
    objects = []
    for k in reversed(range(n)):
        visible = full[k] & ~hidden
        if visible.sum() < MIN_VISIBLE * full[k].sum():
            return None
        i = order[k]
        ys, xs = np.nonzero(visible)
        parts = _parts(shapes[k], visible)
        place = float(xs.mean()), float(ys.mean())
        objects.append(Object(kinds[i], paints[i], sizes[i], visible, *place, parts))
        hidden |= full[k]
    objects.reverse()
    return Scene(_paint(shapes, [o.colour for o in objects], rng), tuple(objects))


def _choose(rng: np.random.Generator, n: int) -> tuple[list[str], list[str]]:
    """Category and colour of each object."""
    colours = list(COLOURS)
    kinds = [CATEGORIES[i] for i in rng.choice(len(CATEGORIES), n, p=_SHARES)]
    paints = [colours[i] for i in rng.integers(0, len(colours), n)]
    if rng.random() < _SAME:
        same = int(rng.integers(2, 4))
        kinds[:same] = [kinds[0]] * same
    if rng.random() < _DECOY:  # of the same group, in the same colour
        alike = [name for name in GROUPS[GROUP_OF[kinds[0]]] if name != kinds[0]]
        kinds[-1], paints[-1] = alike[int(rng.integers(len(alike)))], paints[0]
    return kinds, paints


def _shape(kind: str, place: tuple[float, float, float], rng: np.random.Generator) -> list[Piece]:
    """The pieces of an object at their place in the picture."""
    x, y, r = place
    turn = np.deg2rad(rng.uniform(-_TURN, _TURN))
    cos, sin = np.cos(turn), np.sin(turn)
    move = np.diag(rng.uniform(*_STRETCH, 2)) @ np.array([[cos, sin], [-sin, cos]]) * r
    return [Piece(p.outline @ move + (x, y), p.part, p.tone) for p in SHAPES[kind]]


def _parts(pieces: list[Piece], visible: Mask) -> dict[str, Mask]:
    masks: dict[str, Mask] = {}
    over = np.zeros_like(visible)
    for piece in reversed(pieces):
        mine = fill(piece.outline)
        if piece.part:
            masks[piece.part] = masks.get(piece.part, np.zeros_like(over)) | (mine & ~over)
        over = over | mine
    seen = {name: mask & visible for name, mask in masks.items()}
    return {name: mask for name, mask in seen.items() if mask.sum() >= MIN_PART}


def _paint(
    shapes: list[list[Piece]], paints: list[str], rng: np.random.Generator
) -> NDArray[np.uint8]:
    big = ground(rng)
    pen = ImageDraw.Draw(big)
    for pieces, paint in zip(shapes, paints, strict=True):
        colour = np.clip(np.array(COLOURS[paint]) + rng.uniform(-18, 18, 3), 0, 255)
        dark = tuple(int(c) for c in colour * 0.5)
        for piece in pieces:
            points = [tuple(p) for p in 2 * piece.outline + 0.5]
            light = max(0.0, piece.tone - 1) * 120  # a lighter part of black is grey
            tone = tuple(int(min(255, c * piece.tone + light)) for c in colour)
            pen.polygon(points, fill=tone, outline=dark, width=2)
    return finish(big, rng)
