"""What a data set on disk holds, and what is wrong with it: nothing stops at the first problem.

One row for each split of each source; keywords and overlap are counted over the whole mix.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyseg.data.example import Example
from keyseg.data.files import IMAGE, DataError
from keyseg.data.mix import read_source

MASK = "damaged mask"
"""Kind of error: the annotation is there and cannot be drawn."""

FirstToken = Callable[[str], str]
"""The first token of a keyword: what the keyword loss takes for its target."""


@dataclass(frozen=True)
class Row:
    """One split of one source. Counts are of targets unless they say otherwise.

    published: targets in print, None where none are known; targets and expressions: as read.
    no_target: expressions that name nothing on purpose; empty: masks that are empty and should not
    be. keywords: expressions with a keyword; colliding: those whose keyword shares its first token
    with another keyword; majority: expressions with the most frequent first token.
    """

    split: str
    source: str
    source_split: str
    targets: int
    published: int | None
    images: int
    expressions: int
    no_target: int
    empty: int
    keywords: int
    colliding: int
    majority: int
    errors: list[DataError] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Errors of a kind."""
        return sum(error.kind == kind for error in self.errors)

    @property
    def found(self) -> int | None:
        """Targets on disk, those left out included; None where absent images hide their number."""
        if self.count(IMAGE):
            return None
        return self.targets + len(self.errors) - self.count(MASK)


@dataclass(frozen=True)
class Result:
    """`overlap`: images that training shares with another split, by that split's name."""

    rows: list[Row]
    overlap: dict[str, set[str]]

    def problems(self) -> Iterator[str]:
        """One line for each thing that is wrong."""
        for row in self.rows:
            where = f"{row.source} {row.source_split}"
            for error in row.errors:
                yield f"{where}: {error}"
            if None not in (row.published, row.found) and row.found != row.published:
                yield f"{where}: {row.found} targets, {row.published} are published"
            if row.empty:
                yield f"{where}: {row.empty} masks are empty"
        for split, images in self.overlap.items():
            if images:
                few = ", ".join(sorted(images)[:3])
                yield f"{len(images)} images of {split} are in train as well: {few}"


def check(data_cfg: Mapping[str, Any], first_token: FirstToken) -> Result:
    """Read and draw everything that the splits of a `data` group name. Writes nothing.

    Raises:
        DataError: a file that everything else needs is absent, or the config is wrong.
    """
    rows, images = [], dict[str, set[str]]()
    for split, entries in data_cfg["splits"].items():
        for entry in entries or ():
            for source in entry["sources"]:
                source_split = str(entry.get("split", split))
                errors: list[DataError] = []
                examples = read_source(data_cfg, source, source_split, errors)
                spec = data_cfg["sources"][source]
                names = (split, source, source_split)
                # Data that is made here only borrows a public format.
                counted = None if data_cfg.get("prepare") else _published(spec, source_split)
                rows.append(_row(names, examples, counted, first_token))
                rows[-1].errors.extend(errors)
                images.setdefault(split, set()).update(e.image_id for e in examples)
    train = images.get("train", set())
    return Result(rows, {s: found & train for s, found in images.items() if s != "train"})


def _published(spec: Mapping[str, Any], split: str) -> int | None:
    """Asks the reader's module, if it has the function."""
    module = importlib.import_module(str(spec["_target_"]).rpartition(".")[0])
    ask = getattr(module, "published", None)
    arguments = {k: v for k, v in spec.items() if k not in ("_target_", "split")}
    return ask(split, **arguments) if ask else None


def _row(
    names: tuple[str, str, str],
    examples: Sequence[Example],
    published: int | None,
    first_token: FirstToken,
) -> Row:
    empty, no_target, errors = 0, 0, []
    drawn: dict[int, bool] = {}
    for e in examples:
        if e.slices.get("targets") == "none":
            no_target += 1
            continue
        if id(e.load_mask) not in drawn:
            try:
                drawn[id(e.load_mask)] = bool((e.mask() == 1).any())
            except DataError as error:
                drawn[id(e.load_mask)] = True
                errors.append(DataError(f"{e.id}: {error}", MASK))
                continue
            empty += not drawn[id(e.load_mask)]
    words = [e.keyword for e in examples if e.keyword]
    first = {word: first_token(word) for word in set(words)}
    shared = {token for token, n in Counter(first.values()).items() if n > 1}
    frequent = Counter(first[word] for word in words).most_common(1)
    return Row(
        *names,
        targets=len({e.id.rpartition("-")[0] for e in examples}),
        published=published,
        images=len({e.image_id for e in examples}),
        expressions=len(examples),
        no_target=no_target,
        empty=empty,
        keywords=len(words),
        colliding=sum(first[word] in shared for word in words),
        majority=frequent[0][1] if frequent else 0,
        errors=errors,
    )
