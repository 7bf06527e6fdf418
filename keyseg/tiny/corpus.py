"""Scenes for pre-training: drawn once, kept in a folder, never shared with an ablation's splits.

The seeds differ from those of `keyseg.data.scenes.prepare`, which starts its seeds with 0, 1, 2
for train, val and test; a test compares the pictures.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keyseg.data.scenes.draw import Object, Scene
from keyseg.data.scenes.world import SIZE
from keyseg.data.scenes.worlds import PLAIN_WORLD
from keyseg.tiny.curriculum import CURRICULA

STREAM = 1_000
"""First number of every seed here."""


@dataclass(frozen=True)
class Corpus:
    """N scenes. images (N, SIZE, SIZE, 3) uint8; owners (N, SIZE, SIZE) uint8: 0 = ground.

    parts (N, SIZE, SIZE) uint8: which part of its object a pixel shows, counted from 1; 0 = none.
    lists: names of the categories, colours and sizes that objects may have.
    """

    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    objects: list[list[dict[str, Any]]]
    lists: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, index: int) -> Scene:
        """The scene as it was drawn."""
        owner = self.owners[index]
        objects = (
            Object(**o, visible=owner == k) for k, o in enumerate(self.objects[index], start=1)
        )
        return Scene(self.images[index], tuple(objects))


def load_or_draw(
    folder: Path, count: int, world: str = PLAIN_WORLD, *, held_out: bool = False, workers: int = 2
) -> Corpus:
    """Read `count` scenes of a world from the folder, or draw them there first (5 ms each)."""
    name = f"{'held_out' if held_out else 'scenes'}_{count}"
    if world != PLAIN_WORLD:
        name = f"{world}_{name}"
    files = [folder / f"{name}.{k}.npy" for k in ("images", "owners", "parts")]
    facts = folder / f"{name}.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(world, int(held_out), i) for i in range(count)]
        with ProcessPoolExecutor(workers) as pool:
            drawn = list(pool.map(_draw, jobs, chunksize=64))
        for file, arrays in zip(files, zip(*(d[0] for d in drawn), strict=True), strict=True):
            np.save(file, np.stack(arrays))
        facts.write_text(json.dumps([d[1] for d in drawn]))  # last: its presence means complete
    images, owners, parts = (np.load(f, allow_pickle=False) for f in files)
    lists = CURRICULA[world].lists
    return Corpus(images, owners, parts, json.loads(facts.read_text()), lists)


def _draw(job: tuple[str, int, int]) -> tuple[tuple[NDArray[np.uint8], ...], list[dict[str, Any]]]:
    """Image, owners and parts of one scene, and what its objects are."""
    world, *numbers = job
    curriculum = CURRICULA[world]
    scene = curriculum.draw(np.random.default_rng([STREAM, *numbers]))
    owner, part = (np.zeros((SIZE, SIZE), dtype=np.uint8) for _ in range(2))
    for k, o in enumerate(scene.objects, start=1):
        owner[o.visible] = k
        for name, mask in o.parts.items():
            part[mask] = curriculum.parts.index(name) + 1
    facts = [
        {"category": o.category, "colour": o.colour, "size": o.size, "x": o.x, "y": o.y}
        for o in scene.objects
    ]
    return (scene.image, owner, part), facts
