"""The groups and their options for `python run.py --help`, from the files themselves."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from omegaconf import OmegaConf

from keyseg.config import PROJECT


def groups(root: Path = PROJECT) -> str:
    """Every group with its options; `*` marks the default; the text is each file's first line."""
    chosen = _defaults(root / "experiments" / "config.yaml")
    experiments = [f for f in sorted((root / "experiments").iterdir()) if f.is_dir()]
    columns = max(60, shutil.get_terminal_size().columns)
    lines = []
    own = [f for f in experiments if f.name != "hydra"]
    folders = sorted([*own, *(f for e in own for f in e.iterdir() if f.is_dir())])
    for folder in [*folders, root / "sweeps"]:
        files = sorted(folder.glob("*.yaml"))
        if not files:
            continue
        group = folder.relative_to(root / "experiments") if folder.name != "sweeps" else "+sweeps"
        lines.append(str(group))
        width = max(len(file.stem) for file in files)
        for file in files:
            mark = "*" if chosen.get(folder.name) == file.stem else " "
            head = f"  {mark} {file.stem:<{width}}  "
            lines += textwrap.wrap(
                first_line(file),
                columns,
                initial_indent=head,
                subsequent_indent=" " * len(head),
            ) or [head.rstrip()]
    return "\n".join(lines)


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
