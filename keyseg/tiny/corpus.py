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

from keyseg.data.scenes.draw import Object, Scene, draw_scene
from keyseg.data.scenes.world import SIZE

STREAM = 1_000
"""First number of every seed here."""


@dataclass(frozen=True)
class Corpus:
    """N scenes. images (N, SIZE, SIZE, 3) uint8; owners (N, SIZE, SIZE) uint8: 0 = ground."""

    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    objects: list[list[dict[str, Any]]]

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, index: int) -> Scene:
        """The scene as it was drawn."""
        owner = self.owners[index]
        objects = (
            Object(**o, visible=owner == k) for k, o in enumerate(self.objects[index], start=1)
        )
        return Scene(self.images[index], tuple(objects))


def load_or_draw(folder: Path, count: int, *, held_out: bool = False, workers: int = 2) -> Corpus:
    """Read `count` scenes from the folder, or draw them there first (5 ms each)."""
    name = f"{'held_out' if held_out else 'scenes'}_{count}"
    files = [folder / f"{name}.{k}.npy" for k in ("images", "owners")]
    facts = folder / f"{name}.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(int(held_out), i) for i in range(count)]
        with ProcessPoolExecutor(workers) as pool:
            drawn = list(pool.map(_draw, jobs, chunksize=64))
        np.save(files[0], np.stack([d[0] for d in drawn]))
        np.save(files[1], np.stack([d[1] for d in drawn]))
        facts.write_text(json.dumps([d[2] for d in drawn]))  # last: its presence means complete
    images, owners = (np.load(f, allow_pickle=False) for f in files)
    return Corpus(images, owners, json.loads(facts.read_text()))


def _draw(
    job: tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[dict[str, Any]]]:
    scene = draw_scene(np.random.default_rng([STREAM, *job]))
    owner = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for k, o in enumerate(scene.objects, start=1):
        owner[o.visible] = k
    facts = [
        {"category": o.category, "colour": o.colour, "size": o.size, "x": o.x, "y": o.y}
        for o in scene.objects
    ]
    return scene.image, owner, facts
