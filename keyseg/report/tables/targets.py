"""What KEY has to name: how many keywords share their first token, and what guessing would score.

Keyword accuracy asks for the first token of the keyword ("the left man" -> "the"). Where several
keywords begin alike, the right token does not name the object: a collision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from keyseg.data.keywords.first_tokens import ambiguous_tokens
from keyseg.metrics import with_keyword
from keyseg.report.stats.parts import SLICE
from keyseg.report.store import Sweep
from keyseg.report.tables.table import DASH, Entry, Line, Table, percent

SHOWN = 3
"""Colliding tokens that the caption names, with this many of their keywords each."""


@dataclass(frozen=True)
class Targets:
    """Of the examples with a keyword. `collide`: share whose first token begins another keyword.

    `keyword`, `token`: the most frequent ones with their shares; shares are fractions, NaN where
    first tokens were not recorded or no example has a keyword.
    """

    examples: int
    keywords: int
    tokens: int | None
    collide: float
    keyword: tuple[str, float]
    token: tuple[str, float]


def count(samples: pd.DataFrame, every: pd.DataFrame | None = None) -> Targets:
    """Targets of these samples; keywords collide with those of `every` (None = these)."""
    own = samples[with_keyword(samples)]
    if "keyword_token" not in own:
        nothing = float("nan")
        size = len(own), own["keyword"].nunique()
        return Targets(*size, None, nothing, _top(own["keyword"]), ("", nothing))
    ambiguous = _ambiguous(samples if every is None else every)
    return Targets(
        len(own),
        own["keyword"].nunique(),
        own["keyword_token"].nunique(),
        float(own["keyword_token"].isin(list(ambiguous)).mean()) if len(own) else float("nan"),
        _top(own["keyword"]),
        _top(own["keyword_token"]),
    )


def table(sweep: Sweep, slices: Mapping[str, Sequence[str]]) -> Table | None:
    """Targets of the test split, whole and by the first slice; None where there are no keywords."""
    if not sweep.finished:
        return None
    every = [cell.samples for cell in sweep.finished]
    first = next((samples for samples in every if "keyword_token" in samples), every[0])
    rows = first[first["protocol"] == sweep.headline].drop_duplicates("id")
    if not with_keyword(rows).any():
        return None
    lines = [_line("all examples", count(rows))]
    name = next(iter(slices), "")
    for value in slices.get(name, ()):
        part = rows[rows[SLICE + name].astype(str) == value]
        if with_keyword(part).any():
            lines.append(_line(str(value), count(part, rows)))
    header = (
        "Examples with a keyword",
        "Keywords",
        "First tokens",
        "Collision rate",
        "Most frequent keyword",
        "Most frequent first token",
    )
    return Table(
        "keyword_targets",
        "What KEY has to name",
        "Keyword accuracy asks for the keyword's first token. Collision rate: percent of the "
        "examples whose first token also begins another keyword of the split, where the right "
        "token does not yet name the object. Always giving the most frequent token scores the "
        f"percentage in the last column.{_named(rows)}",
        "Test examples",
        header,
        lines,
        text=frozenset({4, 5}),
    )


def _ambiguous(samples: pd.DataFrame) -> dict[str, list[str]]:
    own = samples[with_keyword(samples)]
    return ambiguous_tokens(own["keyword"], own["keyword_token"])


def _named(rows: pd.DataFrame) -> str:
    if "keyword_token" not in rows:
        return " These runs did not record first tokens."
    ambiguous = _ambiguous(rows)
    if not ambiguous:
        return " No two keywords begin alike."
    parts = []
    for token, words in list(ambiguous.items())[:SHOWN]:
        more = ", …" if len(words) > SHOWN else ""
        parts.append(f"“{token}” ({', '.join(words[:SHOWN])}{more})")
    return f" Shared first tokens, most frequent first: {'; '.join(parts)}."


def _line(label: str, targets: Targets) -> Line:
    entries = (
        str(targets.examples),
        str(targets.keywords),
        DASH if targets.tokens is None else str(targets.tokens),
        percent(targets.collide),
        *map(_share, (targets.keyword, targets.token)),
    )
    return Line(label, [Entry(text) for text in entries])


def _share(of: tuple[str, float]) -> str:
    return f"{of[0]} ({percent(of[1])})" if of[0] else DASH


def _top(names: pd.Series[str]) -> tuple[str, float]:
    shares = names.value_counts(normalize=True)
    return (str(shares.index[0]), float(shares.iloc[0])) if len(shares) else ("", float("nan"))
