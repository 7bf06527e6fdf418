"""`keyseg import predictions PATH --system NAME --data DATA --split SPLIT`: another system's masks.

They become cells like our own: in tables, contrasts, gallery, MLflow and reports, marked.
"""

from __future__ import annotations

import argparse
import csv
import getpass
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.compose import compose_config
from keyseg.commands.sync import bring_level
from keyseg.config import GENERATED, PROTOCOLS, ConfigError, RunConfig, resolve_path

if TYPE_CHECKING:
    from keyseg.data.predictions.matching import Matched
    from keyseg.sweep.imported import Import

# Imported late: what only this command needs, so that no other waits for it.

_SHOWN = 20
"""Unmatched predictions and examples that are printed; a file has them all."""
_MISSING = ("error", "empty", "left_out")

_FORMS = """PATH is, told by its content,
  a folder of PNGs        named by example id or image name; 0 and 255, or 0 and 1
  COCO results            a JSON list of {image_id, segmentation (run lengths), query?, score?}
  JSON Lines              {id (or image and query), mask (run lengths), score?, answer?} a line;
                          what `keyseg export predictions` writes; masks, a list, where a query
                          may have several targets
  ReLA's detailed results sums of pixels by expression, no masks
docs/protocols.md has an example of each. At the end of the line there may be keys of the data:
data.root=/x data.texts=all evaluation.texts=first"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("import", help="another system's masks as cells of a sweep")
    what = parser.add_subparsers(required=True, metavar="WHAT")
    parser = what.add_parser(
        "predictions",
        help="masks of any system",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_FORMS,
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="a file or folder; several are seeds 0, 1, ..."
    )
    parser.add_argument("--system", required=True, metavar="NAME", help='such as "LISA-7B-v1"')
    parser.add_argument("--data", required=True, help="an option of the group data: reason_seg")
    parser.add_argument("--split", default="test", help="val, test, testA, ... (test)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="how the system came by its answers: written by itself (generated, if left out), or "
        "given up to the tokens as in LISA's evaluation",
    )
    parser.add_argument(
        "--missing",
        choices=_MISSING,
        default=_MISSING[0],
        help="an example without a prediction is an error (if left out), an empty mask, left out",
    )
    parser.add_argument("--seed", type=int, help="of the first PATH (0)")
    parser.add_argument("--by", metavar="WHO", help="who says that these are its masks (you)")
    parser.add_argument("--name", help="of the folder in outputs/ (SYSTEM-DATA-SPLIT)")
    parser.set_defaults(run=_run, overrides=[])


def _run(options: argparse.Namespace) -> int:
    from keyseg.sweep import imported

    sweep_dir = resolve_path(options.outputs) / _folder(options)
    imports = list(_imports(options))
    complete = [_tell(each.file.path, each.matched, options) for each in imports]
    if not all(complete):
        print(
            "error: examples without a prediction: --missing empty counts them as empty masks, "
            "--missing left_out scores the others; nothing was imported",
            file=sys.stderr,
        )
        return 1
    for run in imported.write(sweep_dir, imports, _command(options)):
        _show(run.info)
    if options.protocol is None and not imports[0].file.head.get("protocol"):
        print(
            f"protocol: taken as {GENERATED}, since --protocol is not given: it stands beside "
            "generated answers of our own"
        )
    _, problems = bring_level(sweep_dir, None)
    for problem in problems:
        print(
            f"warning: MLflow is not level ({problem.lstrip(':/ ')}); "
            f"`keyseg sync {sweep_dir.name}` sends it later",
            file=sys.stderr,
        )
    print(f"beside our own: keyseg report SWEEP {sweep_dir.name}")
    return 0


def _imports(options: argparse.Namespace) -> Iterator[Import]:
    from keyseg.data import mix
    from keyseg.data.example import scored
    from keyseg.data.predictions import matching, reading
    from keyseg.data.split import as_test
    from keyseg.sweep.imported import Import

    cfg = _composed(options)
    data = as_test(cfg.data, options.split)
    mix.prepare(data)
    texts = cfg.evaluation.texts
    examples = [e for s in mix.load(data, "test") for e in scored(s.examples, texts)]
    for seed, path in enumerate(options.paths, start=options.seed or 0):
        file = reading.read(Path(path).expanduser().absolute())
        protocol = file.head.get("protocol")
        if options.protocol and protocol in PROTOCOLS and protocol != options.protocol:
            raise ConfigError(f"--protocol {options.protocol}: {path} says that it is {protocol}")
        yield Import(
            system=options.system,
            file=file,
            matched=matching.match(file.predictions, examples),
            data=data,
            texts=texts,
            protocol=options.protocol or (protocol if protocol in PROTOCOLS else GENERATED),
            said_by=options.by or getpass.getuser(),
            seed=seed,
            missing=options.missing,
        )


def _composed(options: argparse.Namespace) -> RunConfig:
    return compose_config([f"data={options.data}", *options.overrides])


def _folder(options: argparse.Namespace) -> str:
    from keyseg.sweep.design import folder_name

    if options.name:
        return folder_name(options.name)
    if not options.system.strip():
        raise ConfigError("--system is empty: give the system's name")
    words = f"{options.system}-{options.data}-{options.split}"
    plain = "".join(c if c.isalnum() or c in "+=.-_" else "-" for c in words)
    return folder_name(plain.lstrip(".")[:100])


def _tell(path: Path, matched: Matched, options: argparse.Namespace) -> bool:
    """Say what fits nothing; whether the import can go on."""
    unknown = [(u.prediction.where, u.prediction.title, u.reason) for u in matched.unknown]
    missing = [(e.id, e.image.name, e.query) for e in matched.missing]
    count = len(matched.pairs) + len(missing)
    print(f"{path}: {len(matched.pairs)} of {count} examples have a prediction")
    _listed(f"{len(unknown)} predictions are of no example (left out)", unknown)
    _listed(f"{len(missing)} examples have no prediction ({options.missing})", missing)
    if len(unknown) > _SHOWN or len(missing) > _SHOWN:
        file = _write_unmatched(path, unknown, missing, options)
        print(f"all of them: {file}")
    return not missing or options.missing != _MISSING[0]


def _listed(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    if rows:
        print(title + ":")
        for row in rows[:_SHOWN]:
            print(f"  {row[0]}: {row[1]}; {row[2]}")
        if len(rows) > _SHOWN:
            print(f"  and {len(rows) - _SHOWN} more")


def _write_unmatched(
    path: Path,
    unknown: Sequence[tuple[str, str, str]],
    missing: Sequence[tuple[str, str, str]],
    options: argparse.Namespace,
) -> Path:
    from keyseg.runs.spreadsheet import guarded

    folder = resolve_path(_composed(options).paths.reports) / "imports"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_folder(options)}-{path.stem}-unmatched.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("what", "where", "name", "reason or query"))
        for what, rows in (("prediction", unknown), ("example", missing)):
            writer.writerows((what, *map(guarded, row)) for row in rows)
    return file


def _show(info: dict[str, Any]) -> None:
    for protocol, scores in info["summary"].items():
        print(
            f"{info['label']}, seed {info['seed']}, {protocol}: gIoU {100 * scores['giou']:.1f}, "
            f"cIoU {100 * scores['ciou']:.1f} on {int(scores['examples'])} examples"
        )


def _command(options: argparse.Namespace) -> str:
    """The command as it can be given again."""
    words = ["keyseg", "import", "predictions", *options.paths, "--system", options.system]
    for name in ("data", "split", "protocol", "missing", "seed", "by", "name"):
        value = getattr(options, name)
        if value not in (None, _MISSING[0]):
            words += [f"--{name}", str(value)]
    return shlex.join([*words, *options.overrides])
