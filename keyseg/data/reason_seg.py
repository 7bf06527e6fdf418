"""Reader of ReasonSeg and Reason-Seg-Key, and of what is written like them.

{root}/ReasonSeg/{split}/X.jpg + X.json                    image, queries and shapes
{root}/ReasonSeg/explanatory_key/keyword_outputs.json      a keyword and an answer for an image
{root}/ReasonSeg/explanatory/train.json                    answers alone, to extract keywords from

The last two are also found one level up, beside ReasonSeg/. They have an entry an image, which
holds for every wording of its query, as in KeySeg's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from keyseg.data.keywords import file as keyword_file
from keyseg.data.keywords.file import ByQuery
from keyseg.data.masks import ReasonMask
from keyseg.data.pictures import image_size

_PAGE = "https://github.com/dvlab-research/LISA (ReasonSeg: 1,218 images with annotations)"
KEYWORD_PAGE = "Reason-Seg-Key, published with KeySeg (Sensors 2025, 25(20), 6353)"
_ANSWERS = "explanatory/train.json"
_KEYWORDS = "explanatory_key/keyword_outputs.json"
_NO_SPLITS = ("explanatory", "explanatory_key")
_PUBLISHED = {"train": 239, "val": 200, "test": 779}
"""Images of each split, as published."""


def published(split: str, **_: Any) -> int | None:
    """Published number of images of a split."""
    return _PUBLISHED.get(split)


def public_file(root: Path, name: str) -> Path:
    """Where `name` lies: inside ReasonSeg/, where the public archives have it, or beside that."""
    inside = root / "ReasonSeg" / name
    return root / name if not inside.exists() and (root / name).exists() else inside


def answers(root: str | Path, **_: Any) -> tuple[ByQuery[str], Path]:
    """LISA's explanatory answers to training queries, and the file they were looked for in.

    Raises:
        DataError: the file is damaged.
    """
    path = public_file(Path(root), _ANSWERS)
    keywords: ByQuery[str] = ByQuery()
    if path.exists():
        for item in keyword_file.entries(path, ("image", "query", "outputs")):
            stem = Path(str(item["image"])).stem
            keywords.add(stem, str(item["query"]).strip(), str(item["outputs"]).strip())
    return keywords, path


def read(
    root: str | Path,
    split: str,
    texts: str = "all",
    slices: Mapping[str, str] | None = None,
    keywords: str | None = _KEYWORDS,
    problems: Problems | None = None,
) -> list[Example]:
    """Read one split. An example without an entry in the keyword file has keyword None.

    Args:
        root: the `reason_seg` folder.
        split: "train", "val" or "test".
        texts: "all" queries of an image, or the "first".
        slices: added to every example's own (dataset, split, size, length).
        keywords: the keyword file, relative to root/ReasonSeg or to root; None reads ReasonSeg
            without keywords.
        problems: takes what is wrong with single images, which are then left out.

    Raises:
        DataError: a folder, file or image is missing or damaged, or the split is empty.
    """
    root = Path(root)
    folder = _split_folder(root, split)
    files = sorted(p for p in folder.glob("*.json") if not p.name.startswith("."))
    if not files:
        raise DataError(
            f"split '{split}' is empty: no .json in {folder}. Public page: {_PAGE}", ABSENT
        )
    missing = check_images((p.with_suffix(".jpg") for p in files), _PAGE, problems)
    known = parsed(_keywords, public_file(root, keywords)) if keywords else ByQuery()
    examples = []
    for file in files:
        image = file.with_suffix(".jpg")
        if image in missing:
            continue
        with collecting(problems):
            examples += _examples(file, split, texts, slices or {}, known)
    return examples


def _examples(
    file: Path,
    split: str,
    texts: str,
    slices: Mapping[str, str],
    known: ByQuery[tuple[str | None, str | None]],
) -> list[Example]:
    image = file.with_suffix(".jpg")
    queries, is_sentence, mask = _annotation(file, image)
    own = {"dataset": "ReasonSeg", "split": split, "size": size_slice(mask.target_share())}
    examples = []
    for i, query in enumerate(first_or_all(texts, queries)):
        keyword, text = known.get(file.stem, query) or (None, None)
        examples.append(
            Example(
                id=f"ReasonSeg/{split}/{file.stem}-{i}",
                image=image,
                image_id=f"ReasonSeg/{split}/{file.stem}",
                query=query,
                is_sentence=is_sentence,
                keyword=keyword,
                text=text,
                slices={**own, "length": length_slice(query), **slices},
                load_mask=mask,
            )
        )
    return examples


def _split_folder(root: Path, split: str) -> Path:
    base = require(root / "ReasonSeg", "the ReasonSeg folder", _PAGE)
    folder = base / split
    known = sorted(p.name for p in base.iterdir() if p.is_dir() and p.name not in _NO_SPLITS)
    if split not in known:
        splits = ", ".join(known) or "none"
        raise DataError(
            f"{base} has no split '{split}'; it has: {splits}. Public page: {_PAGE}", ABSENT
        )
    return folder


def _annotation(file: Path, image: Path) -> tuple[list[str], bool, ReasonMask]:
    content = read_json(file)
    texts = content.get("text") if isinstance(content, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise DataError(f"{file}: 'text' must be a list of queries, not {str(texts)[:60]}")
    queries = [text.strip() for text in texts]
    if not all(queries):
        raise DataError(f"{file}: 'text' holds an empty query")
    try:
        mask = ReasonMask(content.get("shapes") or [], *image_size(image))
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: {error}") from error
    return queries, bool(content.get("is_sentence", False)), mask


def _keywords(path: Path) -> ByQuery[tuple[str | None, str | None]]:
    """Keyword and answer by image stem and query."""
    if not path.exists():
        raise DataError(
            f"the keyword file is missing: {path} ({KEYWORD_PAGE}). "
            "To read ReasonSeg without keywords set keywords: null in the source's YAML",
            ABSENT,
        )
    answers: ByQuery[tuple[str | None, str | None]] = ByQuery()
    for item in keyword_file.entries(path, ("json", "query", "keyword")):
        words = [keyword_file.text_or_none(item.get(name)) for name in ("keyword", "outputs")]
        stem = Path(str(item["json"])).stem
        answers.add(stem, str(item["query"]).strip(), (words[0], words[1]))
    return answers
