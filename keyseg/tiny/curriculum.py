"""What the backbones of a world learn from: its scenes, its words, and what is asked about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from keyseg.data.scenes import bruegel, bruegel_draw, bruegel_queries, draw, queries, world
from keyseg.data.scenes.draw import Scene
from keyseg.data.scenes.worlds import BRUEGEL, PLAIN_WORLD
from keyseg.tiny import bruegel_questions, questions
from keyseg.tiny.arch import PATCH, TALK
from keyseg.tiny.questions import QuestionAnswer

Ask = Callable[[Scene, np.random.Generator], list[QuestionAnswer]]


@dataclass(frozen=True)
class Length:
    """Of a pre-training: pictures to draw and steps; SAM weights to begin with, None = random."""

    scenes: int
    sam_steps: int
    vision_steps: int
    words_steps: int = 600
    llava_steps: int = 3000
    places_steps: int = 0
    sam_start: Path | None = None


@dataclass(frozen=True)
class Curriculum:
    """Of one world.

    draw: a scene to learn from. said: all words. lists: names of categories, colours and sizes.
    parts: names of parts, which SAM is asked for. patch: pixels of a patch. placed: whether the
    tower's positions start as `vision.place` leaves them. find, ask: what the language model is
    asked in its first stage and in its second. length: of the bundled weights' pre-training.
    """

    draw: Callable[[np.random.Generator], Scene]
    said: tuple[str, ...]
    lists: tuple[tuple[str, ...], ...]
    find: Ask
    ask: Ask
    length: Length
    parts: tuple[str, ...] = ()
    patch: int = PATCH
    placed: bool = False


CURRICULA: dict[str, Curriculum] = {
    PLAIN_WORLD: Curriculum(
        draw.draw_scene,
        (*TALK, *queries.words()),
        (world.CATEGORIES, tuple(world.COLOURS), tuple(world.RADIUS)),
        questions.phrases,
        questions.questions,
        Length(scenes=16_000, sam_steps=2400, vision_steps=4000),
    ),
    BRUEGEL: Curriculum(
        partial(bruegel_draw.draw_scene, known_only=True),
        (*bruegel_questions.BARE_TALK, *bruegel_queries.words()),
        (bruegel.CATEGORIES, tuple(bruegel.COLOURS), tuple(bruegel.RADIUS)),
        bruegel_questions.places,
        bruegel_questions.facts,
        Length(
            12_000,
            sam_steps=4000,
            vision_steps=3000,
            places_steps=500,
            sam_start=Path("keyseg/tiny/weights/sam"),
        ),
        parts=bruegel.PARTS,
        patch=12,  # 120 pixels for the same number of patches: small things, many categories
        placed=True,
    ),
}
"""By name of the world."""
