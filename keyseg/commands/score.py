"""`keyseg score RUN ...`: the same masks under the rules of public evaluations.

What only this command needs is imported late, so that no other waits for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING, Any

from keyseg.commands.runs import HELP, find_finished
from keyseg.config import ConfigError, resolve_path

if TYPE_CHECKING:
    from keyseg.dialects.dialect import Dialect

TITLES = {"giou": "gIoU", "ciou": "cIoU", "n_acc": "N-acc", "t_acc": "T-acc"}


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("score", help="a run's masks under the rules of other evaluations")
    parser.add_argument("runs", metavar="RUN", nargs="+", help=HELP)
    parser.add_argument(
        "--dialect",
        action="append",
        metavar="NAME",
        help="all (default), or one of docs/protocols.md; may be given several times",
    )
    parser.add_argument("--csv", metavar="FILE", help="write fractions there as well")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import pandas as pd
    from rich.console import Console

    from keyseg.dialects.score import dialects, score

    asked = choose(options.dialect or ["all"], dialects())
    rows = []
    for name in options.runs:
        run = find_finished(resolve_path(options.outputs), name)
        for protocol, samples in run.samples().groupby("protocol", sort=False):
            found = score(samples, asked)
            for dialect, scores in found.items():
                rows.append({"run": name, "protocol": protocol, "dialect": dialect, **scores})
    table = pd.DataFrame(rows)
    Console().print(_drawn(table))
    for line in notes(asked):
        print(line)
    if options.csv:
        table.to_csv(options.csv, index=False)
        print(f"fractions: {options.csv}")
    return 0


def choose(names: list[str], known: dict[str, Dialect]) -> list[Dialect]:
    """The dialects of these names.

    Raises:
        ConfigError: there is none of a name; says which one is near.
    """
    if "all" in names:
        return list(known.values())
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1) or list(known)
            raise ConfigError(f"--dialect {name}: there is none of this name; {', '.join(near)}?")
    return [known[name] for name in dict.fromkeys(names)]


def notes(asked: list[Dialect]) -> Iterator[str]:
    """What the masks of a run cannot tell of a dialect."""
    for dialect in asked:
        if dialect.limits:
            yield f"{dialect.name}: {dialect.limits}."


def _drawn(table: Any) -> Any:
    from rich.table import Table

    drawn = Table(title="the same masks under each dialect, percent", title_justify="left")
    words = ["run", "protocol", "dialect"]
    numbers = ["giou", "ciou", "precision@0.5", "n_acc", "t_acc"]
    numbers = [name for name in numbers if name in table and table[name].notna().any()]
    for name in words:
        drawn.add_column(name, overflow="fold")
    for name in numbers:
        drawn.add_column(TITLES.get(name, "P@0.5"), justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        values = [row[name] for name in numbers]
        cells = [f"{100 * value:.1f}" if isfinite(value) else "-" for value in values]
        drawn.add_row(*(str(row[name]) for name in words), *cells)
    return drawn
