"""`keyseg import-weights FOLDER`: published weights of LISA's family as a run with no training.

It is evaluated, asked, exported and trained from (model.start) like any other, and stands in
reports as what it is: imported.
"""

from __future__ import annotations

import argparse
import getpass
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.compose import compose_config
from keyseg.config import ConfigError, resolve_path

if TYPE_CHECKING:
    from keyseg.predict.foreign_weights import SortedTensors

# Imported late: what only this command needs, so that no other waits for it.

_DEFAULTS = {
    "fusion": "no_key",
    "prompt": "lisa_literal",
    "model": "llava_1_5_7b",
    "data": "reason_seg",
}
"""What an import is unless the command line says otherwise; `data` is its own test."""

_KEYSEG_DEFAULTS = {"fusion": "released_trained", "prompt": "keyseg_literal", "loss": "released"}
"""What of it is otherwise for KeySeg's weights."""

_READ_DEFAULTS = {"prompt": "read_literal"}
"""What of it is otherwise for READ's weights, which no key shows."""

_ABOUT = """FOLDER is a whole checkpoint as it was published: config.json, tokenizer, and
model*.safetensors or pytorch_model*.bin. Known by their keys:
  LISA-7B, -13B (v0, v1)   merged; --clip openai/clip-vit-large-patch14
  READ, SESAME             the same on LLaVA-1.5; --clip openai/clip-vit-large-patch14-336
                           READ: with model.points.count=30 (and prompt=read_literal,
                           which --system READ... means)
  GSVA                     LoRA apart: it is merged with --lora-alpha
  KeySeg's released code   LISA-7B's, with a fusion of KEY; fusion=released_trained
Every key is used or left out for a reason that is told; any other is an error.

examples:
  keyseg import-weights LISA-7B-v1 --system LISA-7B-v1 --clip openai/clip-vit-large-patch14
  keyseg evaluate LISA-7B-v1 data=reason_seg:test,refcoco:testA
  keyseg report table2 LISA-7B-v1
  python run.py -m fusion=no_key,full model=llava_1_5_7b model.start=LISA-7B-v1"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "import-weights",
        help="published weights of LISA's family as a run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_ABOUT,
    )
    parser.add_argument("folder", metavar="FOLDER", help="a whole checkpoint")
    parser.add_argument("--system", required=True, metavar="NAME", help='such as "LISA-7B-v1"')
    parser.add_argument(
        "--clip", metavar="CLIP", help="its CLIP: a folder or a cached hub id (config.json's)"
    )
    parser.add_argument("--seg", default="[SEG]", metavar="TOKEN", help="its SEG ([SEG])")
    parser.add_argument("--key", default="[KEY]", metavar="TOKEN", help="KeySeg's KEY ([KEY])")
    parser.add_argument(
        "--lora-alpha",
        type=float,
        metavar="A",
        help="of LoRA that is not merged (adapter_config.json's; LISA trains with 16)",
    )
    parser.add_argument("--by", metavar="WHO", help="who says that these are its weights (you)")
    parser.add_argument("--name", help="of the folder in outputs/ (the system's)")
    parser.add_argument("--dry", action="store_true", help="say what each key is, and end")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],
        help="prompt=..., data=... (of its own test), model.precision=..., as in run.py",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from keyseg.predict import foreign_weights as weights

    folder = Path(options.folder).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"{options.folder}: there is no such folder")
    config = weights.config_of(folder)
    clip = options.clip or config.get("vision_tower") or config.get("mm_vision_tower")
    if not clip:
        raise ConfigError(f"--clip is missing, and {folder / 'config.json'} names none")
    files = weights.Files(folder)
    tensors = weights.sort(files, folder)
    if options.dry:
        _tell(tensors)
        return 0
    sweep_dir = resolve_path(options.outputs) / _folder(options)
    from keyseg.predict.imported_model import ForeignCheckpoint, import_weights
    from keyseg.sweep.cells import frozen

    given = {o.partition("=")[0] for o in options.overrides}
    read = "READ" in options.system.upper().split("-")
    of_its_kind = _DEFAULTS | (
        _KEYSEG_DEFAULTS if tensors.of_keyseg else _READ_DEFAULTS if read else {}
    )
    defaults = [f"{key}={value}" for key, value in of_its_kind.items() if key not in given]
    cfg = frozen(compose_config([*defaults, *options.overrides]))
    source = ForeignCheckpoint(
        folder,
        options.system,
        str(clip),
        options.seg,
        options.key,
        options.lora_alpha,
        options.by or getpass.getuser(),
    )
    run = import_weights(source, files, tensors, cfg, sweep_dir, _command(options))
    about = run.info["imported"]
    for part, count in about["used"].items():
        print(f"{part}: {count} tensors")
    for reason, count in about["left_out"].items():
        print(f"left out: {count} tensors ({reason})")
    for name, what in about["new"].items():
        print(f"new: {name} ({what})")
    if read and not run.config.model.points.count:
        print(
            "note: READ also draws from points, where the image is like SEG: give "
            "model.points.count=30 to import it with them (READ-13B on ReasonSeg test: "
            "model.points.count=60 model.points.above=0.6 model.points.pool=1)"
        )
    print(f"{run.info['label']}: {run.path}")
    print(f"next: keyseg evaluate {sweep_dir.name} data=NAME[:SPLIT]")
    return 0


def _tell(tensors: SortedTensors) -> None:
    for part, keys in tensors.parts.items():
        print(f"{part}: {len(keys)} tensors")
    for reason, count in tensors.left_out.items():
        print(f"left out: {count} tensors ({reason})")


def _folder(options: argparse.Namespace) -> str:
    from keyseg.sweep.design import folder_name

    if options.name:
        return folder_name(options.name)
    plain = "".join(c if c.isalnum() or c in "+=.-_" else "-" for c in options.system)
    return folder_name(plain.lstrip(".")[:100])


def _command(options: argparse.Namespace) -> str:
    """The command as it can be given again."""
    words = ["keyseg", "import-weights", options.folder, "--system", options.system]
    for name in ("clip", "seg", "key", "lora_alpha", "by", "name"):
        if (value := getattr(options, name)) and value != f"[{name.upper()}]":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, *options.overrides])
