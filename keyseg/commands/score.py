"""`keyseg score RUN ...`: the same masks under the rules of public evaluations.

What only this command needs is imported late, so that no other waits for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING, Any

from keyseg.config import ConfigError, resolve_path
from keyseg.runs.finding import HELP, find_scored, own_samples

if TYPE_CHECKING:
    import pandas as pd

    from keyseg.dialects.dialect import Dialect

TITLES = {
    "giou": "gIoU",
    "ciou": "cIoU",
    "precision@0.5": "P@0.5",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "count": "count",
    "riou": "rIoU",
    "r": "r",
}


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("score", help="a run's masks under the rules of other evaluations")
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help=f"{HELP}; others are held against the first"
    )
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

    from keyseg.dialects.keyseg import OURS
    from keyseg.dialects.score import dialects

    known = dialects()
    asked = choose(options.dialect or ["all"], known)
    runs = {
        name: own_samples(find_scored(resolve_path(options.outputs), name)) for name in options.runs
    }
    table = pd.DataFrame(list(_scored(runs, asked, known[OURS])))
    first = next(iter(runs))
    print(f"percent; +/-: gIoU less that of {OURS} on the same masks")
    for (name, protocol), rows in table.groupby(["run", "protocol"], sort=False):
        against = first if name != first else ""
        Console().print(_drawn(str(name), str(protocol), rows, against))
    for line in notes(asked):
        print(line)
    if options.csv:
        table.to_csv(options.csv, index=False)
        print(f"fractions: {options.csv}")
    return 0


def _scored(
    runs: dict[str, pd.DataFrame], asked: list[Dialect], ours: Dialect
) -> Iterator[dict[str, Any]]:
    """A row for each run, protocol and dialect.

    more: gIoU less that of our own rule on the same masks. difference, low, high, common: gIoU less
    that of the first run, on the examples that both have.
    """
    from keyseg.dialects.paired import difference
    from keyseg.dialects.score import seen

    first: dict[str, dict[str, pd.DataFrame]] = {}
    for name, samples in runs.items():
        images = samples.set_index(samples["id"].astype(str)).get("image_id")
        for protocol, rows in samples.groupby("protocol", sort=False):
            frames = seen(rows, {d.name: d for d in [*asked, ours]}.values())
            ours_giou = ours.summarise(frames[ours.name])["giou"]
            against = first.setdefault(str(protocol), frames)
            for dialect in asked:
                if dialect.several and frames[dialect.name].empty and len(asked) > 1:
                    continue  # it is of other data
                scores = dialect.summarise(frames[dialect.name])
                row = {"run": name, "protocol": protocol, "dialect": dialect.name, **scores}
                row["more"] = scores["giou"] - ours_giou
                if against is not frames and images is not None:
                    by_id = images[~images.index.duplicated()].astype(str)
                    bounds = difference(dialect, frames[dialect.name], against[dialect.name], by_id)
                    row |= dict(zip(("difference", "low", "high", "common"), bounds, strict=True))
                yield row


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


def _drawn(run: str, protocol: str, rows: pd.DataFrame, first: str) -> Any:
    """A run's masks of one protocol, a line a dialect.

    first: the run that this one is held against; "" where it is that itself, or the only one.
    """
    from rich.table import Table
    from rich.text import Text

    against = f"; last column: less {first}" if first else ""
    title = Text(f"{run}, {protocol.replace('_', ' ')}{against}", style="bold")
    drawn = Table(title=title, title_justify="left")
    numbers = [name for name in TITLES if name in rows and rows[name].notna().any()]
    drawn.add_column("dialect", no_wrap=True)
    for name in numbers:
        drawn.add_column(TITLES[name], justify="right", no_wrap=True)
    drawn.add_column("+/-", justify="right", no_wrap=True)
    if first:
        drawn.add_column("gIoU less, 95 %", justify="right")
    for row in rows.to_dict("records"):
        values = [_percent(row[name]) for name in numbers]
        last = [_interval(row)] if first else []
        drawn.add_row(str(row["dialect"]), *values, _percent(row["more"], "+"), *last)
    return drawn


def _interval(row: dict[Any, Any]) -> str:
    if "difference" not in row or not isfinite(row["difference"]):
        return "-"
    ends = f"[{_percent(row['low'], '+')}, {_percent(row['high'], '+')}]"
    return f"{_percent(row['difference'], '+')} {ends}"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if isfinite(value) else "-"
