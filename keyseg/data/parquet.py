"""Data sets that are published as parquet, images and masks inside: unpacked once, then read.

`prepare` writes {root}/{split}.json, a list of targets, and {root}/images/{split}/; `read` reads
what stands there. The columns are those of two data sets on Hugging Face:

    ReasonSeg (Seg-Zero): image, text, mask (nested booleans), image_id, ann_id
    RefCOCO-M (moondream): image, file_name, samples: [{id, category, sentences, mask: RLE}]

The masks of ReasonSeg's copies have no void pixels: what LISA ignores is target in them.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from filelock import FileLock

from keyseg.config import resolve_path
from keyseg.data.coco_images import image_id
from keyseg.data.example import Example, first_or_all, length_slice, size_slice
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
from keyseg.data.keywords.policy import Policy
from keyseg.data.masks import CocoMask, encode_rle
from keyseg.data.pictures import opened

UNPACKED_FILE = "unpacked.json"
"""Written last: a folder without it is not complete."""

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_ROWS = 16
"""Rows in memory at a time: a mask of nested booleans takes 100 MB as Python sees it."""


def prepare(root: str | Path, source: str | Path, splits: Mapping[str, str]) -> None:
    """Unpack parquet files, unless that was done.

    Args:
        root: the folder to make.
        source: the folder of the public files.
        splits: of each split, a pattern of its files' names, relative to source.

    Raises:
        DataError: a split has no files, or a row is not of a form that is known.
    """
    folder, source = resolve_path(root), resolve_path(source)
    files = {split: sorted(source.glob(pattern)) for split, pattern in splits.items()}
    marker = {s: [(f.name, f.stat().st_size) for f in shards] for s, shards in files.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if (folder / UNPACKED_FILE).exists():
            _compare(folder, marker)
            return
        for split, shards in files.items():
            if not shards:
                raise DataError(f"split '{split}': no {splits[split]} in {source}", ABSENT)
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        for split, shards in files.items():
            print(f"unpacking {split} into {folder}", file=sys.stderr, flush=True)
            images = temporary / "images" / split
            images.mkdir(parents=True)
            targets = [target for file in shards for target in _targets(file, images)]
            (temporary / f"{split}.json").write_text(json.dumps(targets))
        (temporary / UNPACKED_FILE).write_text(json.dumps(marker))
        temporary.replace(folder)


def _compare(folder: Path, marker: Mapping[str, Sequence[tuple[str, int]]]) -> None:
    """Files that are gone may be gone; files that are there must be those that were unpacked."""
    unpacked = read_json(folder / UNPACKED_FILE)
    for split, files in marker.items():
        if files and unpacked.get(split) != [list(file) for file in files]:
            raise DataError(
                f"{folder} was unpacked from other files than the {len(files)} of '{split}' that "
                "are there now: delete it, or set data.root to another folder"
            )


def read(
    root: str | Path,
    split: str,
    dataset: str,
    slices: Mapping[str, str] | None = None,
    texts: str = "all",
    keyword: str = "category",
    keyword_file: str | None = None,
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split of what `prepare` wrote; `dataset` is the name it goes by.

    Other arguments and errors are those of `keyseg.data.refer.read`.
    """
    root = Path(root)
    policy = Policy.of(keyword, root / keyword_file if keyword_file else None)
    file = require(root / f"{split}.json", f"split '{split}'", "as data.prepare.source says")
    examples = []
    for target in parsed(read_json, file):
        with collecting(problems):
            where = f"{file}: target {target.get('id')}"
            mask = _mask(target, where)
            image = root / "images" / split / Path(str(target["image"])).name
            category = target["category"]
            own = {
                "dataset": dataset,
                "split": split,
                "size": size_slice(mask.area() / (mask.height * mask.width)),
            }
            for i, query in enumerate(first_or_all(texts, target["sentences"])):
                examples.append(
                    Example(
                        id=f"{dataset}/{split}/{target['id']}-{i}",
                        image=image,
                        image_id=image_id(image, otherwise=f"{dataset}/{image.stem}"),
                        query=query,
                        is_sentence=bool(target["is_sentence"]),
                        keyword=policy.keyword(image, query, category),
                        text=f"the {category}" if category and policy.name != "category" else None,
                        slices={**own, "length": length_slice(query), **(slices or {})},
                        load_mask=mask,
                    )
                )
    missing = check_images((e.image for e in examples), f"unpack it again: rm -r {root}", problems)
    return [e for e in examples if e.image not in missing]


def _mask(target: Mapping[str, Any], where: str) -> CocoMask:
    try:
        return CocoMask(target["mask"], *target["mask"]["size"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error


def _targets(file: Path, images: Path) -> Iterator[dict[str, Any]]:
    """The targets of one parquet file; writes their images."""
    try:
        table = pq.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no parquet file that can be read ({error})") from error
    names = set(table.schema_arrow.names)
    rows = _reason if {"text", "mask"} <= names else _refer if "samples" in names else None
    if rows is None or "image" not in names:
        raise DataError(
            f"{file} has the columns {', '.join(sorted(names))}; known are image, text, mask "
            "(ReasonSeg) and image, samples (RefCOCO-M)"
        )
    number = 0
    for batch in table.iter_batches(batch_size=_ROWS):
        for row in batch.to_pylist():
            try:
                yield from rows(row, number, images)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{file}: row {number}: {type(error).__name__}: {error}") from error
            number += 1


def _reason(row: Mapping[str, Any], number: int, images: Path) -> Iterator[dict[str, Any]]:
    """A row of ReasonSeg: one query and one mask; a picture may come in several rows."""
    name = f"{number:06}" if row.get("ann_id") is None else str(row["ann_id"])
    image = _written(row["image"], images / Path(str(row.get("image_id") or name)).name)
    drawn = np.asarray(row["mask"], bool)
    if drawn.ndim != 2:
        raise ValueError(f"a mask of rows and columns expected, not of {drawn.ndim} dimensions")
    yield {
        "id": name,
        "image": image.name,
        "sentences": [str(row["text"]).strip()],
        "is_sentence": True,
        "category": None,
        "mask": {"size": list(drawn.shape), "counts": encode_rle(drawn)},
    }


def _refer(row: Mapping[str, Any], number: int, images: Path) -> Iterator[dict[str, Any]]:
    """A row of RefCOCO-M: an image with its targets."""
    image = _written(row["image"], images / Path(str(row.get("file_name") or number)).stem)
    for sample in row["samples"]:
        mask = sample["mask"]
        yield {
            "id": sample["id"],
            "image": image.name,
            "sentences": [str(sentence).strip() for sentence in sample["sentences"]],
            "is_sentence": False,
            "category": sample.get("category"),
            "mask": {"size": [int(side) for side in mask["size"]], "counts": mask["counts"]},
        }


def _written(picture: Mapping[str, Any], stem: Path) -> Path:
    """Write the bytes of a picture as they are, under the ending of their format."""
    content = picture["bytes"]
    with opened(io.BytesIO(content), stem.name) as image:
        form = str(image.format)
    if form not in _SUFFIXES:
        raise ValueError(f"a picture in {form}; known are {', '.join(_SUFFIXES)}")
    path = stem.with_name(stem.name + _SUFFIXES[form])
    path.write_bytes(content)
    return path
