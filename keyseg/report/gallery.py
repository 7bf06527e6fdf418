"""Examples to look at: the best, the worst, the most disputed, and some drawn blindly.

Every variant shows its first finished seed under the headline protocol. Extremes are what they
are called; the blind draw is what a typical example looks like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from keyseg.config import resolve_path
from keyseg.report import overlay
from keyseg.report.scores import SLICE
from keyseg.report.store import Sweep, Variant
from keyseg.report.style import TARGET, look

PER_KIND = 6
WORDS = 3
KINDS: tuple[tuple[str, str, str], ...] = (
    ("best", "Best", "highest mean IoU over variants"),
    ("worst", "Worst", "lowest mean IoU over variants"),
    ("disputed", "Most disputed", "largest spread of IoU between variants"),
    ("random", "Drawn at random", "not chosen by score"),
)


@dataclass(frozen=True)
class Word:
    """One of KEY's top words. `share`: probability, 0..1; `right`: it is the keyword."""

    word: str
    share: float
    right: bool


@dataclass(frozen=True)
class Picture:
    """One image of a row: a data URI and what stands below it."""

    title: str
    uri: str
    index: int | None = None
    iou: str = ""
    words: tuple[Word, ...] = ()
    answer: str = ""
    note: str = ""


@dataclass(frozen=True)
class Item:
    """One example with all its pictures. `tags`: its slices, style first."""

    kind: str
    id: str
    query: str
    keyword: str
    style: str
    tags: tuple[str, ...]
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Items by kind, in the order of `KINDS`, and the styles to filter by."""

    items: Mapping[str, Sequence[Item]]
    styles: Sequence[str]
    protocol: str


def build(sweep: Sweep, seed: int) -> Gallery | None:
    """Pick and draw; None where no variant has results."""
    shown = [v for v in sweep.variants if v.finished]
    if not shown:
        return None
    protocol = sweep.protocols[0]
    tables = {v.label: _table(v, protocol) for v in shown}
    answers = {v.label: _table(v, "generated") for v in shown} if protocol != "generated" else {}
    iou = pd.DataFrame({label: table["iou"].astype(float) for label, table in tables.items()})
    facts = pd.concat(tables.values())
    facts = facts[~facts.index.duplicated()]
    style = facts[SLICE + "style"].astype(str) if SLICE + "style" in facts else None
    chosen = pick(iou, style, seed)
    items = {
        kind: [_item(kind, _row(facts, i), shown, tables, answers) for i in chosen[kind]]
        for kind, _, _ in KINDS
    }
    styles = sorted(style.unique()) if style is not None else []
    return Gallery(items, styles if len(styles) > 1 else [], protocol)


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
    ranked = {
        "best": mean.sort_values(ascending=False, kind="stable"),
        "worst": mean.sort_values(kind="stable"),
        "disputed": spread[spread > 0].sort_values(ascending=False, kind="stable"),
        "random": mean,
    }
    out = {}
    for kind, values in ranked.items():
        groups = style.reindex(values.index) if style is not None else pd.Series("", values.index)
        each = ceil(PER_KIND / max(1, groups.nunique()))
        kept = values.dropna().groupby(groups, sort=False).head(each)
        out[kind] = [str(i) for i in kept.index]
    return out


def _table(variant: Variant, protocol: str) -> pd.DataFrame:
    samples = variant.finished[0].samples
    rows = samples[samples["protocol"] == protocol].drop_duplicates("id")
    return rows.set_index(rows["id"].astype(str))


def _row(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    row = table.loc[name]
    assert isinstance(row, pd.Series), f"{name} is there twice"
    return row


def _item(
    kind: str,
    fact: pd.Series[Any],
    variants: Sequence[Variant],
    tables: Mapping[str, pd.DataFrame],
    answers: Mapping[str, pd.DataFrame],
) -> Item:
    size = int(fact["height"]), int(fact["width"])
    path = resolve_path(str(fact["image"]))
    image, there = overlay.load(path, *size)
    target = overlay.decode(fact.get("target_rle"), *size)
    plain = Picture("Image", overlay.jpeg_uri(image))
    wanted = Picture(
        "Target",
        overlay.jpeg_uri(overlay.draw(image, target, TARGET)),
        note="" if target is not None and target.any() else "empty",
    )
    name = str(fact["id"])
    pictures = [
        _prediction(v, tables[v.label], answers.get(v.label), name, image, target) for v in variants
    ]
    slices = {c.removeprefix(SLICE): fact[c] for c in fact.index if str(c).startswith(SLICE)}
    style = _text(slices.pop("style", ""))
    tags = [style, *(_tag(k, v) for k, v in slices.items() if k in ("size", "length"))]
    return Item(
        kind,
        name,
        _text(fact["query"]),
        _text(fact["keyword"]),
        style,
        tuple(tag for tag in tags if tag),
        (plain, wanted, *pictures),
        "" if there else f"image not found: {fact['image']}",
    )


def _prediction(
    variant: Variant,
    table: pd.DataFrame,
    generated: pd.DataFrame | None,
    name: str,
    image: np.ndarray,
    target: np.ndarray | None,
) -> Picture:
    if name not in table.index:
        empty = overlay.jpeg_uri(overlay.draw(image, None, TARGET))
        return Picture(variant.label, empty, variant.index, note="not evaluated on this example")
    row = _row(table, name)
    mask = overlay.decode(row.get("mask_rle"), int(row["height"]), int(row["width"]))
    outline = (target, TARGET) if target is not None else None
    said = _row(generated, name) if generated is not None and name in generated.index else row
    note = "no mask stored" if mask is None else "" if mask.any() else "empty mask"
    return Picture(
        variant.label,
        overlay.jpeg_uri(overlay.draw(image, mask, look(variant.index).colour, outline)),
        variant.index,
        f"{100 * float(row['iou']):.0f}" if np.isfinite(float(row["iou"])) else "–",
        top_words(row.get("top_words"), _text(row["keyword"])),
        _text(said["answer"]),
        note,
    )


def top_words(stored: object, keyword: str) -> tuple[Word, ...]:
    """KEY's first words from a sample's JSON `[[word, probability], ...]`; () where unreadable."""
    try:
        pairs = json.loads(str(stored))
        return tuple(
            Word(str(word), float(share), bool(keyword) and str(word).strip() == keyword)
            for word, share in pairs[:WORDS]
        )
    except (ValueError, TypeError):
        return ()


def _tag(name: str, value: object) -> str:
    return f"{name}: {_text(value)}" if _text(value) else ""


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)
