"""Mixes of data sets: which sources make a split, and the order in which training sees them.

The order is a pure function of (seed, step): it needs no state to resume, and it does not depend
on how many workers or processes load the images.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from keyseg.config import DRAWS, ConfigError, resolve_path
from keyseg.data.example import TEXTS, Example, scored
from keyseg.data.files import ABSENT, DataError, Problems, parsing_once
from keyseg.runs import garbage_collector, targets

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """One entry of a split: its examples, and how often its images are drawn (relative weight)."""

    examples: list[Example]
    weight: float


@dataclass(frozen=True)
class ImageGroup:
    """Expressions that travel together, since they share an image."""

    image: Path
    image_id: str
    examples: list[Example]


def prepare(data_cfg: Mapping[str, Any]) -> None:
    """Make the data if the group says how (`prepare`); call it once, before `load`."""
    if spec := _plain(data_cfg).get("prepare"):
        _call("prepare", spec)


def load(data_cfg: Mapping[str, Any], split: str) -> list[Source]:
    """Read one split of the `data` group: a `Source` for each entry of `splits.<split>`.

    An entry names `sources`, the `split` of theirs that is meant, a `weight` (default 1), and the
    `texts` of a target that count: "all" (default) or the "first".

    Raises:
        DataError: an unknown split or source, a reader that cannot be found or called, a weight
            that is not above 0, an example that comes twice, and all that readers raise.
    """
    return load_splits(data_cfg, [split])[0]


def load_splits(data_cfg: Mapping[str, Any], splits: Sequence[str] = SPLITS) -> list[list[Source]]:
    """`load` for several splits. A file that they share is parsed once."""
    cfg = _plain(data_cfg)
    entries = [list(_entries(cfg, split)) for split in splits]
    read = read_sources(
        cfg, (pair for of_split in entries for entry in of_split for pair in entry.pairs)
    )
    return [_sources(of_split, read) for of_split in entries]


Pair = tuple[str, str]
"""A source and the split of it that is meant."""


def read_sources(
    data_cfg: Mapping[str, Any],
    pairs: Iterable[Pair],
    problems: Mapping[Pair, Problems] | None = None,
) -> dict[Pair, list[Example]]:
    """`read_source` for each pair, one source after the other; shared files are parsed once."""
    cfg = _plain(data_cfg)
    by_source: dict[str, list[Pair]] = {}
    for pair in dict.fromkeys(pairs):
        by_source.setdefault(pair[0], []).append(pair)
    with parsing_once(), garbage_collector.paused():
        return {
            pair: read_source(cfg, *pair, problems[pair] if problems else None)
            for same in by_source.values()
            for pair in same
        }


def read_source(
    data_cfg: Mapping[str, Any], source: str, split: str, problems: Problems | None = None
) -> list[Example]:
    """One split of one source, as its reader yields it.

    With `problems`, the reader puts what is wrong with single targets into it and leaves them out.

    Raises:
        DataError: what the reader finds wrong; of absent files it names the key to set.
    """
    cfg = _plain(data_cfg)
    extra: dict[str, Any] = {"split": split} | ({} if problems is None else {"problems": problems})
    try:
        examples: list[Example] = _call(f"sources.{source}", cfg["sources"][source], **extra)
    except DataError as error:
        if error.kind != ABSENT or "root" not in cfg:
            raise
        raise DataError(
            f"{error}. Set data.root (now {cfg['root']}) in experiments/data/{cfg['name']}.yaml "
            "or on the command line",
            ABSENT,
        ) from error
    return examples


@dataclass(frozen=True)
class _Entry:
    """One entry of a split, before it is read. where: its place in the config."""

    where: str
    weight: float
    texts: str
    pairs: list[Pair]


def _entries(cfg: Mapping[str, Any], split: str) -> Iterator[_Entry]:
    splits, sources = cfg.get("splits") or {}, cfg.get("sources") or {}
    if split not in splits:
        raise DataError(
            f"data={cfg.get('name', '?')} has no split '{split}'; it has: "
            f"{', '.join(splits) or 'none'}"
        )
    if not splits[split]:
        raise DataError(f"data.splits.{split} is empty: list at least one entry with sources")
    for i, entry in enumerate(splits[split]):
        where = f"data.splits.{split}[{i}]"
        weight = float(entry.get("weight", 1.0))
        if not (weight > 0 and math.isfinite(weight)):
            raise DataError(f"{where}.weight={weight}: must be above 0")
        texts = str(entry.get("texts", "all"))
        if texts not in TEXTS:
            raise DataError(f"{where}.texts={texts}: must be one of {', '.join(TEXTS)}")
        names = list(entry.get("sources") or ())
        for source in names:
            if source not in sources:
                near = get_close_matches(source, sources, 1) or list(sources)
                raise DataError(f"{where}: unknown source '{source}'; meant {', '.join(near)}?")
        pairs = [(name, str(entry.get("split", split))) for name in names]
        yield _Entry(where, weight, texts, pairs)


def _sources(entries: Iterable[_Entry], read: Mapping[Pair, list[Example]]) -> list[Source]:
    """The sources of a split; no example may come twice in it."""
    sources, seen = [], set[str]()
    for entry in entries:
        examples = [example for pair in entry.pairs for example in read[pair]]
        examples = scored(examples, entry.texts)
        if not examples:
            raise DataError(f"{entry.where} has no examples: name its sources")
        for example in examples:
            if example.id in seen:
                raise DataError(
                    f"{entry.where}: example {example.id} comes twice; list a source once"
                )
            seen.add(example.id)
        sources.append(Source(examples, entry.weight))
    return sources


def groups(examples: Iterable[Example]) -> list[ImageGroup]:
    """Examples by image, in the order in which images first appear."""
    by_image: dict[Path, ImageGroup] = {}
    for e in examples:
        by_image.setdefault(e.image, ImageGroup(e.image, e.image_id, [])).examples.append(e)
    return list(by_image.values())


def fingerprint(sources: Sequence[Source]) -> str:
    """16 hex digits over weights, ids, queries, keywords, answers and annotations, in order.

    Paths do not count: the same data on another machine has the same fingerprint. Nothing is
    drawn: of a mask the annotation is hashed, once for all expressions that share it.
    """
    total = hashlib.sha256()
    for source in sources:
        total.update(repr(source.weight).encode())
        last: object = None
        for e in source.examples:
            fields = [e.id, e.image_id, e.query, e.is_sentence, e.keyword, e.text, e.slices]
            total.update(json.dumps(fields, sort_keys=True).encode())
            if e.load_mask is not last:
                last = e.load_mask
                digest = getattr(last, "digest", None)
                total.update(digest() if digest else e.mask().tobytes())
            if e.targets is not None:
                said = [e.answer, [(target.name, target.keyword) for target in e.targets]]
                total.update(json.dumps(said).encode())
                for target in e.targets:
                    digest = getattr(target.load_mask, "digest", None)
                    total.update(digest() if digest else target.load_mask().tobytes())
    return total.hexdigest()[:16]


class ImageSampler:
    """The order of training images: random, reproducible, with access to any step.

    The source of each image is drawn by weight. Within a source, images come in permutations
    (epochs), so that none comes again before all have come; with `draw` "uniform" each is drawn out
    of all, whatever came before. Of an image's expressions at most
    `expressions_per_image` are drawn, without replacement.
    """

    # First element of every generator's seed: each kind of draw has a stream of its own.
    _SOURCES, _IMAGES, _EXPRESSIONS = range(3)
    _BLOCK = 1024

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int,
        images_per_step: int,
        expressions_per_image: int,
        draw: str = DRAWS[0],
    ) -> None:
        if not sources or not all(s.examples for s in sources):
            raise DataError("nothing to sample: a source without examples")
        self.groups = [groups(s.examples) for s in sources]
        self.seed = seed
        self.images_per_step = images_per_step
        self.expressions_per_image = expressions_per_image
        self.uniform = draw == "uniform"
        weights = np.array([s.weight for s in sources], np.float64)
        self._shares = weights / weights.sum()
        # Memory of pure functions: never changes what is drawn, and two threads write the same.
        self._drawn_before = {0: np.zeros(len(sources), np.int64)}
        self._last_block = (-1, np.zeros(0, np.int64))
        self._permutations: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def step(self, n: int) -> list[ImageGroup]:
        """The images of step `n` (0 or more), each with the expressions drawn for it."""
        if n < 0:
            raise ValueError(f"step {n}: must be 0 or more")
        first = n * self.images_per_step
        return [self._draw(t) for t in range(first, first + self.images_per_step)]

    def _draw(self, t: int) -> ImageGroup:
        """The t-th image since the start of training."""
        source, earlier = self._source(t)
        group = self.groups[source][self._place(source, earlier, t)]
        surplus = len(group.examples) - self.expressions_per_image
        if surplus <= 0:
            return group
        generator = np.random.default_rng((self._EXPRESSIONS, self.seed, t))
        chosen = generator.choice(len(group.examples), self.expressions_per_image, replace=False)
        examples = [group.examples[i] for i in sorted(chosen)]
        return ImageGroup(group.image, group.image_id, examples)

    def _place(self, source: int, earlier: int, t: int) -> int:
        """Which image of a source comes t-th, after `earlier` ones of the same source."""
        size = len(self.groups[source])
        if self.uniform:
            return int(np.random.default_rng((self._IMAGES, self.seed, source, t)).integers(size))
        epoch, position = divmod(earlier, size)
        return int(self._permutation(source, epoch)[position])

    def _source(self, t: int) -> tuple[int, int]:
        """Source of the t-th image, and how many images came from that source before it."""
        block, offset = divmod(t, self._BLOCK)
        for b in range(len(self._drawn_before), block + 1):
            counts = np.bincount(self._sources_of_block(b - 1), minlength=len(self._shares))
            self._drawn_before[b] = self._drawn_before[b - 1] + counts
        drawn = self._sources_of_block(block)
        source = int(drawn[offset])
        earlier = self._drawn_before[block][source] + np.count_nonzero(drawn[:offset] == source)
        return source, int(earlier)

    def _sources_of_block(self, block: int) -> NDArray[np.int64]:
        known = self._last_block
        if known[0] != block:
            generator = np.random.default_rng((self._SOURCES, self.seed, block))
            known = (block, generator.choice(len(self._shares), self._BLOCK, p=self._shares))
            self._last_block = known
        return known[1]

    def _permutation(self, source: int, epoch: int) -> NDArray[np.int64]:
        known = self._permutations.get(source)
        if known is None or known[0] != epoch:
            generator = np.random.default_rng((self._IMAGES, self.seed, source, epoch))
            known = (epoch, generator.permutation(len(self.groups[source])))
            self._permutations[source] = known
        return known[1]


def _plain(cfg: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(cfg, DictConfig):
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}
    return dict(cfg)


def check_readers(data_cfg: Mapping[str, Any]) -> None:
    """Look whether every split names sources, and each reader can be called with what it is given.

    Raises:
        DataError: an empty split, a source that is none, a reader that cannot be found, or does
            not take these arguments.
    """
    cfg = _plain(data_cfg)
    for split in SPLITS:
        for entry in _entries(cfg, split):
            if not entry.pairs:
                raise DataError(f"{entry.where} has no examples: name its sources")
    if spec := cfg.get("prepare"):
        _bound("prepare", spec)
    for source, spec in (cfg.get("sources") or {}).items():
        _bound(f"sources.{source}", spec, split="train")


def _call(what: str, spec: Mapping[str, Any], **extra: Any) -> Any:
    """Call the function that `_target_` names with the other keys; `root` is made absolute."""
    return _bound(what, spec, **extra)()


def _bound(what: str, spec: Mapping[str, Any], **extra: Any) -> Callable[[], Any]:
    """`_call`, but for the call."""
    target = str(spec.get("_target_", ""))
    takes = ("root",) if what == "prepare" else ("root", "split")
    try:
        function = targets.find_function(f"data.{what}._target_", target, takes, "keyseg.data")
    except ConfigError as error:
        raise DataError(str(error)) from error
    if "problems" not in inspect.signature(function).parameters:
        extra.pop("problems", None)  # a reader that cannot collect stops at the first one
    arguments = {key: value for key, value in spec.items() if key != "_target_"} | extra
    if "root" in arguments:
        arguments["root"] = resolve_path(arguments["root"])
    form = inspect.signature(function)
    try:
        form.bind(**arguments)
    except TypeError as error:
        raise DataError(f"data.{what}: {error}; {target} takes {form}") from error
    return partial(function, **arguments)
