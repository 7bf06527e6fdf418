"""The groups and their options for `python run.py --help`, from the files themselves."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from omegaconf import OmegaConf

from keyseg.config import PROJECT
from keyseg.runs import packages


def groups(root: Path = PROJECT) -> str:
    """Every group with its options; `*` marks the default; the text is each file's first line."""
    chosen = _defaults(root / "experiments" / "config.yaml")
    columns = max(60, shutil.get_terminal_size().columns)
    lines = []
    for group, files in _files(root).items():
        lines.append(group)
        width = max(len(file.stem) for file in files)
        for file in files:
            mark = "*" if chosen.get(group) == file.stem else " "
            head = f"  {mark} {file.stem:<{width}}  "
            lines += textwrap.wrap(
                first_line(file),
                columns,
                initial_indent=head,
                subsequent_indent=" " * len(head),
            ) or [head.rstrip()]
    return "\n".join(lines)


def _files(root: Path) -> dict[str, list[Path]]:
    """The option files of each group, sweeps last: the checkout's, then those of packages."""
    options: dict[str, list[Path]] = {}
    for place in [root / "experiments", *packages.folders("experiments")]:
        for file in sorted([*place.glob("*/*.yaml"), *place.glob("*/*/*.yaml")]):
            group = file.parent.relative_to(place).as_posix()
            if group.split("/")[0] != "hydra":
                options.setdefault(group, []).append(file)
    places = [root / "sweeps", *packages.folders("sweeps")]
    sweeps = [file for place in places for file in sorted(place.glob("*.yaml"))]
    return dict(sorted(options.items())) | ({"+sweeps": sweeps} if sweeps else {})


def first_line(file: Path) -> str:
    """The first comment of a YAML that is no Hydra directive; "" where there is none."""
    for line in file.read_text().splitlines():
        text = line.lstrip("# ").strip()
        if line.strip() and not line.startswith("#"):
            return ""
        if text and not text.startswith("@"):
            return text
    return ""


def _defaults(file: Path) -> dict[str, str]:
    entries = OmegaConf.select(OmegaConf.load(file), "defaults") or []
    return {
        str(k): str(v) for entry in entries if OmegaConf.is_dict(entry) for k, v in entry.items()
    }
