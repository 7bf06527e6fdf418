"""`keyseg predict RUN IMAGE QUERY`: a finished run on any image, or on a table of images.

For each query NAME.json, NAME-mask.png and NAME-overlay.png, and a table of all for a table. A
model that gives several masks (data.targets=each) also has NAME-mask-1.png and so on, beside their
union. The JSON is written last, so where it is, all is: the same command again goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import csv
import glob
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.config import GENERATED, PROTOCOLS, ConfigError, resolve_path
from keyseg.runs import disk
from keyseg.runs.finding import HELP, find_finished
from keyseg.runs.spreadsheet import guarded

if TYPE_CHECKING:
    from keyseg.predict.predictor import Prediction, Predictor
    from keyseg.runs.run_directory import RunDirectory

# Imported late: what only this command needs, so that no other waits for it.

_SHOWN = 12
"""Bad rows that are named in full."""
_NAME = 40
"""Letters of a query in the name of its files."""


@dataclass(frozen=True)
class Request:
    """One query on one image. `where`: how an error calls it. `name`: of its files."""

    where: str
    name: str
    image: Path
    query: str


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict", help="mask, answer and keyword of a finished run on any image"
    )
    parser.add_argument("run_name", metavar="RUN", help=HELP)
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="a picture")
    parser.add_argument(
        "query",
        metavar="QUERY",
        nargs="?",
        help="a phrase, or a sentence (ends with . ? or !), which is asked as it stands",
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="many at once: columns image (from FILE's folder) and query"
    )
    parser.add_argument("--out", metavar="DIR", help="reports/out/predict/SIGNATURE")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=GENERATED,
        help="generated: the model writes the answer; teacher_forced: it is given (generated)",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 (a GPU if there is one)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what DIR holds")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    run = find_finished(resolve_path(options.outputs), options.run_name)
    requests, failed = _requests(options)
    default = resolve_path(run.config.paths.reports) / "predict" / run.path.name
    out = Path(options.out).expanduser().absolute() if options.out else default
    pending = list(requests) if options.overwrite else _pending(requests, run, options, out)
    if pending:
        out.mkdir(parents=True, exist_ok=True)
        failed += _predict(_load(run, options.device), pending, run, options.protocol, out)
    if len(pending) < len(requests):
        print(f"{len(requests) - len(pending)} of {len(requests)} were there already")
    if options.csv:
        print(_table(requests, out / f"{Path(options.csv).stem}-predictions.csv"))
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


# -- what is asked -------------------------------------------------------------------------------


def _requests(options: argparse.Namespace) -> tuple[list[Request], list[str]]:
    """All that can be asked, and what is wrong with the other rows of a table.

    Raises:
        ConfigError: nothing can be asked; names every bad row, or the image.
    """
    if options.csv:
        if options.image:
            raise ConfigError("give IMAGE and QUERY, or --csv FILE, not both")
        rows = list(_read_csv(Path(options.csv).expanduser()))
    elif options.image is None or options.query is None:
        raise ConfigError("give IMAGE and QUERY, or --csv FILE with the columns image and query")
    else:
        image = Path(options.image).expanduser().absolute()
        name = f"{_slug(image.stem)}-{_slug(options.query)}"
        rows = [Request("", name, image, options.query)]
    checked = [(row, _problem(row)) for row in rows]
    good = [row for row, problem in checked if not problem]
    problems = [f"{row.where}{problem}" for row, problem in checked if problem]
    if not good:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ConfigError("; ".join(problems[:_SHOWN]) + more)
    return good, problems


def _problem(request: Request) -> str | None:
    from keyseg.data.files import DataError
    from keyseg.data.pictures import image_size

    if not request.image.name:
        return "the image is empty"
    if not request.query.strip():
        return "the query is empty"
    if not request.image.exists():
        return f"there is no image {request.image}"
    try:
        image_size(request.image)
    except DataError as error:
        return str(error)
    return None


def _read_csv(file: Path) -> Iterator[Request]:
    """Rows of a table; image paths are read from the table's own folder."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            lacking = {"image", "query"} - set(reader.fieldnames or ())
            if lacking:
                raise ConfigError(
                    f"--csv {file}: no column {' and '.join(sorted(lacking))} in its first line, "
                    f"which reads: {','.join(reader.fieldnames or ()) or 'nothing'}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--csv {file}: cannot be read ({error})") from error
    if not rows:
        raise ConfigError(f"--csv {file}: no rows below its first line")
    digits = len(str(len(rows)))
    for number, (line, row) in enumerate(rows, start=1):
        image, query = row["image"] or "", row["query"] or ""
        where = f"{file}, line {line}: "
        named = Path(image.strip()).expanduser()
        path = (file.absolute().parent / named).absolute() if image.strip() else Path()
        name = f"{number:0{digits}}-{_slug(path.stem)}-{_slug(query)}"
        yield Request(where, name, path, query)


def _slug(text: str) -> str:
    """Letters and digits of a text, for a file's name."""
    return re.sub(r"\W+", "-", text.lower())[:_NAME].strip("-") or "x"


# -- what is there already -----------------------------------------------------------------------


def _identity(request: Request, run: RunDirectory, protocol: str) -> dict[str, str]:
    """What a prediction depends on: where the same stands in a file, it is not made again."""
    return {
        "run": str(run.info.get("signature") or run.path.name),
        "checkpoint": str(run.info.get("checkpoint_fingerprint")),
        "protocol": protocol,
        "query": request.query,
        "image_sha256": disk.sha256(request.image),
    }


