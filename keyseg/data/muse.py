"""Reader of MUSE (PixelLM) and MMR: questions whose answers name several objects or parts.

One file a split, a list with an item an image:

    file_name | coco_url, height, width
    questions: [str]
    answers: [[{segmentation, category_name, rephrased_name}]]   the targets of each question
    text_answers: [str | null]    a sentence with {seg} after each of them

Items without questions are left out. Each target has a mask of its own; with `targets` "union" a
question has one mask, all of its targets together, and `text` names them in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyseg.data.coco_images import image_id
from keyseg.data.example import (
    EACH,
    OF_TARGETS,
    PLACE,
    UNION,
    Example,
    Target,
    length_slice,
    size_slice,
)
from keyseg.data.files import (
    ABSENT,
    DataError,
    Problems,
    check_images,
    collecting,
    parsed,
    read_json,
    require,
)
from keyseg.data.masks import CocoMask

_PAGES = {
    "muse": "https://github.com/MaverickRen/PixelLM (MUSE)",
    "mmr": "https://github.com/jdg900/MMR",
}
_PUBLISHED = {("mmr", "train"): 154127, ("mmr", "val"): 8194}
"""Questions of each split, as published."""

_COCO = "refer_seg/images/mscoco/images"


def published(split: str, dataset: str, **_: Any) -> int | None:
    """Published number of questions of a split; None where none is known."""
    return _PUBLISHED.get((dataset, split))


def read(
    root: str | Path,
    split: str,
    dataset: str,
    files: Sequence[str],
    slices: Mapping[str, str] | None = None,
    images: str = _COCO,
    targets: str = UNION,
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split. Slices have "targets": none, one or several.

    Args:
        root: the folder of all data sets.
        split: what `{split}` stands for in `files`.
        dataset: "muse" or "mmr".
        files: where the annotations may lie, relative to root; the first that exists is read.
        slices: added to every example's own (dataset, split, size, length, targets).
        images: the folder of COCO's folders train2014, train2017 and val2017, relative to root.
        targets: "each" target of a question has a mask, or all have one, their "union".
        problems: takes what is wrong with single questions, which are then left out.

    Raises:
        DataError: a file or an image is missing or damaged, or an annotation is none.
    """
    if targets not in OF_TARGETS:
        raise DataError(f"data.targets={targets}: must be one of {', '.join(OF_TARGETS)}")
    root = Path(root)
    page = _PAGES.get(dataset, "not known to us")
    file = _file(root, [name.format(split=split) for name in files], dataset, page)
    folder = require(root / images, "the folder of COCO's images", page)
    items = parsed(read_json, file)
    if not isinstance(items, list):
        raise DataError(f"{file}: a list of images expected, not {str(items)[:60]}")
    examples = []
    for number, item in enumerate(items):
        where = f"{file}: item {number}"
        with collecting(problems):
            for question, query, named in _questions(item, where):
                with collecting(problems):
                    own = {"dataset": dataset, "split": split, **(slices or {})}
                    name = f"{dataset}/{split}/{number}.{question}-0"
                    about = f"{where}: question {question}"
                    image = folder / _image(item, where)
                    example = _example(name, image, query, item, named, own, about)
                    if targets == EACH:
                        said = _said(item, question, len(named))
                        each = tuple(_target(item, target, about) for target in named)
                        example = replace(example, targets=each, answer=said)
                    examples.append(example)
    missing = check_images((e.image for e in examples), page, problems)
    return [e for e in examples if e.image not in missing]


def _file(root: Path, names: Sequence[str], dataset: str, page: str) -> Path:
    for name in names:
        if (root / name).exists():
            return root / name
    raise DataError(
        f"annotations of '{dataset}' are missing: none of {', '.join(names)} is in {root}. "
        f"Public page: {page}",
        ABSENT,
    )


def _questions(item: Any, where: str) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    """Number, text and targets of the questions of an image; of one without questions, none."""
    if not isinstance(item, dict):
        raise DataError(f"{where}: an object expected, not {str(item)[:60]}")
    questions, answers = item.get("questions") or [], item.get("answers") or []
    if len(questions) != len(answers):
        raise DataError(f"{where}: {len(questions)} questions, but {len(answers)} answers")
    for number, (question, targets) in enumerate(zip(questions, answers, strict=True)):
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where}: question {number} is {question!r}")
        if not isinstance(targets, list) or not all(isinstance(t, dict) for t in targets):
            raise DataError(f"{where}: the answer to question {number} is no list of targets")
        yield number, question.strip(), targets


def _image(item: Mapping[str, Any], where: str) -> Path:
    """Folder and name of an image. A bare name is of train2014, unless a URL says otherwise."""
    name, url = item.get("file_name"), str(item.get("coco_url") or "")
    if isinstance(name, str) and (len(Path(name).parts) == 2 or not url):
        path = Path(name) if len(Path(name).parts) == 2 else Path("train2014", name)
    elif isinstance(name, str) and name.startswith("COCO_"):
        path = Path(name.split("_")[1], name)
    elif url:
        path = Path("train2017" if "train2017" in url else "val2017", url.rpartition("/")[2])
    else:
        raise DataError(f"{where}: neither file_name nor coco_url")
    if path.is_absolute() or ".." in path.parts or len(path.parts) != 2:
        raise DataError(f"{where}: {path} is no image of COCO's folders")
    return path


def _example(
    name: str,
    image: Path,
    query: str,
    item: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    own: Mapping[str, str],
    where: str,
) -> Example:
    mask = _union(item, targets, where)
    categories = dict.fromkeys(str(t.get("category_name") or "") for t in targets)
    names = dict.fromkeys(_name(t) for t in targets)
    return Example(
        id=name,
        image=image,
        image_id=image_id(image, otherwise=f"{image.parent.name}/{image.stem}"),
        query=query,
        is_sentence=True,
        keyword=next(iter(categories)) or None if len(categories) == 1 else None,
        text=" and ".join(f"the {name}" for name in names if name) or None,
        slices={
            **own,
            "size": size_slice(min(mask.area() / (mask.height * mask.width), 1.0)),
            "length": length_slice(query),
            "targets": {0: "none", 1: "one"}.get(len(targets), "several"),
        },
        load_mask=mask,
    )


def _target(item: Mapping[str, Any], target: Mapping[str, Any], where: str) -> Target:
    category = str(target.get("category_name") or "").strip()
    return Target(_name(target) or None, category or None, _union(item, [target], where))


def _said(item: Mapping[str, Any], question: int, count: int) -> str | None:
    """The sentence that answers a question; None where it does not hold a place for each target."""
    texts = item.get("text_answers")
    said = texts[question] if isinstance(texts, list) and question < len(texts) else None
    return said.strip() if isinstance(said, str) and count and said.count(PLACE) == count else None


def _name(target: Mapping[str, Any]) -> str:
    return str(target.get("rephrased_name") or target.get("category_name") or "").strip()


def _union(item: Mapping[str, Any], targets: Sequence[Mapping[str, Any]], where: str) -> CocoMask:
    parts: list[Any] = []
    for target in targets:
        segmentation = target.get("segmentation")
        parts += segmentation if isinstance(segmentation, list) else [segmentation]
    try:
        return CocoMask(parts, item["height"], item["width"])
    except KeyError as error:
        raise DataError(f"{where}: the image has no {error}") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
