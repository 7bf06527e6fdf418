"""Reader of the refer data sets (refCOCO, refCOCO+, refCOCOg) and of what is written like them.

    {root}/{dataset}/instances.json          COCO images, annotations, categories
    {root}/{dataset}/refs({split_by}).p      pickled list of refs: target, split, sentences
    {root}/images/mscoco/images/train2014/   the images; RRSIS-D has a folder of its own

A ref's own `file_name` carries the annotation's number; the image's is in instances.json.

In FP-RefCOCO (SESAME) and R-RefCOCO a ref has sentences that name nothing in its image beside those
that name its target: `is_false_premise: True` in the one, `exist: False` in the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keyseg.data import plain_pickle
from keyseg.data.coco_images import COCO_IMAGES, image_id
from keyseg.data.example import (
    NAMELESS,
    Example,
    distractor_slice,
    first_or_all,
    length_slice,
    size_slice,
)
from keyseg.data.files import (
    UNANNOTATED,
    DataError,
    Problems,
    check_images,
    collecting,
    parsed,
    read_json,
    require,
)
from keyseg.data.keywords.policy import Policy
from keyseg.data.mask_file import MaskFile
from keyseg.data.masks import CocoMask

_PAGE = "https://github.com/lichengunc/refer (about 50 MB a data set)"
IMAGE_PAGE = "https://cocodataset.org/#download (2014 Train images, 13 GB)"

PUBLISHED = {
    ("refcoco", "unc"): {"train": 42404, "val": 3811, "testA": 1975, "testB": 1810},
    ("refcoco+", "unc"): {"train": 42278, "val": 3805, "testA": 1975, "testB": 1798},
    ("refcocog", "umd"): {"train": 42226, "val": 2573, "test": 5023},
    ("rrsisd", "unc"): {"train": 12181, "val": 1740, "test": 3481},
}
"""Targets (refs) of each split, as published."""


def published(split: str, dataset: str, split_by: str, **_: Any) -> int | None:
    """Published number of targets of a split; None where none is known."""
    return PUBLISHED.get((dataset, split_by), {}).get(split)


def read(
    root: str | Path,
    dataset: str,
    split_by: str,
    split: str,
    slices: Mapping[str, str] | None = None,
    texts: str = "all",
    keyword: str = "category",
    keyword_file: str | None = None,
    images: str = COCO_IMAGES,
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split.

    Where a data set says of its sentences whether they name anything, slices have "targets": one
    or none, and the mask of none is empty.

    Args:
        root: the `refer_seg` folder.
        dataset: folder in it, such as "refcoco+".
        split_by: "unc", "google" or "umd": which division into splits.
        split: "train", "val", "testA", ...
        slices: added to every example's own (dataset, split, size, length, distractors).
        texts: "all" sentences of a target, or the "first".
        keyword: the policy: "category", "head_noun" or "expression".
        keyword_file: of "head_noun", relative to root; rules for what it does not hold.
        images: the folder of images, relative to root.
        problems: takes what is wrong with single targets, which are then left out.

    Raises:
        DataError: a file or an image is missing or damaged, a ref names an annotation, image or
            category that is not there, or the split has no refs.
    """
    root = Path(root)
    policy = Policy.of(keyword, root / keyword_file if keyword_file else None)
    folder = require(root / dataset, f"data set '{dataset}'", _PAGE)
    refs_file = require(folder / f"refs({split_by}).p", f"the refs of '{dataset}'", _PAGE)
    instances_file = require(folder / "instances.json", f"annotations of '{dataset}'", _PAGE)
    refs = _refs_of_split(refs_file, split)
    instances = Instances(instances_file)
    folder_of_images = require(root / images, "the folder of images", IMAGE_PAGE)
    examples = []
    for ref in refs:
        with collecting(problems):
            where = f"{refs_file}: ref {ref.get('ref_id')}"
            annotation, image, category = instances.of(
                ref.get("ann_id"), where, ref.get("category_id")
            )
            mask = draw(annotation, image, f"{instances_file}: annotation {annotation.get('id')}")
            area = _area(annotation, mask, f"{instances_file}: annotation {annotation.get('id')}")
            size = size_slice(area / (mask.height * mask.width))
            own = {"dataset": dataset, "split": split, "size": size}
            own["distractors"] = distractor_slice(instances.alike(annotation))
            path = folder_of_images / image["file_name"]
            named = (policy, category)
            examples += expressions(ref, where, texts, path, named, mask, own, slices or {})
    missing = check_images((e.image for e in examples), IMAGE_PAGE, problems)
    return [e for e in examples if e.image not in missing]


def expressions(
    ref: Mapping[str, Any],
    where: str,
    texts: str,
    image: Path,
    named: tuple[Policy, str | None],
    mask: CocoMask | MaskFile,
    own: Mapping[str, str],
    slices: Mapping[str, str],
) -> list[Example]:
    """The examples of one ref.

    named: how keywords are made, and the target's category. own: the ref's slices, dataset and
    split among them. An answer calls the target by its category whatever the keyword is, so that
    keyword policies differ in nothing else.
    """
    examples = []
    for i, (query, there) in enumerate(first_or_all(texts, sentences(ref, where))):
        policy, category = named if there is not False else (named[0], None)
        examples.append(
            Example(
                id=f"{own['dataset']}/{own['split']}/{ref['ref_id']}-{i}",
                image=image,
                image_id=image_id(image),
                query=query,
                is_sentence=False,
                keyword=policy.keyword(image, query, category),
                text=None if policy.name == "category" else f"the {category or NAMELESS}",
                slices={**_slices(own, there), "length": length_slice(query), **slices},
                load_mask=mask if there is not False else CocoMask([], mask.height, mask.width),
            )
        )
    return examples


