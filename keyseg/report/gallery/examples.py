"""Examples to look at: wins and losses of each contrast, failures by kind, some drawn blindly.

Every variant shows its first finished seed under the headline protocol. Extremes are what they
are called; the blind draw is what a typical example looks like.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keyseg.config import GENERATED, resolve_path
from keyseg.data.masks import decode_rle
from keyseg.dialects.keyseg import OURS
from keyseg.metrics import RIGHT_MASK, key_asked, with_keyword
from keyseg.report.figures.style import PALETTE, TARGET, look
from keyseg.report.gallery import overlay
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.dialects import DISAGREE, moved
from keyseg.report.stats.parts import SLICE
from keyseg.report.store import Sweep, VariantResult

PER_KIND = 6
PER_CONTRAST = 4
CONTRASTS = 16
_WORDS = 3
SEEDS_APART = 0.2
"""IoU between the best and the worst seed of a variant from which its seeds disagree."""
FILTERS = ("style", "size", "length", "split", "distractors")

GENERAL: tuple[tuple[str, str, str], ...] = (
    ("best", "Best", "highest mean IoU over variants"),
    ("worst", "Worst", "lowest mean IoU over variants"),
    ("disputed", "Most disputed", "largest spread of IoU between variants"),
    ("seeds", "Most disputed between seeds", "largest spread of IoU between seeds of one variant"),
    ("key_right", "Failure: keyword right, mask wrong", "right top word and IoU < 0.5"),
    ("key_wrong", "Failure: keyword wrong, mask right", "wrong top word and IoU ≥ 0.5"),
    ("empty", "Failure: empty mask", "no pixel predicted"),
    ("several", "Failure: several objects", "two or more parts, target in one, IoU < 0.5"),
    ("dialects", "Moved most by the rules", "largest spread of IoU between dialects"),
    ("random", "Drawn at random", "not chosen by score"),
)


@dataclass(frozen=True)
class TopWord:
    """One of KEY's top words. `probability`: 0..1; `right`: it is the keyword."""

    word: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Picture:
    """One image of a row and what stands below it. `layer`: a data URI that is laid over the row's
    image; "" = the image as it is.
    """

    title: str
    layer: str = ""
    index: int | None = None
    iou: str = ""
    words: tuple[TopWord, ...] = ()
    answer: str = ""
    note: str = ""


@dataclass(frozen=True)
class Item:
    """One example with its pictures. `image`: its key in the gallery's images; `ratio`: its width
    over its height; `slices`: what can be filtered by; `tags`: as shown.
    """

    kind: str
    image: int
    ratio: float
    id: str
    query: str
    keyword: str
    slices: Mapping[str, str]
    tags: tuple[str, ...]
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """`kinds`: (kind, title, meaning) in order; `items` by kind; `filters`: values by slice.

    `images`: data URIs, each once, however many items show it. `variants`: (index, label).
    `several`: whether queries may have several targets.
    """

    kinds: Sequence[tuple[str, str, str]]
    items: Mapping[str, Sequence[Item]]
    filters: Mapping[str, Sequence[str]]
    protocol: str
    images: Sequence[str]
    variants: Sequence[tuple[int, str]]
    several: bool = False


