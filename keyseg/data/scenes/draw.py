"""One scene: objects that overlap on a textured ground. The same generator, the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from keyseg.data.scenes.world import CATEGORIES, COLOURS, RADIUS, SHAPES, SIZE, Points

MIN_VISIBLE = 0.55
"""Share of an object that must stay visible behind the ones in front of it."""


@dataclass(frozen=True)
class Object:
    """One object: `visible` is its mask (SIZE, SIZE) after occlusion, x and y its centroid.

    parts: masks of those of its named parts of which enough is visible; none on plain scenes.
    """

    category: str
    colour: str
    size: str
    visible: NDArray[np.bool_]
    x: float
    y: float
    parts: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """An image (SIZE, SIZE, 3) uint8 and its objects, back to front."""

    image: NDArray[np.uint8]
    objects: tuple[Object, ...]


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw 3-6 objects; in most scenes two or three share a class, others share its colour."""
    while True:
        scene = _try(rng)
        if scene is not None:
            return scene


def _try(rng: np.random.Generator) -> Scene | None:
    n = int(rng.integers(3, 7))
    colours, categories = list(COLOURS), list(CATEGORIES)
    kinds = [categories[i] for i in rng.integers(0, len(categories), n)]
    paints = [colours[i] for i in rng.integers(0, len(colours), n)]
    if rng.random() < 0.8:  # several of one class, and a distractor in the colour of one of them
        same = int(rng.integers(2, min(n, 3) + 1))
        kinds[:same] = [kinds[0]] * same
        if n > same:
            paints[-1] = paints[0]
    sizes = ["small" if s else "big" for s in rng.random(n) < 0.55]
    placed: list[tuple[float, float, float]] = []
    for size in sizes:
        r = float(rng.uniform(*RADIUS[size]))
        for _ in range(30):
            x, y = (float(v) for v in rng.uniform(r * 0.9, SIZE - r * 0.9, 2))
            if all(np.hypot(x - a, y - b) > 0.72 * (r + q) for a, b, q in placed):
                placed.append((x, y, r))
                break
        else:
            return None
    order = rng.permutation(n)  # back to front
    outlines = [_outline(kinds[i], placed[i], rng) for i in order]
    full = [fill(o) for o in outlines]
    visible = list(full)
    for i in range(n):
        for j in range(i + 1, n):
            visible[i] = visible[i] & ~full[j]
    if any(v.sum() < MIN_VISIBLE * f.sum() for v, f in zip(visible, full, strict=True)):
        return None
    objects = []
    for i, mask in zip(order, visible, strict=True):
        ys, xs = np.nonzero(mask)
        objects.append(
            Object(kinds[i], paints[i], sizes[i], mask, float(xs.mean()), float(ys.mean()))
        )
    return Scene(_paint(outlines, [o.colour for o in objects], rng), tuple(objects))


def _outline(kind: str, place: tuple[float, float, float], rng: np.random.Generator) -> Points:
    x, y, r = place
    turn = np.deg2rad(rng.uniform(-18, 18))
    cos, sin = np.cos(turn), np.sin(turn)
    points: Points = (
        SHAPES[kind]() * rng.uniform(0.92, 1.08, 2) @ np.array([[cos, sin], [-sin, cos]])
    )
    return points * r + (x, y)


def fill(outline: Points) -> NDArray[np.bool_]:
    """The mask (SIZE, SIZE) of a polygon in pixels."""
    canvas = Image.new("1", (SIZE, SIZE))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in outline], fill=1)
    return np.asarray(canvas, dtype=bool)


def _noise(rng: np.random.Generator, cells: int, depth: float) -> NDArray[np.float32]:
    """Smooth noise (SIZE, SIZE) in [-depth, depth]."""
    coarse = Image.fromarray(rng.uniform(-depth, depth, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def ground(rng: np.random.Generator) -> Image.Image:
    """A textured ground at twice the size: what is drawn on it gets smooth edges."""
    colour = rng.uniform(70, 190, 3)
    colour = colour.mean() + 0.35 * (colour - colour.mean())  # muted: a ground is never an object
    yy, xx = np.mgrid[0:SIZE, 0:SIZE]
    a, b = rng.normal(0, 0.12, 2)
    stripes = rng.uniform(0, 14) * np.sin(a * xx + b * yy)
    texture = stripes + _noise(rng, 6, 22) + _noise(rng, 40, 14)
    pixels = colour[None, None, :] + texture[:, :, None]
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return picture.resize((2 * SIZE, 2 * SIZE))


def finish(big: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (SIZE, SIZE, 3) at its own size, with grain."""
    small = np.asarray(big.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)
    grain = rng.normal(0, 3.5, (SIZE, SIZE, 3)).astype(np.float32) + _noise(rng, 8, 9)[:, :, None]
    return (small + grain).clip(0, 255).astype(np.uint8)


def _paint(
    outlines: list[Points], paints: list[str], rng: np.random.Generator
) -> NDArray[np.uint8]:
    big = ground(rng)
    pen = ImageDraw.Draw(big)
    for outline, paint in zip(outlines, paints, strict=True):
        colour = np.clip(np.array(COLOURS[paint]) + rng.uniform(-18, 18, 3), 0, 255)
        points = [tuple(p) for p in 2 * outline + 0.5]
        dark = tuple(int(c) for c in colour * 0.55)
        pen.polygon(points, fill=tuple(int(c) for c in colour), outline=dark, width=2)
    return finish(big, rng)
