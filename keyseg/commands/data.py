"""`keyseg data check | show`: what a data set on disk holds, and what it looks like."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.compose import compose_config
from keyseg.config import ConfigError, RunConfig, resolve_path

if TYPE_CHECKING:
    from rich.table import Table

    from keyseg.data.check import Result

# Imported late: what only this command needs, so that no other waits for it.

_SHOWN = 12
"""Problems that are printed in full."""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    data = commands.add_parser("data", help="check or show a data set")
    what = data.add_subparsers(required=True, metavar="ACTION")
    check = what.add_parser("check", help="counts, gaps, keywords and overlap; exit code 1 if bad")
    show = what.add_parser("show", help="a contact sheet of examples as a PNG")
    for parser in (check, show):
        parser.add_argument("data", metavar="DATA", help="an option of the group data: refcoco")
        parser.add_argument(
            "overrides", metavar="KEY=VALUE", nargs="*", help="next to DATA: data.root=/x"
        )
    check.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="folder or hub id whose sub-tokens keywords are compared by; else by their words",
    )
    check.add_argument(
        "--images", action="store_true", help="decode every image as well, which takes long"
    )
    check.set_defaults(run=_check)
    show.add_argument("--n", type=int, default=12, help="examples on the sheet (12)")
    show.add_argument("--split", default="train", help="train, val or test (train)")
    show.add_argument("--seed", type=int, default=0, help="which examples (0)")
    show.add_argument("--out", metavar="FILE", help="reports/out/data/DATA-SPLIT.png")
    show.set_defaults(run=_show)


def _check(options: argparse.Namespace) -> int:
    from rich.console import Console

    from keyseg.data.check import check

    cfg = _config(options)
    first = _first_token(options.tokenizer)
    result = check(cfg.data, first, decode=options.images)
    print_table(options.data, result)
    console = Console()
    if result.policies:
        console.print(_policies(cfg.data["keyword"], result))
    print(_overlap(result))
    for line in result.facts():
        print(line)
    problems = list(result.problems())
    for line in problems[:_SHOWN]:
        print(f"problem: {line}")
    if len(problems) > _SHOWN:
        print(f"problem: and {len(problems) - _SHOWN} more")
    return 1 if problems else 0


def _show(options: argparse.Namespace) -> int:
    from keyseg.data.mix import load
    from keyseg.report.gallery.sheet import contact_sheet

    if options.n < 1:
        raise ConfigError(f"--n {options.n}: must be above 0")
    cfg = _config(options)
    examples = [e for source in load(cfg.data, options.split) for e in source.examples]
    sheet = contact_sheet(examples, options.n, options.seed)
    default = resolve_path(cfg.paths.reports) / "data" / f"{options.data}-{options.split}.png"
    out = Path(options.out).absolute() if options.out else default
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    print(out)
    return 0


def _config(options: argparse.Namespace) -> RunConfig:
    from keyseg.data.files import DataError
    from keyseg.data.mix import prepare

    cfg = compose_config([f"data={options.data}", *options.overrides])
    try:
        prepare(cfg.data)
    except DataError as error:
        raise ConfigError(str(error)) from error
    return cfg


def _first_token(tokenizer: str | None) -> Callable[[str], str]:
    """The keyword's first word, or its first sub-token under a tokenizer."""
    if tokenizer is None:
        return lambda keyword: keyword.split()[0].lower()
    from transformers import AutoTokenizer

    from keyseg.model.backbones.weights import cached_folder, is_hub_id

    folder: str | Path = tokenizer
    hint = ""
    try:
        if is_hub_id(tokenizer):
            hint = f"; `hf download {tokenizer} --include '*token*' config.json` gets it"
            cached = cached_folder(tokenizer, "tokenizer_config.json")
            if cached is None:
                raise OSError("not in the local Hugging Face cache")
            folder = cached
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--tokenizer {tokenizer}: cannot be loaded ({reason}){hint}") from error
    return lambda keyword: str(loaded.tokenize(keyword)[0])


def print_table(name: str, result: Result) -> None:
    """The counts; a table that is wider than the terminal is wrapped by it, rather than cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console, endless = Console(), Console(width=10_000)
    table = _table(name, result)
    gaps = 2 * len(table.columns)
    needed = Measurement.get(endless, endless.options, table).minimum + gaps
    if needed > console.width:
        console = Console(width=needed)
    console.print(table)


def _table(name: str, result: Result) -> Table:
    """One line a source and split; a column without anything in it is named below the table."""
    from rich import box
    from rich.table import Table

    from keyseg.data.files import IMAGE, UNANNOTATED

    lines = []
    for row in result.rows:
        missing, bare = row.count(IMAGE), row.count(UNANNOTATED)
        lines.append(
            {
                "split": row.split,
                "source": row.source
                + (f" ({row.source_split})" if row.source_split != row.split else ""),
                "targets": str(row.targets),
                "published": "-" if row.published is None else str(row.published),
                "images": str(row.images),
                "queries": str(row.expressions),
                "no target": str(row.no_target),
                "no shapes": str(len(row.shapeless)),
                "empty masks": str(len(row.empty)),
                "missing images": str(missing),
                "without annotation": str(bare),
                "damaged": str(len(row.errors) - missing - bare),
                "keywords": _share(row.keywords.keywords, row.expressions),
                "collide": _share(row.keywords.colliding, row.keywords.keywords),
                "majority": _share(row.keywords.majority, row.keywords.keywords),
            }
        )
    shown = {k for line in lines for k, v in line.items() if v not in ("0", "-")}
    left_out = [k for k in (lines[0] if lines else ()) if k not in shown]
    table = Table(
        title=f"data={name}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.caption = f"none: {', '.join(left_out)}" if left_out else None
    table.caption_justify = "left"
    for title in (k for k in (lines[0] if lines else ()) if k in shown):
        left = title in ("split", "source")
        widest = max(map(len, title.split()))
        table.add_column(title, justify="left" if left else "right", no_wrap=left, min_width=widest)
    for line in lines:
        table.add_row(*(v for k, v in line.items() if k in shown))
    return table


def _policies(chosen: str, result: Result) -> Table:
    """What the keyword policies would give for the refer data in train."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="keywords of refer data in train", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("data.keyword=", no_wrap=True)
    for title in ("keywords", "distinct", "collide", "majority"):
        table.add_column(title, justify="right")
    for policy, tokens in result.policies.items():
        table.add_row(
            policy + (" *" if policy == chosen else ""),
            str(tokens.keywords),
            str(tokens.distinct),
            _share(tokens.colliding, tokens.keywords),
            _share(tokens.majority, tokens.keywords),
        )
    table.caption, table.caption_justify = "* as configured", "left"
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _overlap(result: Result) -> str:
    overlaps = [f"{len(images)} of {split}" for split, images in result.overlap.items()]
    return f"images that train shares: {', '.join(overlaps) or 'there is no other split'}"
