"""What cells are called on the screen: a label, with its seed where it needs one; many in brief."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SEED = re.compile(r"(.*) · seed (\d+)")
_LABELS = 6


def title_of(label: str, seed: object) -> str:
    """Label and seed: unique within a sweep."""
    return f"{label} · seed {seed}"


def unique_titles(cells: Iterable[tuple[str, object, str]]) -> list[str]:
    """Of (label, seed, signature): labels, with seed and then signature where they are the same."""
    rows = list(cells)
    plain = [label for label, _, _ in rows]
    if len(set(plain)) == len(plain):
        return plain
    seeded = [title_of(label, seed) for label, seed, _ in rows]
    if len(set(seeded)) == len(seeded):
        return seeded
    return [f"{title} · {name[:6]}" for title, (_, _, name) in zip(seeded, rows, strict=True)]


def in_brief(titles: Iterable[str], labels: int | None = _LABELS) -> str:
    """Many titles in a line: "full · seeds 0-3 and 7, cross · seed 1 and 20 more cells".

    labels: that are named, with all their seeds; None: all of them.
    """
    seeds: dict[str, list[int]] = {}
    for title in titles:
        match = _SEED.fullmatch(title)
        seeds.setdefault(match[1] if match else title, []).extend([int(match[2])] if match else [])
    shown = [label + _ranges(seeds[label]) for label in list(seeds)[:labels]]
    more = sum(len(seeds[label]) or 1 for label in list(seeds)[len(shown) :])
    rest = f" and {more} more cell{'s' * (more > 1)}" if more else ""
    return ", ".join(shown) + rest


def by_reason(cells: Iterable[tuple[str, str]]) -> list[str]:
    """Of (title, reason): a line for each reason, as "full · seeds 0-3: REASON"."""
    titles: dict[str, list[str]] = {}
    for title, reason in cells:
        titles.setdefault(reason, []).append(title)
    return [f"{in_brief(alike)}: {reason}" for reason, alike in titles.items()]


def _ranges(seeds: Sequence[int]) -> str:
    if not seeds:
        return ""
    ends: list[list[int]] = []
    for seed in sorted(seeds):
        if ends and seed == ends[-1][1] + 1:
            ends[-1][1] = seed
        else:
            ends.append([seed, seed])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ends]
    return f" · seed{'s' * (len(seeds) > 1)} {' and '.join(texts)}"
