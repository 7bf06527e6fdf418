"""`keyseg keywords extract | review`: keywords by a language model, rules, and a person's eye."""

from __future__ import annotations

import argparse
import importlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.compose import compose_config
from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.runs import targets

if TYPE_CHECKING:
    from keyseg.data.example import Example
    from keyseg.data.keywords.extract import Generate
    from keyseg.data.keywords.file import ByQuery

# Imported late: what only this command needs, so that no other waits for it.

MODEL = "google/flan-t5-xl"
_SIZES = {
    "google/flan-t5-small": "0.3 GB",
    "google/flan-t5-base": "1 GB",
    "google/flan-t5-large": "3.1 GB",
    "google/flan-t5-xl": "11.4 GB",
    "google/flan-t5-xxl": "45 GB",
}
"""Downloads of the public weights."""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("keywords", help="make keywords for a data set, and review them")
    what = parser.add_subparsers(required=True, metavar="ACTION")
    extract = what.add_parser(
        "extract",
        help="ask a text2text model for the keyword of every query; the same command goes on",
    )
    review = what.add_parser(
        "review", help="a sheet of keywords in doubt; --apply takes its corrections over"
    )
    for sub in (extract, review):
        sub.add_argument("data", metavar="DATA", help="an option of the group data: reason_seg")
        sub.add_argument(
            "overrides", metavar="KEY=VALUE", nargs="*", help="next to DATA: data.root=/x"
        )
        sub.add_argument("--split", default="train", help="train, val or test (train)")
        sub.add_argument(
            "--file",
            metavar="FILE",
            help="the keyword file (reports/out/keywords/DATA-SPLIT/keyword_outputs.json)",
        )
    extract.add_argument(
        "--model", default=MODEL, metavar="ID", help=f"hub id or folder of the model ({MODEL})"
    )
    extract.add_argument(
        "--prompt", default="paper", help="paper, released, or a file with {query} and {answer}"
    )
    extract.add_argument("--batch", type=int, default=16, help="queries at a time (16)")
    extract.add_argument("--device", default="auto", help="cpu, cuda, or auto (auto)")
    extract.set_defaults(run=_extract)
    review.add_argument(
        "--out", metavar="SHEET", help="a .html page with pictures, or a .csv (beside the file)"
    )
    review.add_argument("--all", action="store_true", help="all queries, not those in doubt only")
    review.add_argument(
        "--rules", action="store_true", help="first bring all keywords to their one form by rules"
    )
    review.add_argument(
        "--apply", metavar="CSV", help="take over the corrections of a sheet, once each"
    )
    review.set_defaults(run=_review)


