"""log.txt of a run: what happened, told as one would tell a colleague, a line each.

Standard `logging`: every module of ours logs under its own name, warnings of other libraries come
too. Lines go to the file whoever started the run, and never to the terminal, which has a view of
its own.
"""

from __future__ import annotations

import logging
import os
import platform
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.runs.private_files import without_passwords

if TYPE_CHECKING:
    from keyseg.config import RunConfig
    from keyseg.data.mix import Source

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

_OURS = "keyseg"


class _File(logging.FileHandler):
    """Appends to a file; a full disk costs lines, not the run."""

    def close(self) -> None:
        """Close the file; what it still held may find no room."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Let go of a line that could not be written."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _WithoutPasswords(logging.Formatter):
    """Whoever logs may quote an error that quotes an address."""

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))


@contextmanager
def log_to(file: Path, level: str) -> Iterator[None]:
    """Inside, lines of ours from `level` up and warnings of everybody else go to `file`."""
    try:
        handler = _File(file, encoding="utf-8")
    except OSError:  # no room for a log: what needs room more will say so
        yield
        return
    handler.setFormatter(_WithoutPasswords(FORMAT))
    ours, root = logging.getLogger(_OURS), logging.getLogger()
    before = ours.level, ours.propagate
    ours.setLevel(level.upper())
    ours.propagate = False  # a terminal may listen on the root
    ours.addHandler(handler)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        ours.removeHandler(handler)
        ours.level, ours.propagate = before
        handler.close()


def beginning(
    info: Mapping[str, Any], cfg: RunConfig, attempt: int, processes: int
) -> Iterator[str]:
    """What runs where: cell, config, code, machine."""
    again = f", attempt {attempt}" if attempt > 1 else ""
    yield f"cell {cell_name(info, cfg)}, seed {cfg.seed}{again}"
    yield (
        f"config: fusion={cfg.fusion['name']} data={cfg.data['name']} model={cfg.model.name} "
        f"loss={cfg.loss.name} prompt={cfg.prompt.name} optim.steps={cfg.optim.steps} "
        f"(all of it: config.yaml)"
    )
    git = info.get("git") or {}
    dirty = " with changes that are not committed (code.diff)" if git.get("dirty") else ""
    yield f"code: commit {str(git.get('commit') or 'unknown')[:12]}{dirty}"
    versions = info.get("versions") or {}
    known = [f"{name} {versions[name]}" for name in sorted(versions)]
    yield f"versions: {', '.join(known)}"
    count = f", {processes} processes" if processes > 1 else ""
    yield f"machine: {platform.node()}, process {os.getpid()}{count}{_job(info)}"


def cell_name(info: Mapping[str, Any], cfg: RunConfig) -> str:
    """The label a sweep gave the cell, else its fusion variant."""
    return str(info.get("label") or cfg.fusion["name"])


def _job(info: Mapping[str, Any]) -> str:
    job = (info.get("attempts") or [{}])[-1].get("slurm_job_id")
    return f", SLURM job {job}" if job else ""


def counts(splits: Mapping[str, Sequence[Source]]) -> dict[str, dict[str, int]]:
    """{split: {expressions, images, without_keyword}}."""
    by_split = {}
    for split, sources in splits.items():
        examples = [e for source in sources for e in source.examples]
        by_split[split] = {
            "expressions": len(examples),
            "images": len({e.image for e in examples}),
            "without_keyword": sum(e.keyword is None for e in examples),
        }
    return by_split


def data_counts(splits: Mapping[str, Sequence[Source]], fingerprint: str) -> Iterator[str]:
    """Examples and images of each split."""
    for split, n in counts(splits).items():
        without = n["without_keyword"]
        lacking = f", {without} without a keyword" if without else ""
        yield f"data: {split} has {n['expressions']} expressions of {n['images']} images{lacking}"
    yield f"data: fingerprint {fingerprint}"


def parameter_counts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Trainable parameters by part, and how many stay frozen."""
    total: Counter[bool] = Counter()
    for row in rows:
        total[bool(row["trainable"])] += row["parameters"]
    parts = ", ".join(f"{r['module']} {r['parameters']:,}" for r in rows if r["trainable"])
    yield f"trained: {total[True]:,} parameters ({parts}); frozen: {total[False]:,}"


def memory() -> str:
    """The most this process has held so far, on the machine and on its GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    text = f"memory: at most {peak / 2**30:.2f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        text += f", on the GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return text


def scores(values: Mapping[str, float]) -> str:
    """The scores that a reader looks for first, in percent."""
    names = {"giou": "gIoU", "ciou": "cIoU", "keyword_accuracy": "keyword accuracy"}
    known = [f"{title} {100 * values[n]:.1f}" for n, title in names.items() if n in values]
    return ", ".join(known)
