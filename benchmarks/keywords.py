"""How often the rules of data.keyword=head_noun err, and how fast they are.

    python benchmarks/keywords.py
    python benchmarks/keywords.py mine.csv        sentences of your own: kind,expression,keyword

Sentences with their keyword given by hand: `written.csv`, which was looked at while rules were
written, and `held_out.csv`, written before and looked at for its rate only. `--wrong` prints what
is wrong, but of no held-out file. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from pathlib import Path

from keyseg.config import PROJECT
from keyseg.data.keywords.head_noun import head_noun

FOLDER = PROJECT / "tests" / "data" / "keywords"
SPEED_SENTENCES = 50_000


def wrong(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows whose keyword the rules do not find; an empty keyword is none."""
    return [row for row in rows if (head_noun(row["expression"]) or "") != row["keyword"]]


def speed(rows: list[dict[str, str]]) -> float:
    """Sentences per second of this process's own time, the lexicon loaded."""
    sentences = [row["expression"] for row in rows]
    repeats = SPEED_SENTENCES // len(sentences) + 1
    start = time.process_time()
    for sentence in sentences * repeats:
        head_noun(sentence)
    return repeats * len(sentences) / (time.process_time() - start)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="CSV files; default: the project's own")
    parser.add_argument("--wrong", action="store_true", help="print what is wrong")
    options = parser.parse_args()
    results = {}
    everything: list[dict[str, str]] = []
    for path in options.files or [FOLDER / "written.csv", FOLDER / "held_out.csv"]:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        everything += rows
        missed = wrong(rows)
        print(f"{path.name}: {len(missed)} of {len(rows)} wrong ({len(missed) / len(rows):.1%})")
        kinds = Counter(row["kind"] for row in missed)
        for kind, count in Counter(row["kind"] for row in rows).items():
            print(f"  {kind:14} {kinds[kind]:3} of {count:3}")
        if options.wrong and path.name != "held_out.csv":
            for row in missed:
                print(f"  {row['expression']!r}: {head_noun(row['expression'])}, {row['keyword']}")
        results[path.stem] = {"sentences": len(rows), "wrong": len(missed), "kinds": dict(kinds)}
    rate = speed(everything)
    print(f"{rate:,.0f} sentences a second")
    print(
        json.dumps(
            {"benchmark": "keywords", "results": results, "sentences_per_second": round(rate)}
        )
    )


if __name__ == "__main__":
    main()
