"""Reader of LLM-Seg40K: questions that take reasoning, answered by a sentence and a mask.

{root}/LLMSeg40K/{split}.json   {image: {from_dataset: coco | ego_objects, qa_pairs: [
                                {question, answer, rle_seg}]}}; splits train, validation, test
{root}/coco/train2017/          images of coco        {root}/EgoObjects/images/  of ego_objects

A question may mean several objects; its mask is their union. It has no keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyseg.data.coco_images import image_id
from keyseg.data.example import Example, length_slice, size_slice
from keyseg.data.files import (
    DataError,
    Problems,
    check_images,
    collecting,
    parsed,
    read_json,
    require,
)
from keyseg.data.masks import CocoMask

_PAGE = "https://github.com/wangjunchi/LLMSeg (LLM-Seg40K)"
_IMAGES = {"coco": "coco/train2017", "ego_objects": "EgoObjects/images"}


def read(
    root: str | Path,
    split: str,
    dataset: str = "LLMSeg40K",
    slices: Mapping[str, str] | None = None,
    images: Mapping[str, str] | None = None,
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split.

    Args:
        root: the folder of all data sets.
        split: name of a file: "train", "validation", ...
        dataset: folder of the annotations in it.
        slices: added to every example's own (dataset, split, size, length).
        images: the folder of images, relative to root, of each `from_dataset`.
        problems: takes what is wrong with single questions, which are then left out.

    Raises:
        DataError: a file or an image is missing or damaged, or an image is of an unknown set.
    """
    root = Path(root)
    folder = require(root / dataset, f"data set '{dataset}'", _PAGE)
    file = require(folder / f"{split}.json", f"split '{split}'", _PAGE)
    content = parsed(read_json, file)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{file}: an object by image expected, not {str(content)[:60]}")
    folders = {**_IMAGES, **(images or {})}
    examples = []
    for name, item in content.items():
        where = f"{file}: {name}"
        with collecting(problems):
            image = root / _folder(item, folders, where) / _plain(name, where)
            for number, pair in enumerate(_pairs(item, where)):
                with collecting(problems):
                    question, mask = _question(pair, f"{where}: question {number}")
                    share = mask.area() / (mask.height * mask.width)
                    examples.append(
                        Example(
                            id=f"{dataset}/{split}/{image.stem}.{number}-0",
                            image=image,
                            image_id=image_id(image, otherwise=f"{image.parent.name}/{image.stem}"),
                            query=question,
                            is_sentence=True,
                            keyword=None,
                            text=None,
                            slices={
                                "dataset": dataset,
                                "split": split,
                                "source": str(item["from_dataset"]),
                                "size": size_slice(share),
                                "length": length_slice(question),
                                **(slices or {}),
                            },
                            load_mask=mask,
                        )
                    )
    missing = check_images((e.image for e in examples), _PAGE, problems)
    return [e for e in examples if e.image not in missing]


def _folder(item: Any, folders: Mapping[str, str], where: str) -> str:
    source = str(item.get("from_dataset")) if isinstance(item, dict) else "none"
    if source not in folders:
        raise DataError(f"{where}: from_dataset is {source}, not one of {', '.join(folders)}")
    return folders[source]


def _plain(name: str, where: str) -> str:
    if Path(name).name != name:
        raise DataError(f"{where}: the name of a file expected")
    return name


def _pairs(item: Mapping[str, Any], where: str) -> list[Any]:
    pairs = item.get("qa_pairs")
    if not isinstance(pairs, list) or not pairs:
        raise DataError(f"{where}: no list of qa_pairs")
    return pairs


def _question(pair: Any, where: str) -> tuple[str, CocoMask]:
    """A question and its mask, whose size the run lengths say themselves."""
    question = pair.get("question") if isinstance(pair, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: no question")
    runs = pair.get("rle_seg")
    size = runs.get("size") if isinstance(runs, dict) else None
    if not isinstance(size, list) or len(size) != 2:
        raise DataError(f"{where}: rle_seg is no run lengths with a size: {str(runs)[:60]}")
    try:
        return question.strip(), CocoMask(runs, *size)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
