"""Reader of RefCOCOm (MRES): expressions of objects and of their parts, masks as pictures.

{root}/{dataset}/annotations/{split}.json   [{img_name, segment_id, sentences: [{sent}]}]
{root}/{dataset}/masks/{segment_id}.png     0 and 255
{root}/images/mscoco/images/train2014/      the images
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from keyseg.data.mask_file import MaskFile
from keyseg.data.pictures import image_size
from keyseg.data.refer import IMAGE_PAGE, expressions

_PAGE = "https://github.com/Rubics-Xuan/MRES (RefCOCOm)"
_FIELDS: dict[str, tuple[type, ...]] = {
    "img_name": (str,),
    "segment_id": (str, int),
    "sentences": (list,),
}


def read(
    root: str | Path,
    split: str,
    dataset: str = "RefCOCOm",
    slices: Mapping[str, str] | None = None,
    texts: str = "all",
    keyword: str = "head_noun",
    keyword_file: str | None = None,
    images: str = COCO_IMAGES,
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split: "val", "testA" or "testB". No target has a category.

    Arguments and errors are those of `keyseg.data.refer.read`.
    """
    root = Path(root)
    policy = Policy.of(keyword, root / keyword_file if keyword_file else None)
    folder = require(root / dataset, f"data set '{dataset}'", _PAGE)
    file = require(folder / "annotations" / f"{split}.json", f"split '{split}'", _PAGE)
    masks = require(folder / "masks", f"masks of '{dataset}'", _PAGE)
    folder_of_images = require(root / images, "the folder of images", IMAGE_PAGE)
    examples = []
    for number, item in enumerate(_items(file)):
        with collecting(problems):
            where = f"{file}: entry {number}"
            image, mask_path = _files(item, where, folder_of_images, masks)
            if check_images([image], IMAGE_PAGE, problems):
                continue
            mask = MaskFile(mask_path, *image_size(image))
            size = size_slice(float(mask().mean()))
            own = {"dataset": dataset, "split": split, "size": size}
            ref = {"ref_id": item["segment_id"], "sentences": item["sentences"]}
            examples += expressions(
                ref, where, texts, image, (policy, None), mask, own, slices or {}
            )
    return examples


def _items(file: Path) -> list[Any]:
    items = parsed(read_json, file)
    if not isinstance(items, list) or not items:
        raise DataError(f"{file}: a list of annotations expected, not {str(items)[:60]}")
    return items


def _files(item: Any, where: str, images: Path, masks: Path) -> tuple[Path, Path]:
    """Image and mask of an entry, whose names lead nowhere else."""
    for field, kinds in _FIELDS.items():
        if not isinstance(item, dict) or not isinstance(item.get(field), kinds):
            raise DataError(f"{where}: no '{field}' in {str(item)[:60]}")
    names = str(item["img_name"]), f"{item['segment_id']}.png"
    if any(Path(name).name != name for name in names):
        raise DataError(f"{where}: a name of a file expected, not {', '.join(names)}")
    mask = masks / names[1]
    if not mask.exists():
        raise DataError(f"{where}: its mask is missing: {mask}. Public page: {_PAGE}")
    return images / names[0], mask
