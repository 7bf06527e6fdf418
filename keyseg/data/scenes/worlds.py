"""The worlds that scenes are drawn from, by name: what is in a picture, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keyseg.data.scenes import bruegel, bruegel_draw, bruegel_queries, draw, queries, world
from keyseg.data.scenes.draw import Scene
from keyseg.data.scenes.queries import Expression


@dataclass(frozen=True)
class SceneWorld:
    """How to draw a scene and to ask about it.

    names: COCO's categories, those of parts among them. express: one expression for each style.
    fits_nothing: an expression without a target; None = this world has none.
    """

    names: tuple[str, ...]
    draw: Callable[[np.random.Generator], Scene]
    express: Callable[[Scene, Sequence[str], np.random.Generator], list[Expression]]
    fits_nothing: Callable[[Scene, np.random.Generator], Expression | None] | None = None


PLAIN_WORLD, BRUEGEL = "plain", "bruegel"
WORLDS: dict[str, SceneWorld] = {
    PLAIN_WORLD: SceneWorld(world.CATEGORIES, draw.draw_scene, queries.express),
    BRUEGEL: SceneWorld(
        (*bruegel.CATEGORIES, *bruegel.PARTS),
        bruegel_draw.draw_scene,
        bruegel_queries.express,
        bruegel_queries.fits_nothing,
    ),
}
"""By the name that data.prepare.world gives."""
