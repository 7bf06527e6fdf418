"""Scenes on disk, in the public formats themselves (refCOCO family, ReasonSeg, Reason-Seg-Key)."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from keyseg.data.mix import SPLITS
from keyseg.data.scenes.draw import Scene
from keyseg.data.scenes.queries import WITHOUT_TARGET, Expression
from keyseg.data.scenes.world import SIZE
from keyseg.data.scenes.worlds import PLAIN_WORLD, WORLDS, SceneWorld

SPLIT_BY = "keyseg"
REFER_SETS = {"scenes": "short+location", "scenes+": "short", "scenesg": "long"}
"""Data set by style, as refCOCO, refCOCO+ and refCOCOg differ."""
NO_TARGET_SET = "gscenes"
"""Data set of the expressions without a target, as gRefCOCO has them."""
_NO_TARGET_STREAM = 100

REFER_STYLES = ("short+location",) * 2 + ("short",) * 2 + ("long",) * 3
PARAPHRASES = 3
"""Reasoning queries for one target: wordings of one ReasonSeg item."""

Drawn = tuple[NDArray[np.uint8], list[dict[str, Any]], list[dict[str, Any]]]
"""Image, objects and parts (category, colour, polygons, borders, area, box), expressions (query,
target, style)."""


def draw(job: tuple[str, str, int, int], world: str = PLAIN_WORLD, no_target: float = 0.0) -> Drawn:
    """One scene with its expressions: (kind, split, seed, index) decides everything.

    no_target: how many expressions that fit nothing there are for each one that fits something;
    they change nothing else.
    """
    kind, split, seed, index = job
    made = WORLDS[world]
    stream = SPLITS.index(split) + (len(SPLITS) if kind == "reason" else 0)
    rng = np.random.default_rng([stream, seed, index])
    while True:
        scene = made.draw(rng)
        expressions = (
            _reasons(made, scene, rng)
            if kind == "reason"
            else made.express(scene, REFER_STYLES, rng)
        )
        if expressions:
            break
    objects = [
        {"category": o.category, "colour": o.colour, **_outline(o.visible)} for o in scene.objects
    ]
    targets = {(k, ""): k for k in range(len(objects))}
    for e in expressions:
        if (e.target, e.part) not in targets:
            targets[e.target, e.part] = len(objects)
            whole = scene.objects[e.target]
            outline = _outline(whole.parts[e.part])
            objects.append({"category": e.part, "colour": whole.colour, **outline})
    asked = [
        {"query": e.query, "target": targets[e.target, e.part], "style": e.style}
        for e in expressions
    ]
    if kind == "refer" and made.fits_nothing is not None:
        other = np.random.default_rng([_NO_TARGET_STREAM, stream, seed, index])
        for _ in range(other.binomial(len(expressions), no_target)):
            if (nothing := made.fits_nothing(scene, other)) is not None:
                asked.append(
                    {"query": nothing.query, "target": WITHOUT_TARGET, "style": nothing.style}
                )
    return scene.image, objects, asked


def _reasons(made: SceneWorld, scene: Scene, rng: np.random.Generator) -> list[Expression]:
    """Different wordings for one target."""
    first = made.express(scene, ["reasoning"], rng)
    if not first:
        return []
    wordings = {first[0].query: first[0]}
    for _ in range(20):
        again = made.express(scene, ["reasoning"], rng)[0]
        if again.target == first[0].target:
            wordings.setdefault(again.query, again)
        if len(wordings) == PARAPHRASES:
            break
    return list(wordings.values())


def _outline(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Polygons around the visible parts of an object, with area and box, as COCO has them."""
    padded = np.pad(mask, 1).astype(np.float64)
    lines = cast(list[NDArray[np.float64]], contour_generator(z=padded).lines(0.5))
    # pixel k covers [k, k + 1]: its centre, where the contour is drawn, is at k + 0.5
    parts = [_corners(line[:-1] - 0.5) for line in lines if len(line) > 6]
    ys, xs = np.nonzero(mask)
    box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
    polygons = [np.clip(p, 0, SIZE).ravel().tolist() for p in parts]
    return {"polygons": polygons, "borders": _borders(mask), "area": float(mask.sum()), "box": box}


def _borders(mask: NDArray[np.bool_]) -> list[list[list[float]]]:
    """Polygons through the outermost pixels: ReasonSeg's outline is part of the mask.

    Around the pixels, as COCO has it, they would be read back one pixel wider on two sides.
    """
    lines = contour_generator(z=np.pad(mask, 1).astype(np.float64)).lines(0.999)
    rings = [np.rint(line[:-1]) - 1 for line in cast(list[NDArray[np.float64]], lines)]
    steps = [(ring != np.roll(ring, 1, axis=0)).any(axis=1) for ring in rings]
    parts = [_corners(ring[step]) for ring, step in zip(rings, steps, strict=True)]
    return [part.tolist() for part in parts if len(part) > 2]


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed ring of points (n, 2) without those on a straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    turns |= (before * after).sum(axis=1) < 0  # the tip of a spur
    return ring[turns]


