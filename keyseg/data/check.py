"""What a data set on disk holds and what is wrong with it: all problems, not only the first.

One row for each split of each source; keywords and overlap are counted over the whole mix.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from keyseg.data.coco_images import photograph
from keyseg.data.example import Example
from keyseg.data.files import IMAGE, DataError, Problems, parsing_once
from keyseg.data.keywords.first_tokens import Collisions, collisions
from keyseg.data.keywords.policy import POLICIES
from keyseg.data.mix import Pair, read_source, read_sources
from keyseg.data.pictures import open_rgb
from keyseg.runs import targets

MASK, PICTURE = "damaged mask", "damaged image"
"""Kinds of error: the annotation is there and cannot be drawn, the image and cannot be decoded."""

_NAMED = 20
"""Files that a line names."""

FirstToken = Callable[[str], str]
"""The first token of a keyword: what the keyword loss takes for its target."""


@dataclass(frozen=True)
class SplitCounts:
    """One split of one source. Counts are of targets unless they say otherwise.

    published: targets in print, None where none are known; targets and expressions: as read.
    no_target: expressions that name nothing on purpose; shapeless: images of ReasonSeg whose file
    has no shapes, which is so in the public data and scored as an empty target; empty: images of
    masks that are empty and should not be. keywords: of the expressions that have one.
    """

    split: str
    source: str
    source_split: str
    targets: int
    published: int | None
    images: int
    expressions: int
    no_target: int
    shapeless: list[str]
    empty: list[str]
    keywords: Collisions
    errors: list[DataError] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Errors of a kind."""
        return sum(error.kind == kind for error in self.errors)

    @property
    def on_disk(self) -> int | None:
        """Targets on disk, those left out included; None where absent images hide their number."""
        if self.count(IMAGE):
            return None
        return self.targets + len(self.errors) - self.count(MASK) - self.count(PICTURE)


@dataclass(frozen=True)
class Result:
    """`overlap`: images that training shares with another split, by that split's name.

    policies: what each keyword policy gives for the refer data in train, all sources together.
    """

    rows: list[SplitCounts]
    overlap: dict[str, set[str]]
    policies: dict[str, Collisions] = field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        """One line for each thing that is wrong."""
        for row in self.rows:
            where = f"{row.source} {row.source_split}"
            for error in row.errors:
                yield f"{where}: {error}"
            if None not in (row.published, row.on_disk) and row.on_disk != row.published:
                yield f"{where}: {row.on_disk} targets, {row.published} are published"
            if row.empty:
                yield f"{where}: {_counted(row.empty, 'mask is empty', 'masks are empty')}"
        for split, images in self.overlap.items():
            if images:
                few = ", ".join(sorted(images)[:3])
                yield f"{len(images)} images of {split} are in train as well: {few}"

    def facts(self) -> Iterator[str]:
        """One line for each thing that is as published, and good to know."""
        for row in self.rows:
            if row.shapeless:
                counted = _counted(row.shapeless, "image has no shapes", "images have no shapes")
                yield f"{row.source} {row.source_split}: {counted}, as published: an empty target"


def _counted(files: Sequence[str], one: str, several: str) -> str:
    """`2 masks are empty (a.jpg, b.jpg)`, the first few by name."""
    more = f", and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    what = one if len(files) == 1 else several
    return f"{len(files)} {what} ({', '.join(files[:_NAMED])}{more})"