def _slices(own: Mapping[str, str], there: bool | None) -> dict[str, str]:
    """A ref's slices for a sentence that names something, nothing, or nobody says which (None)."""
    if there is False:
        return {**own, "targets": "none", "size": size_slice(0)}
    return {"targets": "one", **own} if there else dict(own)


class _Index(NamedTuple):
    """An instances.json by numbers. alike: annotations of an image and a category."""

    annotations: dict[Any, dict[str, Any]]
    alike: Counter[tuple[Any, Any]]
    images: dict[Any, dict[str, Any]]
    categories: dict[Any, str]


def _index(path: Path) -> _Index:
    content = read_json(path)
    try:
        annotations = content["annotations"]
        return _Index(
            {a["id"]: a for a in annotations},
            Counter((a["image_id"], a.get("category_id")) for a in annotations),
            {image["id"]: image for image in content["images"]},
            {c["id"]: str(c["name"]) for c in content["categories"]},
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a COCO file: needs images, annotations and categories with ids "
            f"({type(error).__name__}: {error})"
        ) from error


class Instances:
    """instances.json, for looking things up.

    Raises:
        DataError: it is not a COCO file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = parsed(_index, path)

    def of(
        self, number: Any, where: str, category: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Annotation, image and category name by an annotation's number.

        `category`: number of the category where the annotation itself has none.
        """
        if not isinstance(number, int):
            raise DataError(
                f"{where}: ann_id is {number!r}, not the number of one annotation", UNANNOTATED
            )
        if number not in self._index.annotations:
            raise DataError(f"{where}: annotation {number} is not in {self.path}", UNANNOTATED)
        annotation = self._index.annotations[number]
        image = self.image(annotation["image_id"], f"annotation {number} is on image")
        category = annotation.get("category_id", category)
        if category not in self._index.categories:
            raise DataError(f"{self.path}: annotation {number} has unknown category {category}")
        return annotation, image, self._index.categories[category]

    def alike(self, annotation: Mapping[str, Any]) -> int:
        """Other annotations of the same category in the same image."""
        return self._index.alike[annotation["image_id"], annotation.get("category_id")] - 1

    def image(self, number: Any, what: str) -> dict[str, Any]:
        """An image's entry; `what` starts the sentence of the error."""
        image: dict[str, Any] | None = self._index.images.get(number)
        complete = image is not None and {"file_name", "height", "width"} <= image.keys()
        if image is None or not complete or not isinstance(image["file_name"], str):
            raise DataError(
                f"{self.path}: {what} {number}, which is not listed with file_name, height and "
                "width"
            )
        return image


def _refs_of_split(path: Path, split: str) -> list[dict[str, Any]]:
    return of_split(parsed(plain_pickle.load, path), path, split, _PAGE)


def of_split(refs: Any, path: Path, split: str, page: str) -> list[dict[str, Any]]:
    """The refs of one split, out of the content of a refs file; `page`: where to get it again."""
    if not isinstance(refs, list) or not all(isinstance(r, dict) and "ref_id" in r for r in refs):
        raise DataError(f"{path}: a list of refs with ref_id expected. Public page: {page}")
    chosen = [ref for ref in refs if ref.get("split") == split]
    if not chosen:
        sizes = Counter(str(ref.get("split")) for ref in refs)
        sizes_text = ", ".join(f"{name} ({n} refs)" for name, n in sizes.items()) or "none"
        raise DataError(f"{path} has no split '{split}'; it has: {sizes_text}")
    return chosen


def sentences(ref: Mapping[str, Any], where: str) -> list[tuple[str, bool | None]]:
    """The expressions of a ref, and whether they name anything: None where nobody says so."""
    try:
        queries = [(str(s["sent"]).strip(), _there(s)) for s in ref["sentences"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: no list of sentences with 'sent'") from error
    if not queries or not all(query for query, _ in queries):
        raise DataError(f"{where}: an empty sentence, or none: {[query for query, _ in queries]}")
    return queries


def _there(sentence: Mapping[str, Any]) -> bool | None:
    if "is_false_premise" in sentence:
        return not sentence["is_false_premise"]
    return bool(sentence["exist"]) if "exist" in sentence else None


def _area(annotation: Mapping[str, Any], mask: CocoMask, where: str) -> float:
    """Pixels of the target: as the annotation says, which draws nothing, or as drawn."""
    area = annotation.get("area")
    if area is None:
        return float(mask().sum())
    if not isinstance(area, int | float) or not area >= 0:
        raise DataError(f"{where}: area is {area!r}, not a number of pixels")
    return float(area)


def draw(annotation: dict[str, Any], image: dict[str, Any], where: str) -> CocoMask:
    """The recipe of an annotation's mask."""
    try:
        return CocoMask(annotation.get("segmentation"), image["height"], image["width"])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