def write_refer(root: Path, drawn: dict[str, list[Drawn]], names: Sequence[str]) -> None:
    """Three refer sets over the same pictures: instances.json and refs(keyseg).p each.

    A fourth one, in gRefCOCO's form, for expressions without a target, if there are any. `names`:
    COCO's categories.
    """
    pictures = root / "images" / "mscoco" / "images" / "train2014"
    pictures.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: dict[str, list[dict[str, Any]]] = {name: [] for name in REFER_SETS}
    empty: list[dict[str, Any]] = []
    sentence = 0
    for split, scenes in drawn.items():
        for image, objects, expressions in scenes:
            image_id = len(images) + 1
            name = f"SCENES_train2014_{image_id:012d}.jpg"
            save_jpeg(image, pictures / name)
            images.append({"id": image_id, "file_name": name, "height": SIZE, "width": SIZE})
            first = len(annotations) + 1
            for o in objects:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": names.index(o["category"]) + 1,
                        "segmentation": o["polygons"],
                        "area": o["area"],
                        "bbox": o["box"],
                        "iscrowd": 0,
                    }
                )
            for data_set, style in REFER_SETS.items():
                for target in range(len(objects)):
                    said = [
                        e["query"]
                        for e in expressions
                        if e["style"] == style and e["target"] == target
                    ]
                    if not said:
                        continue
                    sentences = [
                        {"sent": q, "raw": q, "sent_id": sentence + k, "tokens": q.split()}
                        for k, q in enumerate(said)
                    ]
                    sentence += len(said)
                    refs[data_set].append(
                        {
                            "ref_id": len(refs[data_set]),
                            "ann_id": first + target,
                            "category_id": annotations[first + target - 1]["category_id"],
                            "image_id": image_id,
                            "file_name": name.replace(".jpg", f"_{first + target}.jpg"),
                            "split": split,
                            "sent_ids": [s["sent_id"] for s in sentences],
                            "sentences": sentences,
                        }
                    )
            nothing = [e["query"] for e in expressions if e["target"] == WITHOUT_TARGET]
            empty += [
                {
                    "ref_id": len(empty) + k,
                    "ann_id": [WITHOUT_TARGET],
                    "no_target": True,
                    "image_id": image_id,
                    "split": split,
                    "sentences": [{"sent": query, "raw": query, "sent_id": k}],
                }
                for k, query in enumerate(nothing)
            ]
    categories = [{"id": k, "name": name} for k, name in enumerate(names, start=1)]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    for data_set, rows in refs.items():
        folder = root / data_set
        folder.mkdir()
        (folder / "instances.json").write_text(json.dumps(instances))
        with (folder / f"refs({SPLIT_BY}).p").open("wb") as file:
            pickle.dump(rows, file, protocol=2)
    if empty:
        folder = root / NO_TARGET_SET
        folder.mkdir()
        (folder / "instances.json").write_text(json.dumps(instances))
        (folder / f"grefs({SPLIT_BY}).json").write_text(json.dumps(empty))


def write_reason(root: Path, drawn: dict[str, list[Drawn]], _: Sequence[str]) -> None:
    """ReasonSeg/{split}/X.jpg and X.json, and keyword_outputs.json for all of them."""
    keywords: list[dict[str, Any]] = []
    for split, scenes in drawn.items():
        folder = root / "ReasonSeg" / split
        folder.mkdir(parents=True)
        for number, (image, objects, expressions) in enumerate(scenes):
            stem = f"scene_{split}_{number:05d}"
            save_jpeg(image, folder / f"{stem}.jpg")
            target = objects[expressions[0]["target"]]
            shapes = [
                {
                    "label": "target",
                    "labels": ["target"],
                    "shape_type": "polygon",
                    "image_name": f"{stem}.jpg",
                    "points": part,
                }
                for part in target["borders"]
            ]
            queries = [e["query"] for e in expressions]
            item = {"text": queries, "is_sentence": True, "shapes": shapes}
            (folder / f"{stem}.json").write_text(json.dumps(item, indent=1))
            for query in queries:
                keywords.append(
                    {
                        "query": query,
                        "outputs": f"the {target['colour']} {target['category']}",
                        "image": f"{stem}.jpg",
                        "json": f"{stem}.json",
                        "keyword": target["category"],
                    }
                )
    folder = root / "ReasonSeg" / "explanatory_key"
    folder.mkdir(parents=True)
    (folder / "keyword_outputs.json").write_text(json.dumps(keywords, indent=1))


def save_jpeg(image: NDArray[np.uint8], path: Path) -> None:
    """Fixed settings: the same pixels give the same bytes."""
    Image.fromarray(image).save(path, quality=92, subsampling=0)


WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, list[Drawn]], Sequence[str]], None]]] = {
    "refer": ("refer_seg", write_refer),
    "reason": ("reason_seg", write_reason),
}


def main(folder: Path, wanted: dict[str, Any]) -> None:
    """Draw and write all splits; `wanted`: as `keyseg.data.scenes.prepare` marks the folder."""
    world = wanted["world"]
    drawing = partial(draw, world=world, no_target=wanted["no_target"])
    with ProcessPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        for kind, (name, write) in WRITERS.items():
            drawn = {}
            for split in SPLITS:
                jobs = [(kind, split, wanted["seed"], n) for n in range(wanted[kind].get(split, 0))]
                drawn[split] = list(pool.map(drawing, jobs, chunksize=32))
            write(folder / name, drawn, WORLDS[world].names)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
