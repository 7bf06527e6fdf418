"""Reader of gRefCOCO and Ref-ZOM: an expression may name several targets, or none at all.

{root}/{dataset}/grefs({split_by}).json   list of refs like those of refCOCO, but `ann_id` is a
                                          list, and [-1] (or no_target) means no target; the same
                                          as a pickle, .p, comes first
{root}/{dataset}/instances.json, {root}/images/...   as in the refer data sets

Ref-ZOM's file is called refs(final).p, and its `source` says "zero" where there is no target.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyseg.data import plain_pickle
from keyseg.data.coco_images import COCO_IMAGES
from keyseg.data.example import Example, size_slice
from keyseg.data.files import (
    DataError,
    Problems,
    check_images,
    collecting,
    parsed,
    read_json,
    require,
)
from keyseg.data.keywords.policy import Policy
from keyseg.data.masks import CocoMask
from keyseg.data.refer import IMAGE_PAGE, Instances, draw, expressions, of_split

_PAGES = {
    "grefcoco": "https://github.com/henghuiding/gRefCOCO",
    "ref-zom": "https://github.com/toggle1995/RIS-DMMI (Ref-ZOM)",
}
_NO_TARGET = -1
"""The annotation number of an expression that names nothing in the image."""


def read(
    root: str | Path,
    split: str,
    dataset: str = "grefcoco",
    split_by: str = "unc",
    slices: Mapping[str, str] | None = None,
    texts: str = "all",
    keyword: str = "category",
    keyword_file: str | None = None,
    images: str = COCO_IMAGES,
    refs: str = "grefs",
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split. The mask is the union of the targets, empty for none.

    The category is known where all targets share one. Arguments and errors are those of
    `keyseg.data.refer.read`; slices have "targets": none, one or several. `refs`: how the name of
    the file of refs begins.
    """
    root = Path(root)
    policy = Policy.of(keyword, root / keyword_file if keyword_file else None)
    page = _PAGES.get(dataset, "not known to us")
    folder = require(root / dataset, f"data set '{dataset}'", page)
    file, content = _refs(folder, f"{refs}({split_by})", page)
    instances_file = require(folder / "instances.json", f"annotations of '{dataset}'", page)
    of_this_split = of_split(content, file, split, page)
    instances = Instances(instances_file)
    folder_of_images = require(root / images, "the folder of images", IMAGE_PAGE)
    examples = []
    for ref in of_this_split:
        with collecting(problems):
            where = f"{file}: ref {ref['ref_id']}"
            image, mask, category, count = _target(ref, instances, where)
            path = folder_of_images / image["file_name"]
            share = min(_area(mask) / (mask.height * mask.width), 1.0)
            own = {
                "dataset": dataset,
                "split": split,
                "size": size_slice(share),
                "targets": {0: "none", 1: "one"}.get(count, "several"),
            }
            named = (policy, category)
            examples += expressions(ref, where, texts, path, named, mask, own, slices or {})
    missing = check_images((e.image for e in examples), IMAGE_PAGE, problems)
    return [e for e in examples if e.image not in missing]


def _refs(folder: Path, name: str, page: str) -> tuple[Path, Any]:
    """The refs file and its content: a pickle if there is one, as the original loader prefers."""
    pickled = folder / f"{name}.p"
    if pickled.exists():
        return pickled, parsed(plain_pickle.load, pickled)
    file = require(folder / f"{name}.json", f"the refs of '{folder.name}'", page)
    return file, parsed(read_json, file)


def _numbers(ref: Mapping[str, Any]) -> list[Any]:
    """Annotation numbers of a ref; [] for no target."""
    numbers = ref.get("ann_id")
    listed = list(numbers) if isinstance(numbers, list) else [numbers]
    nothing = ref.get("no_target") or ref.get("source") == "zero"
    return [] if nothing else [n for n in listed if n != _NO_TARGET]


def _target(
    ref: Mapping[str, Any], instances: Instances, where: str
) -> tuple[dict[str, Any], CocoMask, str | None, int]:
    """Image, mask, category and number of targets. Crowds are no targets, as in the original."""
    numbers = _numbers(ref)
    image = instances.image(ref.get("image_id"), f"{where} is on image")
    parts: list[Any] = []
    categories = set()
    instances_of = [(number, *instances.of(number, where)) for number in numbers]
    single = [target for target in instances_of if not target[1].get("iscrowd")]
    for number, annotation, its_image, category in single or instances_of:
        if its_image is not image:
            raise DataError(f"{where}: annotation {number} is on image {its_image['id']}, not its")
        one = draw(annotation, image, f"{instances.path}: annotation {number}")
        parts += one.segmentation if isinstance(one.segmentation, list) else [one.segmentation]
        categories.add(category)
    mask = CocoMask(parts, image["height"], image["width"])
    return (
        image,
        mask,
        categories.pop() if len(categories) == 1 else None,
        len(single or instances_of),
    )


def _area(mask: CocoMask) -> float:
    # Of the union: areas of single annotations would count an overlap twice.
    return float(mask().sum()) if mask.segmentation else 0.0