@parsing_once()
def check(data_cfg: Mapping[str, Any], first_token: FirstToken, *, decode: bool = False) -> Result:
    """Read and draw everything that the splits of a `data` group name. Writes nothing.

    `decode`: open every image as well, which takes most of the time (about 100 images a second).

    Raises:
        DataError: a file that everything else needs is absent, or the config is wrong.
    """
    rows, images = [], dict[str, dict[str, str]]()
    names = [
        (split, source, str(entry.get("split", split)))
        for split, entries in data_cfg["splits"].items()
        for entry in entries or ()
        for source in entry["sources"]
    ]
    errors: dict[Pair, Problems] = {(source, there): [] for _, source, there in names}
    read = read_sources(data_cfg, errors, errors)
    for split, source, there in names:
        examples = read[source, there]
        # Data that is made here only borrows a public format.
        made = data_cfg.get("prepare")
        counted = None if made else _published(data_cfg["sources"][source], there)
        rows.append(_row((split, source, there), examples, counted, first_token))
        rows[-1].errors.extend(errors[source, there])
        if decode:
            rows[-1].errors.extend(_damaged(examples))
        images.setdefault(split, {}).update((photograph(e.image_id), e.image_id) for e in examples)
    train = images.get("train", {})
    overlap = {s: {own[p] for p in own.keys() & train} for s, own in images.items() if s != "train"}
    return Result(rows, overlap, _policies(data_cfg, first_token))


def _damaged(examples: Sequence[Example]) -> Iterator[DataError]:
    """Images that are cut off or not of the size that their masks have."""
    for e in {e.image: e for e in examples}.values():
        try:
            picture = open_rgb(e.image)
        except DataError as error:
            yield DataError(f"{error}; get it again, or convert it", PICTURE)
            continue
        with suppress(DataError):  # a mask that cannot be drawn is counted already
            size = picture.height, picture.width
            if size != (drawn := e.mask().shape):
                yield DataError(f"{e.image} is {size} (height, width), its mask {drawn}", PICTURE)


def _policies(data_cfg: Mapping[str, Any], first_token: FirstToken) -> dict[str, Collisions]:
    """Reads train once more for each policy; sources without the choice are left out."""
    entries = data_cfg["splits"].get("train") or ()
    policies = {}
    for policy in POLICIES:
        examples: list[Example] = []
        for entry in entries:
            for source in entry["sources"]:
                spec = dict(data_cfg["sources"][source])
                if "keyword" not in spec:
                    continue
                spec |= {"keyword": policy}
                if policy != "head_noun":
                    spec["keyword_file"] = None
                changed = {**data_cfg, "sources": {source: spec}}
                examples += read_source(changed, source, str(entry.get("split", "train")), [])
        if examples:
            policies[policy] = first_tokens(examples, first_token)
    return policies


def first_tokens(examples: Iterable[Example], first_token: FirstToken) -> Collisions:
    """The keywords of examples and how their first tokens collide."""
    words = [e.keyword for e in examples if e.keyword]
    known = {word: first_token(word) for word in set(words)}
    return collisions(words, [known[word] for word in words])


def _published(spec: Mapping[str, Any], split: str) -> int | None:
    """Asks the reader's module, if it has the function."""
    read = targets.find("data.sources._target_", str(spec["_target_"]))
    module = importlib.import_module(read.__module__)
    ask = getattr(module, "published", None)
    arguments = {k: v for k, v in spec.items() if k not in ("_target_", "split")}
    return ask(split, **arguments) if ask else None


def _row(
    names: tuple[str, str, str],
    examples: Sequence[Example],
    published: int | None,
    first_token: FirstToken,
) -> SplitCounts:
    no_target, errors = 0, []
    shapeless: list[str] = []
    empty: list[str] = []
    drawn: dict[int, bool] = {}
    for e in examples:
        if e.no_target:
            no_target += 1
            continue
        if id(e.load_mask) not in drawn:
            try:
                drawn[id(e.load_mask)] = bool((e.mask() == 1).any())
            except DataError as error:
                drawn[id(e.load_mask)] = True
                errors.append(DataError(f"{e.id}: {error}", MASK))
                continue
            if not drawn[id(e.load_mask)]:
                silent = getattr(e.load_mask, "says_nothing", False)
                (shapeless if silent else empty).append(e.image.name)
    return SplitCounts(
        *names,
        targets=len({e.id.rpartition("-")[0] for e in examples}),
        published=published,
        images=len({e.image_id for e in examples}),
        expressions=len(examples),
        no_target=no_target,
        shapeless=shapeless,
        empty=empty,
        keywords=first_tokens(examples, first_token),
        errors=errors,
    )