def _extract(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from keyseg.data.keywords import extract, settle
    from keyseg.data.keywords.journal import Journal

    if options.batch < 1:
        raise ConfigError(f"--batch {options.batch}: must be above 0")
    form = extract.template(options.prompt)
    path = _file(options)
    with _alone(path):
        examples, answers, looked = _read(_config(options), options.split)
        items = extract.items_of(examples, answers)
        journal = Journal(path)
        by = f"{options.model}, prompt {options.prompt}"
        if not any(item["outputs"] for item in items):
            places = f" (there is no {' nor '.join(map(str, looked))})" if looked else ""
            print(f"no answers are known: keywords are taken from the queries alone{places}")
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("queries", total=len(items))
            load = _loader(options)
            for n in extract.extract(items, journal, load, form, by, options.batch):
                bar.advance(task, n)
        settle.rule(items, journal)
        settle.write(path, items, journal)
        _report(path, journal.current().values())
    print(f"next: keyseg keywords review {options.data} --split {options.split}")
    return 0


def _review(options: argparse.Namespace) -> int:
    from keyseg.data.keywords import file, settle, sheet

    path = _file(options)
    out = Path(options.out) if options.out else path.with_name("review.html")
    if out.suffix not in (".csv", ".html"):
        raise ConfigError(f"--out {out}: must end with .html or .csv")
    with _alone(path):
        items, journal = settle.opened(path)
        if options.rules:
            print(f"by rules: changed {settle.rule(items, journal)}")
        if options.apply:
            rows = sheet.read(Path(options.apply))
            name = Path(options.apply).name
            corrected, confirmed = sheet.apply(rows, name, items, journal)
            print(f"by hand: corrected {corrected}, confirmed {confirmed}")
        if options.rules or options.apply:
            settle.write(path, items, journal)
            _report(path, journal.current().values())
        doubts = settle.doubts(items, journal, everything=options.all)
        if options.apply and not options.out:
            print(f"still in doubt: {len(doubts)}")
            return 0
        if out.suffix == ".csv":
            sheet.write(out, sheet.rows(doubts))
        else:
            from keyseg.report.gallery.keyword_sheet import page

            examples, *_ = _read(_config(options), options.split)
            file.replace(out, page(options.data, sheet.rows(doubts), examples))
    print(f"{out}: {len(doubts)} of {len(items)} keywords to look at")
    return 0


def _config(options: argparse.Namespace) -> RunConfig:
    from keyseg.data.mix import prepare

    cfg = compose_config([f"data={options.data}", *options.overrides])
    prepare(cfg.data)
    return cfg


def _file(options: argparse.Namespace) -> Path:
    if options.file:
        return Path(options.file).absolute()
    reports = resolve_path("reports/out")
    return reports / "keywords" / f"{options.data}-{options.split}" / "keyword_outputs.json"


def _read(cfg: RunConfig, split: str) -> tuple[list[Example], ByQuery[str], list[Path]]:
    """Examples of a split, whatever keywords they have; the answers that readers know of, and the
    files that these were looked for in."""
    from keyseg.data.keywords.file import ByQuery
    from keyseg.data.mix import load

    answers: ByQuery[str] = ByQuery()
    looked = []
    for spec in cfg.data["sources"].values():
        if "_target_" not in spec:
            continue
        if spec["_target_"].endswith("reason_seg.read"):
            spec["keywords"] = None
        read = targets.find("data.sources._target_", spec["_target_"])
        module = importlib.import_module(read.__module__)
        if ask := getattr(module, "answers", None):
            by_query, file = ask(resolve_path(spec["root"]))
            answers.update(by_query)
            looked.append(file)
    return [e for source in load(cfg.data, split) for e in source.examples], answers, looked


def _loader(options: argparse.Namespace) -> Any:
    """Loads the model when it is called: not at all where everything is extracted already."""
    from keyseg.model.backbones.weights import is_hub_id, weights_path

    name = options.model
    page = f"https://huggingface.co/{name if is_hub_id(name) else MODEL}"
    size = _SIZES.get(name if is_hub_id(name) else MODEL, "size: see the page")
    remedy = (
        f"`hf download {name if is_hub_id(name) else MODEL}` gets it ({size}, {page}), or give "
        "--model a folder that holds a text2text model"
    )

    def load() -> Generate:
        from transformers.utils import logging

        from keyseg.data.keywords import extract
        from keyseg.train.device import pick_device

        logging.disable_progress_bar()
        path = weights_path(name)
        if not is_hub_id(name) and not Path(path).is_dir():
            raise ConfigError(f"--model {name}: there is no folder {path}. {remedy}")
        return extract.load(path, name, remedy, pick_device(options.device, "--device"))

    return load


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Work on the keyword file under a lock.

    Raises:
        ConfigError: another process works on it, or the disk refuses something; names the file.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(f"{path}: another process works on it; wait until it ends") from error
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror or error}") from error


def _report(path: Path, words: Any) -> None:
    kept, reasons, origins = 0, Counter[str](), Counter[str]()
    for word in words:
        kept += bool(word.keyword)
        origins[word.origin] += 1
        if word.reason:
            reasons[f"{word.reason}" + ("" if word.keyword else " (rejected)")] += 1
    total = sum(origins.values())
    print(f"{path}: {kept} of {total} queries have a keyword")
    print("origin: " + ", ".join(f"{n} {name}" for name, n in sorted(origins.items())))
    if reasons:
        print("in doubt: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()))
