"""A word when a sweep has ended: `notify=COMMAND` gets one line of JSON on its standard input.

Told by the command of the sweep, or, where that has left its jobs to themselves, by the last job
(`keyseg notify`). What was told once is not told again.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
from collections import Counter
from math import isfinite
from pathlib import Path
from typing import Any

from keyseg.runs import disk, sweep_directory
from keyseg.runs.provenance import cost_unit, hours
from keyseg.runs.run_directory import DONE, FAILED, PRUNED
from keyseg.sweep.progress import last_line
from keyseg.sweep.status import watches

TOLD = ".notified.json"
"""In a sweep's folder: what its last notification was about."""
_PATIENCE = 60.0
"""Seconds that the command may take."""


def tell(command: str | None, sweep_dir: Path, *, page: Path | None, error: str = "") -> str | None:
    """Run the command with the message; why that did not work, if so. None: no command, no word.

    Args:
        command: for the shell.
        sweep_dir: outputs/<sweep>.
        page: of the report, where there is one.
        error: why the sweep ended before its cells did.
    """
    if not command:
        return None
    told = message(sweep_dir, page=page, error=error)
    about = {"about": hashlib.sha256(f"{_traces(sweep_dir)} {error}".encode()).hexdigest()[:16]}
    try:
        with sweep_directory.lock_if_ours(sweep_dir, "notify", timeout=2 * _PATIENCE):
            if _read(sweep_dir / TOLD) == about:
                return None
            problem = _run(command, json.dumps(told, ensure_ascii=False) + "\n")
            if problem is None:
                disk.replace(sweep_dir / TOLD, json.dumps(about).encode())
            return problem
    except OSError as failure:
        return f"notify: {failure}"


def message(sweep_dir: Path, *, page: Path | None, error: str = "") -> dict[str, Any]:
    """What is told of a sweep. `state`: done or failed; `text`: all of it in a sentence.

    Raises:
        ConfigError: sweep.json cannot be read.
    """
    cells = [(watch.title, watch.run.info) for watch in watches(sweep_dir)]
    states = Counter(str(info.get("status", "missing")) for _, info in cells)
    ended = states[DONE] + states[PRUNED]
    state = DONE if ended == len(cells) and not error else FAILED
    failures = [
        f"{title}: {last_line(str(info['error']))}"
        for title, info in cells
        if info.get("status") == FAILED and info.get("error")
    ]
    spent = sum(cost for _, info in cells if isfinite(cost := hours(info)))
    unit = cost_unit(info for _, info in cells if info.get("attempts"))
    reason = last_line(error) if error else (failures or [""])[0]
    text = f"{sweep_dir.name}: {state}, {ended} of {len(cells)} cells done"
    text += f", {states[FAILED]} failed" if states[FAILED] else ""
    text += f", {spent:.2f} {unit}-hours"
    return {
        "sweep": sweep_dir.name,
        "state": state,
        "cells": len(cells),
        "done": states[DONE],
        "pruned": states[PRUNED],
        "failed": states[FAILED],
        f"{unit.lower()}_hours": round(spent, 4),
        "error": reason,
        "runs": str(sweep_dir.absolute()),
        "report": str(page.absolute()) if page else None,
        "host": socket.gethostname(),
        "text": f"{text}: {reason}" if reason else text,
    }


def _traces(sweep_dir: Path) -> list[Any]:
    """What is another after any cell was worked on again."""
    infos = [(watch.run.path.name, watch.run.info) for watch in watches(sweep_dir)]
    return [[name, i.get("status"), len(i.get("attempts") or [])] for name, i in infos]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None


def _run(command: str, line: str) -> str | None:
    with subprocess.Popen(
        command,
        shell=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(line, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"notify: the command did not end within {_PATIENCE:.0f} s"
    if process.returncode == 0:
        return None
    return f"notify: the command ended with {process.returncode}: {last_line(said)}"
