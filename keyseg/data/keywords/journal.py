"""Where each keyword comes from: a file of lines beside the keyword file, only ever added to.

    keyword_outputs.json            what readers read: the latest word on every query
    keyword_outputs.origins.jsonl   every word on every query, in order: extracted, rule, human

A person's word stands until a person changes it, whatever is extracted or ruled later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from keyseg.data.files import DataError

EXTRACTED, RULE, HUMAN = "extracted", "rule", "human"
Key = tuple[str, str]
"""Stem of the image's name, and the query."""


@dataclass(frozen=True)
class Word:
    """What a model, the rules or a person say a query's keyword is; "" = it has none.

    by: the model and prompt, the rules, or the sheet that it is from. reason: why it was rejected
    or is in doubt.
    """

    image: str
    query: str
    keyword: str
    origin: str
    by: str
    reason: str = ""

    @property
    def key(self) -> Key:
        """Image and query of the entry."""
        return Path(self.image).stem, self.query


class Journal:
    """The entries on the queries of one keyword file."""

    def __init__(self, keyword_file: Path) -> None:
        """Read what is there; a line that a killed process left unfinished is dropped.

        Raises:
            DataError: the file holds something else.
        """
        self.path = keyword_file.with_suffix(".origins.jsonl")
        self.words: list[Word] = []
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        names = {f.name for f in fields(Word)}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                content = json.loads(line)
                self.words.append(Word(**{k: v for k, v in content.items() if k in names}))
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{self.path}: line {number} is no word on a query ({error}); take it out, or "
                    "move the file away to begin a new one"
                ) from error
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))

    def add(self, words: Iterable[Word]) -> int:
        """Write words to disk, all of them before this returns; how many there were."""
        new = list(words)
        if new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(w), ensure_ascii=False) + "\n" for w in new)
                file.flush()
                os.fsync(file.fileno())
            self.words += new
        return len(new)

    def last(self, *origins: str) -> dict[Key, Word]:
        """The latest word on each query, among those of these origins."""
        return {w.key: w for w in self.words if w.origin in origins}

    def current(self) -> dict[Key, Word]:
        """The word that counts on each query: the latest, or a person's if there is one."""
        return self.last(EXTRACTED, RULE) | self.last(HUMAN)
