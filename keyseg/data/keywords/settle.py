"""A keyword file and its journal together: rules, corrections, and what is still in doubt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyseg.data.files import DataError
from keyseg.data.keywords import file as keyword_file
from keyseg.data.keywords.journal import EXTRACTED, HUMAN, RULE, Journal, Key, Word
from keyseg.data.keywords.rules import Normalised, normalise

Item = dict[str, Any]
"""One query in the form of the keyword file."""


@dataclass(frozen=True)
class Doubt:
    """One query to look at: `now` is the keyword it has, `proposed` what the rules would put."""

    item: Item
    now: str
    proposed: str
    reason: str


def key_of(item: Item) -> Key:
    """What tells an item's query from all others."""
    return Path(str(item["image"])).stem, str(item["query"]).strip()


def opened(path: Path) -> tuple[list[Item], Journal]:
    """A keyword file and its journal; words of a file that came without one are new in it.

    Raises:
        DataError: a file is missing or damaged.
    """
    if not path.exists():
        raise DataError(f"there is no keyword file {path}; `keyseg keywords extract` makes one")
    items, journal = keyword_file.entries(path), Journal(path)
    known = journal.current()
    journal.add(
        Word(str(i["image"]), key_of(i)[1], str(i["keyword"] or "").strip(), EXTRACTED, path.name)
        for i in {key_of(i): i for i in reversed(items)}.values()
        if key_of(i) not in known
    )
    return items, journal


def rule(items: Sequence[Item], journal: Journal) -> int:
    """Normalise what was extracted, but for what a person has settled; how many words changed."""
    raw, now = journal.last(EXTRACTED), journal.current()
    words = []
    for key, item in {key_of(i): i for i in items}.items():
        ruled, current = _ruled(raw[key].keyword, item), now[key]
        word = ruled.keyword or ""
        if current.origin != HUMAN and (word, ruled.reason) != (current.keyword, current.reason):
            words.append(Word(str(item["image"]), key[1], word, RULE, "rules", ruled.reason))
    return journal.add(words)


def write(path: Path, items: Iterable[Item], journal: Journal) -> None:
    """Write the keyword file with the words that count; a query without any is left out."""
    now = journal.current()
    known = [item for item in items if key_of(item) in now]
    keyword_file.write(path, ({**item, "keyword": now[key_of(item)].keyword} for item in known))


def doubts(items: Iterable[Item], journal: Journal, *, everything: bool = False) -> list[Doubt]:
    """What a person should look at, in the order of the file; settled queries are left out.

    `everything`: all queries, those included that are settled or not in doubt.
    """
    raw, now = journal.last(EXTRACTED), journal.current()
    doubtful = []
    for key, item in {key_of(i): i for i in items}.items():
        current, rules = now[key], _ruled(raw[key].keyword, item)
        settled = current.origin == HUMAN
        proposed = current.keyword if settled else rules.proposal or rules.keyword or ""
        reason = "" if settled else rules.reason
        if not settled and not reason and proposed != current.keyword:
            reason = "not in its one form"
        if reason or everything:
            doubtful.append(Doubt(item, current.keyword, proposed, reason))
    return doubtful


def _ruled(raw: str, item: Item) -> Normalised:
    return normalise(raw, str(item["query"]), str(item.get("outputs") or ""))
