"""Results that today's code, data or weights would not give again: found, named, and decided on.

A cell is stale if it has results, or a checkpoint to go on from, and the code that it depends on,
its data or its backbones are not what they were. `stale=rerun` runs it again, `stale=keep` takes it
as it is, `stale=ask` asks at a terminal and is an error without one. A checkpoint of other data or
weights cannot be gone on from, so that a cell that is half done then cannot be kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.model.backbones.weights import check_weights, weights_fingerprint
from keyseg.runs import code
from keyseg.runs.run_directory import DONE, PRUNED, RunDirectory
from keyseg.runs.titles import by_reason
from keyseg.sweep.cells import Cell

ASK, RERUN, KEEP = "ask", "rerun", "keep"
HALF_DONE = "half done"
"""How a reason begins for which a cell cannot be kept."""


class StaleCheck:
    """Compares runs with what is here now; what several share is looked at once."""

    def __init__(self) -> None:
        self._seen: dict[str, str | None] = {}

    def reasons(self, run: RunDirectory, cfg: RunConfig | None = None) -> list[str]:
        """Why a run is stale, each reason in a few words; [] for one that is not.

        `cfg`: its config, where the caller has it.

        What was not recorded of an older run, and data or weights that are gone, is no reason.
        """
        info = run.info
        results = info.get("status") in (DONE, PRUNED)
        if not results and not run.last_file.exists():
            return []
        cfg = cfg or run.config
        reasons = []
        if changed := code.changes(info, run.path):
            reasons.append(f"other code: {code.listed(changed)}")
        for what, look in (("data", self._data), ("weights", self._weights)):
            then = info.get(f"{what}_fingerprint")
            now = look(cfg) if then else None
            if now not in (None, then):
                half = "" if results else f"{HALF_DONE} with "
                reasons.append(f"{half}other {what}: {then} then, {now} now")
        return reasons

    def _data(self, cfg: RunConfig) -> str | None:
        from keyseg.data import identity  # loads numpy, which a launch has no need of

        key = json.dumps(["data", cfg.data], sort_keys=True)
        if key not in self._seen:
            self._seen[key] = identity.fingerprint(cfg.data, resolve_path(cfg.paths.data))
        return self._seen[key]

    def _weights(self, cfg: RunConfig) -> str | None:
        key = json.dumps(
            ["weights", cfg.model.language_weights, cfg.model.mask_weights, cfg.model.init]
        )
        if key not in self._seen:
            try:
                check_weights(cfg)
                self._seen[key] = weights_fingerprint(cfg)
            except ConfigError:
                self._seen[key] = None
        return self._seen[key]


def find(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Reasons of the cells that are stale, by signature."""
    look = StaleCheck()
    by_signature = {cell.signature: look.reasons(cell.open(), cell.config) for cell in cells}
    return {signature: reasons for signature, reasons in by_signature.items() if reasons}


def summary_lines(cells: Sequence[Cell], stale: dict[str, list[str]]) -> list[str]:
    """A line for each set of reasons, with the cells that have them."""
    return by_reason(
        (c.title, "; ".join(stale[c.signature])) for c in cells if c.signature in stale
    )


def check_study(sweep_dir: Path, choice: str) -> None:
    """Whether a tuning goes on with trials that today's code, data and weights would give, too.

    Raises:
        ConfigError: it does not, and the command does not say stale=keep: a study that chose by
            such values cannot be run again in part.
    """
    runs = [RunDirectory(file.parent) for file in sorted(sweep_dir.glob("*/run.json"))]
    look = StaleCheck()
    reasons = [reason for run in runs if run.config_file.exists() for reason in look.reasons(run)]
    half = any(reason.startswith(HALF_DONE) for reason in reasons)
    if reasons and (half or choice != KEEP):
        keep = "put back what was there" if half else "stale=keep goes on with them"
        raise ConfigError(
            f"{len(reasons)} of {len(runs)} trials of {sweep_dir.name} are stale "
            f"({'; '.join(dict.fromkeys(reasons))}): {keep}, name=NAME begins another study"
        )


def decide(cells: Sequence[Cell], config: Any) -> tuple[list[Cell], list[str]]:
    """The cells, those to run again marked so; and what to say of the others.

    Args:
        cells: of one command.
        config: its `rerun` and `stale`.

    Raises:
        ConfigError: some are stale and nobody said what to do.
    """
    if config.rerun:
        return [replace(cell, rerun=True) for cell in cells], []
    stale = find(cells)
    if not stale:
        return list(cells), []
    lines = summary_lines(cells, stale)
    choice = str(config.stale)
    half = {s for s, reasons in stale.items() if any(r.startswith(HALF_DONE) for r in reasons)}
    head = f"{len(stale)} of {len(cells)} {'cell is' if len(cells) == 1 else 'cells are'} stale"
    if half and choice != RERUN:
        named = summary_lines(cells, {s: stale[s] for s in half})
        alone = "" if len(half) == len(stale) else f" {len(half)} of them cannot be kept."
        raise ConfigError(
            f"{head}.{alone} A checkpoint is gone on from with the data and weights that it was "
            "made with: put back what was there, or stale=rerun begins anew. " + " | ".join(named)
        )
    if choice == ASK:
        choice = asked(head, lines)
    if choice == KEEP:
        return list(cells), [f"kept though stale: {line}" for line in lines]
    again = [replace(cell, rerun=cell.signature in stale) for cell in cells]
    return again, [f"runs again: {line}" for line in lines]


def asked(head: str, lines: Sequence[str]) -> str:
    """What somebody at the terminal says is to become of stale results: rerun or keep.

    Raises:
        ConfigError: there is nobody, or no answer.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            f"{head}: stale=rerun runs them again, stale=keep takes them as they are. "
            + " | ".join(lines)
        )
    print("\n".join([head, *(f"  {line}" for line in lines)]), file=sys.stderr)
    while True:
        print(f"{RERUN} or {KEEP}? (Ctrl-C: neither) ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            raise ConfigError(f"{head}: no answer; give stale=rerun or stale=keep")
        if answer.strip() in (RERUN, KEEP):
            return answer.strip()