def _pending(
    requests: Sequence[Request], run: RunDirectory, options: argparse.Namespace, out: Path
) -> list[Request]:
    """Requests that are not answered in `out` yet.

    Raises:
        ConfigError: a file of theirs is there and answers something else.
    """
    pending = []
    for request in requests:
        files = [f for f in _files(out, request.name).values() if f.exists()]
        done = out / f"{request.name}.json"
        if done in files:
            wanted = _identity(request, run, options.protocol)
            before = _read_json(done)
            if {k: before.get(k) for k in wanted} != wanted:
                raise ConfigError(
                    f"{request.where}{done} holds the answer to another question "
                    "(run, its weights, protocol, query or image differ): give another --out, or "
                    "--overwrite"
                )
        else:  # files without their JSON are those of a command that was killed
            pending.append(request)
    return pending


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _files(out: Path, name: str) -> dict[str, Path]:
    endings = {"overlay": "-overlay.png", "mask": "-mask.png", "json": ".json"}
    return {kind: out / f"{name}{ending}" for kind, ending in endings.items()}


# -- the work ------------------------------------------------------------------------------------


def _load(run: RunDirectory, device: str) -> Predictor:
    from keyseg.model.backbones.weights import WeightsError, check_trained_on, check_weights
    from keyseg.predict.predictor import Predictor
    from keyseg.train.device import pick_device

    cfg = run.config
    check_weights(cfg)
    check_trained_on(cfg, run.info)
    where = pick_device(device, "--device")
    try:
        return Predictor(cfg, run.best_file, where)
    except WeightsError as error:
        raise ConfigError(str(error)) from error


def _predict(
    predictor: Predictor, requests: Sequence[Request], run: RunDirectory, protocol: str, out: Path
) -> list[str]:
    """Answer and write; an image that fails is named at the end and stops no other."""
    from rich.console import Console
    from rich.progress import track

    by_image: dict[Path, list[Request]] = {}
    for request in requests:
        by_image.setdefault(request.image, []).append(request)
    console = Console(stderr=True)
    quiet = len(by_image) == 1 or not console.is_terminal
    failed = []
    for image, group in track(by_image.items(), "images", console=console, disable=quiet):
        for request, answer in zip(group, _answers(predictor, image, group, protocol), strict=True):
            if isinstance(answer, str):
                failed.append(f"{request.where}{answer}")
                continue
            head = _identity(request, run, protocol) | {"label": run.info.get("label")}
            print(_line(request, answer, _write(out, request, answer, head)))
    return failed


def _answers(
    predictor: Predictor, image: Path, group: Sequence[Request], protocol: str
) -> list[Prediction | str]:
    """An answer for each request, or why there is none; one by one where all fail together."""
    from keyseg.predict.predictor import reason

    try:
        return list(predictor(image, [request.query for request in group], protocol))
    except Exception as error:
        if len(group) > 1:
            return [_answers(predictor, image, [request], protocol)[0] for request in group]
        return [reason(error)]


def _write(out: Path, request: Request, answer: Prediction, head: dict[str, Any]) -> Path:
    """Overlay, mask and JSON; each appears whole, the JSON last. Returns the JSON's path."""
    import numpy as np
    from PIL import Image

    from keyseg.data.pictures import open_rgb
    from keyseg.report.figures.style import PALETTE
    from keyseg.report.gallery import overlay

    files = _files(out, request.name)
    pixels = np.asarray(open_rgb(request.image))
    colours = [PALETTE[n % len(PALETTE)] for n in range(len(answer.masks))]
    pictures = {
        "overlay": overlay.draw_each(pixels, answer.masks, colours),
        "mask": answer.mask.astype(np.uint8) * 255,
    }
    if answer.rles is not None:
        for file in out.glob(f"{glob.escape(request.name)}-mask-*.png"):  # of another answer
            file.unlink()
        for n, mask in enumerate(answer.masks, start=1):
            pictures[f"mask-{n}"] = mask.astype(np.uint8) * 255
            files[f"mask-{n}"] = out / f"{request.name}-mask-{n}.png"
    for kind, drawn in pictures.items():
        aside = files[kind].with_name(f".{files[kind].stem}.{os.getpid()}.png")
        Image.fromarray(drawn).save(aside)
        aside.replace(files[kind])
    names = {kind: files[kind].name for kind in pictures}
    content = head | {"image": str(request.image)} | answer.to_dict() | {"files": names}
    aside = files["json"].with_name(f".{files['json'].name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(files["json"])
    return files["json"]


def _line(request: Request, answer: Prediction, file: Path) -> str:
    """For the terminal: what was asked, what was said, and where it lies."""
    from keyseg.sweep.finish import short_path

    keyword = f"{answer.words[0][0]} {answer.words[0][1]:.2f}" if answer.words else "none"
    what = "mask" if answer.rles is None else f"{len(answer.rles)} masks, together"
    drawn = f"{what} {answer.mask.mean():.1%} of the image" if answer.mask.any() else "no mask"
    quality = "" if answer.predicted_iou is None else f", predicted IoU {answer.predicted_iou:.2f}"
    return (
        f"{request.image.name}: {request.query}\n"
        f"  {answer.answer}\n"
        f"  keyword {keyword}; {drawn}{quality}\n"
        f"  {short_path(file)}"
    )


def _table(requests: Sequence[Request], file: Path) -> Path:
    """A line for each request that is answered."""
    columns = ("image", "query", "answer", "keyword", "probability", "predicted_iou", "area")
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with aside.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow([*columns, "json"])
        for request in requests:
            content = _read_json(_files(file.parent, request.name)["json"])
            if content:
                words = content["top_words"]
                content["probability"] = words[0]["probability"] if words else None
                cells = [content[c] for c in columns]
                texts = [guarded(c) if isinstance(c, str) else c for c in cells]
                writer.writerow([*texts, f"{request.name}.json"])
    aside.replace(file)
    return file