def build(sweep: Sweep, seed: int) -> Gallery | None:
    """Pick and draw; None where no variant has results."""
    shown = [v for v in sweep.variants if v.finished]
    if not shown:
        return None
    protocol = sweep.headline
    tables = {v.label: _table(v, protocol) for v in shown}
    answers = {v.label: _table(v, GENERATED) for v in shown} if protocol != GENERATED else {}
    iou = pd.DataFrame({label: table["iou"].astype(float) for label, table in tables.items()})
    facts = pd.concat(tables.values())
    facts = facts[~facts.index.duplicated()]
    style = facts[SLICE + "style"].astype(str) if SLICE + "style" in facts else None

    images: dict[Path, tuple[int, str]] = {}
    kinds: list[tuple[str, str, str]] = []
    items: dict[str, list[Item]] = {}

    def add(
        kind: tuple[str, str, str], ids: Sequence[str], variants: Sequence[VariantResult]
    ) -> None:
        if ids:
            kinds.append(kind)
            rows = [_row(facts, i) for i in ids]
            items[kind[0]] = [
                _item(kind[0], row, variants, tables, answers, images) for row in rows
            ]

    for n, contrast in enumerate([c for c in declared(sweep) if c.plain][:CONTRASTS]):
        pair = (contrast.against, contrast.of)
        if all(v.label in iou for v in pair):
            gap = iou[contrast.of.label] - iou[contrast.against.label]
            for side, sign in (("win", 1), ("loss", -1)):
                title = f"Largest {'wins' if sign > 0 else 'losses'}: {contrast.name}"
                meaning = f"IoU furthest {'above' if sign > 0 else 'below'}"
                ids = ranked(sign * gap, style, seed, PER_CONTRAST)
                add((f"{side}{n}", title, meaning), ids, pair)
    chosen = pick(iou, style, seed)
    apart = seeds_apart(shown, protocol)
    chosen["seeds"] = ranked(apart.where(apart >= SEEDS_APART), style, seed, PER_KIND)
    for kind, failing in failures(tables).items():
        chosen[kind] = ranked(failing, style, seed, PER_CONTRAST)
    ruled = moved({v.label: v for v in shown}, protocol)
    if ruled:
        moves = pd.DataFrame({k: t.max(axis=1) - t.min(axis=1) for k, t in ruled.items()})
        chosen["dialects"] = ranked(moves.mean(axis=1), style, seed, PER_KIND)
    for general in GENERAL:
        add(general, chosen.get(general[0], []), shown)
    if "dialects" in items:
        items["dialects"] = [_with_rules(item, ruled) for item in items["dialects"]]
    named = [(v.index, v.label) for v in shown]
    uris = [uri for _, uri in images.values()]
    several = "n_targets" in facts and bool(facts["n_targets"].notna().any())
    return Gallery(kinds, items, _filters(items), protocol, uris, named, several)


def _with_rules(item: Item, ruled: Mapping[str, pd.DataFrame]) -> Item:
    """The item with the IoU of each mask under the rules that see it differently."""
    pictures = [
        replace(picture, note=rules_in_words(_row(ruled[picture.title], item.id).to_dict()))
        if picture.title in ruled and item.id in ruled[picture.title].index
        else picture
        for picture in item.pictures
    ]
    return replace(item, pictures=tuple(pictures))


def rules_in_words(row: Mapping[Any, float]) -> str:
    """`segzero 34, unipixel 21`: percent, of dialects that differ from ours by more than that."""
    ours = row[OURS]
    other = {name: value for name, value in row.items() if abs(value - ours) > DISAGREE}
    return ", ".join(f"{name} {100 * value:.0f}" for name, value in other.items())


def failures(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series[float]]:
    """For each kind of failure the share of variants that fail so, by example id; NaN = none."""
    columns: dict[str, list[pd.Series[Any]]] = {}
    for table in tables.values():
        iou = table["iou"].astype(float)
        named = with_keyword(table) & key_asked(table)
        right = named & (table["keyword_rank"] == 0)
        parts = _parts(table)
        fails = {
            "key_right": right & (iou < RIGHT_MASK),
            "key_wrong": named & ~right & (iou >= RIGHT_MASK),
            "empty": parts["mask"] == 0,
            "several": (parts["mask"] > 1) & (parts["target"] == 1) & (iou < RIGHT_MASK),
        }
        for kind, series in fails.items():
            columns.setdefault(kind, []).append(series)
    shares = {k: pd.concat(v, axis=1).astype(float).mean(axis=1) for k, v in columns.items()}
    return {kind: share.where(share > 0) for kind, share in shares.items()}


def seeds_apart(variants: Sequence[VariantResult], protocol: str) -> pd.Series[float]:
    """Largest spread of IoU between seeds of one variant, by example id; 0 for one seed."""
    spreads = []
    for variant in variants:
        by_seed = pd.concat(
            [_rows(cell.samples, protocol)["iou"].astype(float) for cell in variant.finished],
            axis=1,
        )
        spreads.append(by_seed.max(axis=1) - by_seed.min(axis=1))
    return pd.concat(spreads, axis=1).max(axis=1)


