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
from pathlib import Path
from typing import Any

from keyseg.runs import disk, sweep_directory
from keyseg.runs.run_directory import DONE, FAILED, PRUNED, RUNNING
from keyseg.sweep import overview
from keyseg.sweep.progress import last_line
from keyseg.sweep.status import watches

NOTIFIED = ".notified.json"
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
    event = message(sweep_dir, page=page, error=error)
    about = {"about": hashlib.sha256(f"{_traces(sweep_dir)} {error}".encode()).hexdigest()[:16]}
    try:
        with sweep_directory.lock_if_ours(sweep_dir, "notify", timeout=2 * _PATIENCE):
            if _read(sweep_dir / NOTIFIED) == about:
                return None
            problem = _run(command, json.dumps(event, ensure_ascii=False) + "\n")
            if problem is None:
                disk.replace(sweep_dir / NOTIFIED, json.dumps(about).encode())
            return problem
    except OSError as failure:
        return f"notify: {failure}"


def message(sweep_dir: Path, *, page: Path | None, error: str = "") -> dict[str, Any]:
    """What is told of a sweep. `state`: as `keyseg status` has it; `text`: all in a sentence.

    Raises:
        ConfigError: sweep.json cannot be read.
    """
    cells = [(watch.title, watch.run.info) for watch in watches(sweep_dir)]
    (row,), _, _ = overview.summaries([sweep_dir])
    state = FAILED if error else row.state
    failures = [
        f"{title}: {last_line(str(info['error']))}"
        for title, info in cells
        if info.get("status") == FAILED and info.get("error")
    ]
    reason = last_line(error) if error else (failures or [""])[0]
    ended = row.states.get(DONE, 0) + row.states.get(PRUNED, 0)
    running = row.states.get(RUNNING, 0)
    text = f"{sweep_dir.name}: {state}, {ended} of {row.cells} cells done"
    text += f", {row.failed} failed" if row.failed else ""
    text += f", {running} running" if running else ""
    text += f", {row.hours:.2f} {row.unit}-hours"
    return {
        "sweep": sweep_dir.name,
        "state": state,
        "cells": row.cells,
        "done": row.states.get(DONE, 0),
        "pruned": row.states.get(PRUNED, 0),
        "failed": row.failed,
        f"{row.unit.lower()}_hours": round(row.hours, 4),
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
