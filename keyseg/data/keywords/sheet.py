"""The sheet on which a person settles keywords, as CSV, and the way back from it.

A row counts where `checked` is filled in, or where `keyword` is not what was proposed; all others
stay open.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from keyseg.data.files import DataError
from keyseg.data.keywords import settle
from keyseg.data.keywords.file import replace
from keyseg.data.keywords.journal import HUMAN, Journal, Word
from keyseg.runs.spreadsheet import guarded, unguarded

_COLUMNS = ("checked", "keyword", "proposed", "now", "reason", "query", "answer", "image")
_NEEDED = {"checked", "keyword", "proposed", "query", "image"}


def rows(doubts: Iterable[settle.Doubt]) -> list[dict[str, str]]:
    """The sheet's rows, by `_COLUMNS`."""
    return [
        {
            "checked": "",
            "keyword": doubt.proposed,
            "proposed": doubt.proposed,
            "now": doubt.now,
            "reason": doubt.reason,
            "query": settle.key_of(doubt.item)[1],
            "answer": str(doubt.item.get("outputs") or ""),
            "image": str(doubt.item["image"]),
        }
        for doubt in doubts
    ]


def write(path: Path, sheet: Iterable[dict[str, str]]) -> None:
    """Write a sheet as CSV, with the mark by which spreadsheets know UTF-8.

    Queries and answers are others' words: what begins like a formula is guarded from being one.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS)
    table.writeheader()
    table.writerows({key: guarded(text) for key, text in row.items()} for row in sheet)
    replace(path, "\ufeff" + text.getvalue())


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a sheet, separated by commas, or by semicolons as some spreadsheets save it.

    Raises:
        DataError: the file is missing, is no text, or lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no sheet {path}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: save it as CSV in UTF-8") from error
    head = text.partition("\n")[0]
    table = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ","
    )
    if missing := sorted(_NEEDED - set(table.fieldnames or ())):
        raise DataError(
            f"{path} is no review sheet: it has no column {', '.join(missing)}. A sheet is what "
            "the page's Save button downloads, or what `review --out FILE.csv` wrote"
        )
    return [{k: unguarded(v or "") for k, v in row.items() if k is not None} for row in table]


def apply(
    sheet: Sequence[dict[str, str]], name: str, items: Sequence[settle.Item], journal: Journal
) -> tuple[int, int]:
    """Take a person's words over into the journal: how many corrected and confirmed keywords.

    What the journal has already is not taken twice.

    Raises:
        DataError: a row is on a query that the keyword file does not have; nothing is taken then.
    """
    known = {settle.key_of(item): str(item["image"]) for item in items}
    now = journal.current()
    words = []
    for number, row in enumerate(sheet, 2):
        key = Path(row["image"]).stem, row["query"].strip()
        if key not in known:
            raise DataError(
                f"{name}: row {number} is on a query that the keyword file does not have: "
                f"{row['image']}, {row['query'][:60]!r}"
            )
        word = " ".join(row["keyword"].split())
        if not row["checked"].strip() and word == row["proposed"].strip():
            continue
        if (now[key].keyword, now[key].origin) != (word, HUMAN):
            words.append(Word(known[key], key[1], word, HUMAN, name))
    corrected = sum(word.keyword != now[word.key].keyword for word in words)
    journal.add(words)
    return corrected, len(words) - corrected