def ranked(
    values: pd.Series[float], style: pd.Series[str] | None, seed: int, most: int
) -> list[str]:
    """Ids of the largest positive values, at most `most`, in turn from every style.

    Ties (many examples have an IoU of 0) are broken by a seeded shuffle, not by name.
    """
    shuffled = values[values > 0].sort_index()
    order = np.random.default_rng(seed).permutation(len(shuffled))
    best = shuffled.iloc[order].sort_values(ascending=False, kind="stable")
    groups = style.reindex(best.index) if style is not None else pd.Series("", best.index)
    turn = best.groupby(groups, sort=False).cumcount()
    kept = turn.sort_values(kind="stable").index[:most]
    return [str(i) for i in best.index[best.index.isin(kept)]]


def _parts(table: pd.DataFrame) -> pd.DataFrame:
    """Connected parts of mask and target (specks below 4 % of the largest aside); NaN unstored."""
    from scipy.ndimage import label

    def count(stored: object, height: int, width: int) -> float:
        mask = overlay.decode(stored, height, width)
        if mask is None:
            return float("nan")
        areas = np.bincount(label(mask)[0].ravel())[1:]
        return float((areas >= 0.04 * areas.max()).sum()) if len(areas) else 0.0

    out = {}
    for name in ("mask", "target"):
        stored = table.get(f"{name}_rle", pd.Series("", table.index))
        sizes = zip(stored, table["height"], table["width"], strict=True)
        out[name] = [count(s, int(h), int(w)) for s, h, w in sizes]
    return pd.DataFrame(out, index=table.index)


def _filters(items: Mapping[str, Sequence[Item]]) -> dict[str, list[str]]:
    """Slices with more than one value among what is shown."""
    every = [item.slices for group in items.values() for item in group]
    values = {key: sorted({s[key] for s in every if s.get(key)}) for key in FILTERS}
    return {key: several for key, several in values.items() if len(several) > 1}


def pick(iou: pd.DataFrame, style: pd.Series[str] | None, seed: int) -> dict[str, list[str]]:
    """Ids for each kind, at least `PER_KIND` where there are, the same number from every style.

    Args:
        iou: index = example id, one column a variant; NaN where a variant lacks the example.
        style: by example id; None = all alike.

    Ties (many examples have an IoU of 0) are broken by a seeded shuffle, not by name.
    """
    shuffled = iou.sort_index()
    order = np.random.default_rng(seed).permutation(len(shuffled))
    shuffled = shuffled.iloc[order]
    mean = shuffled.mean(axis=1)
    spread = shuffled.max(axis=1) - shuffled.min(axis=1)
    orders = {
        "best": mean.sort_values(ascending=False, kind="stable"),
        "worst": mean.sort_values(kind="stable"),
        "disputed": spread[spread > 0].sort_values(ascending=False, kind="stable"),
        "random": mean,
    }
    out = {}
    for kind, values in orders.items():
        groups = style.reindex(values.index) if style is not None else pd.Series("", values.index)
        each = ceil(PER_KIND / max(1, groups.nunique()))
        kept = values.dropna().groupby(groups, sort=False).head(each)
        out[kind] = [str(i) for i in kept.index]
    return out


def _table(variant: VariantResult, protocol: str) -> pd.DataFrame:
    return _rows(variant.finished[0].samples, protocol)


def _rows(samples: pd.DataFrame, protocol: str) -> pd.DataFrame:
    rows = samples[samples["protocol"] == protocol].drop_duplicates("id")
    return rows.set_index(rows["id"].astype(str))


def _row(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    row = table.loc[name]
    assert isinstance(row, pd.Series), f"{name} is there twice"
    return row


def _item(
    kind: str,
    fact: pd.Series[Any],
    variants: Sequence[VariantResult],
    tables: Mapping[str, pd.DataFrame],
    answers: Mapping[str, pd.DataFrame],
    images: dict[Path, tuple[int, str]],
) -> Item:
    """An item; its image is added to `images`: place and data URI by path."""
    size = int(fact["height"]), int(fact["width"])
    path = resolve_path(str(fact["image"]))
    image, there = overlay.load(path, *size)
    target = overlay.decode(fact.get("target_rle"), *size)
    if path not in images:
        images[path] = (len(images), overlay.webp_uri(image))
    plain = Picture("Image")
    each = several_masks(fact, "targets_rle")
    colours: str | list[str] = TARGET if each is None else [colour_of(n) for n in range(len(each))]
    wanted = Picture(
        "Target",
        overlay.layer_uri(overlay.layer(image, target if each is None else each), colours, TARGET),
        note="" if target is not None and target.any() else "empty",
    )
    name = str(fact["id"])
    pictures = [
        _prediction(v, tables[v.label], answers.get(v.label), name, image, target) for v in variants
    ]
    slices = {key: _text(fact.get(SLICE + key)) for key in FILTERS}
    tags = [slices["style"], *(_tag(key, slices[key]) for key in ("size", "length", "distractors"))]
    return Item(
        kind,
        images[path][0],
        round(image.shape[1] / image.shape[0], 4),
        name,
        _text(fact["query"]),
        _text(fact["keyword"]),
        slices,
        tuple(tag for tag in tags if tag),
        (plain, wanted, *pictures),
        "" if there else f"image not found: {fact['image']}",
    )


def _prediction(
    variant: VariantResult,
    table: pd.DataFrame,
    generated: pd.DataFrame | None,
    name: str,
    image: np.ndarray,
    target: np.ndarray | None,
) -> Picture:
    if name not in table.index:
        empty = overlay.layer_uri(overlay.layer(image, None), TARGET, TARGET)
        return Picture(variant.label, empty, variant.index, note="not evaluated on this example")
    row = _row(table, name)
    mask = overlay.decode(row.get("mask_rle"), int(row["height"]), int(row["width"]))
    each = several_masks(row, "masks_rle")
    colour: str | list[str] = look(variant.index).colour if each is None else mask_colours(row)
    said = _row(generated, name) if generated is not None and name in generated.index else row
    there = "empty mask" if mask is not None and not mask.any() else ""
    note = "no mask stored, or a damaged one" if mask is None else there
    if each is not None:
        wanted = int(row["n_targets"])
        note = "" if len(each) == wanted else f"masks: {len(each)}, targets: {wanted}"
    shown = mask if each is None else each
    return Picture(
        variant.label,
        overlay.layer_uri(overlay.layer(image, shown, target), colour, TARGET),
        variant.index,
        f"{100 * float(row['iou']):.0f}" if np.isfinite(float(row["iou"])) else "–",
        top_words(row.get("top_words"), _text(row["keyword"])),
        _text(said["answer"]),
        note,
    )


def several_masks(row: pd.Series[Any], column: str) -> list[np.ndarray] | None:
    """(H, W) bool each, of a query that may have several targets; None of one that has one mask,
    or where they are damaged."""
    size = int(row["height"]), int(row["width"])
    try:
        return [decode_rle(stored, *size).astype(bool) for stored in json.loads(row[column])]
    except (KeyError, TypeError, ValueError):
        return None


def mask_colours(row: pd.Series[Any]) -> list[str]:
    """Of each mask that of the target it is matched with; those without have the next ones."""
    matches = json.loads(row["matches"])
    free = itertools.count(int(row["n_targets"]))
    return [colour_of(target if target >= 0 else next(free)) for target in matches]


def colour_of(number: int) -> str:
    """Of the n-th of several targets."""
    return PALETTE[number % len(PALETTE)]


def top_words(stored: object, keyword: str) -> tuple[TopWord, ...]:
    """KEY's first words from a sample's JSON `[[word, probability], ...]`; () where unreadable."""
    try:
        pairs = json.loads(str(stored))
        return tuple(
            TopWord(str(word), float(share), bool(keyword) and str(word).strip() == keyword)
            for word, share in pairs[:_WORDS]
        )
    except (ValueError, TypeError):
        return ()


def _tag(name: str, value: object) -> str:
    return f"{name}: {_text(value)}" if _text(value) else ""


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)
