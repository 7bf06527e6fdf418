"""The live page of a sweep, served on this machine alone: `keyseg report SWEEP --watch`.

One thread reads the run directories as `keyseg status --watch` does, another gives verdicts anew
when a cell is done. A page asks once and is answered at the next change.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from keyseg.report import assemble
from keyseg.report.page import live
from keyseg.report.page.answer import FirstScreen
from keyseg.report.tables.contrasts import Conclusion
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import DONE, DamagedError, RunDirectory, parse_rows
from keyseg.sweep import progress
from keyseg.sweep.slurm.reconcile import Overview
from keyseg.sweep.status import CellStatus, watches

_EVERY = 2.0
"""Seconds between two looks at the run directories."""
_PATIENCE = 25.0
"""Seconds after which a request is answered though nothing has changed."""
CURVES = {"val/giou": ("gIoU on val, percent", 100.0), "train/loss": ("train loss", 1.0)}


class RunCurves:
    """The points of a run's curves; a call reads only what was added since the last."""

    def __init__(self, run: RunDirectory) -> None:
        self._file = run.metrics_file
        self._inode, self._offset = 0, 0
        self._points: dict[str, dict[int, float]] = {}

    def read(self) -> dict[str, list[tuple[int, float]]]:
        """(step, value) of each of `CURVES`, by rising step."""
        try:
            with self._file.open("rb") as file:
                stat = self._file.stat()
                if stat.st_ino != self._inode or stat.st_size < self._offset:  # written anew
                    self._inode, self._offset, self._points = stat.st_ino, 0, {}
                file.seek(self._offset)
                new = file.read()
            rows = parse_rows(self._file, new)
            self._offset += new.rfind(b"\n") + 1
        except (FileNotFoundError, DamagedError):  # the table says so
            rows = []
        for row in rows:
            if row.name in CURVES:
                self._points.setdefault(row.name, {})[row.step] = row.value * CURVES[row.name][1]
        return {name: sorted(points.items()) for name, points in self._points.items()}


class LiveSweep:
    """The parts of the page, each with the number of the change that made it what it is."""

    def __init__(self, sweep_dir: Path, report: Path) -> None:
        """`report`: where the static page is, or will be."""
        self.sweep_dir, self.report = sweep_dir, report
        self.heading = _heading(sweep_dir)
        self.version = 0
        self._parts = dict.fromkeys(live.LIVE_PARTS, ("", 0))
        self._changed = threading.Condition()
        self._overview = Overview([])
        self._curves: list[RunCurves] = []
        self._answer: FirstScreen | None = None
        self._found: list[Conclusion] = []
        self._trouble = ""
        self._working = False
        self._cells: list[CellStatus] = []

    def look(self) -> None:
        """Read all run directories and renew what is other than before.

        Raises:
            ConfigError: sweep.json cannot be read.
        """
        self._follow()
        self._cells = rows = self._overview.read()
        headers, texts = progress.columns(rows, terms=True, words=True)
        cells = [
            (row.state, text, progress.last_line(row.error) if row.error else "")
            for row, text in zip(rows, texts, strict=True)
        ]
        indices = _indices(self.sweep_dir, rows)
        lines = [
            {name: live.Series(row.title, index, points) for name, points in curve.read().items()}
            for row, curve, index in zip(rows, self._curves, indices, strict=True)
        ]
        charts = {
            title: [line[name] for line in lines if name in line]
            for name, (title, _) in CURVES.items()
        }
        labels = _labels(self.sweep_dir)
        self.renew(
            head=live.head(self._answer, progress.progress(rows, 1), self._notes(), self._link()),
            curves=live.curves(charts, list(enumerate(labels))),
            cells=live.cells(headers, cells),
            verdicts=self._verdicts(),
        )

    def _follow(self) -> None:
        """Watch the cells that there are now: a tuner makes more of them, a command other ones."""
        now = watches(self.sweep_dir)
        if [w.run.path for w in now] != [w.run.path for w in self._overview.watches]:
            self._overview = Overview(now)
            self._curves = [RunCurves(watch.run) for watch in now]

    def tell(self, trouble: str) -> None:
        """Say on the page what stands in the way of renewing it."""
        self.renew(head=live.head(self._answer, "", [trouble], self._link()))

    def conclude(self) -> None:
        """Give the verdicts anew, which the page says meanwhile; also where that does not work."""
        self._working = True
        self.renew(verdicts=self._verdicts())
        try:
            self._answer, self._found = assemble.conclude(self.sweep_dir)
            self._trouble = ""
        except Exception as error:
            self._trouble = f"verdicts: {progress.last_line(str(error) or type(error).__name__)}"
        self._working = False

    def _verdicts(self) -> str:
        return live.verdicts(self._answer, self._found, working=self._working)

    @property
    def done(self) -> frozenset[tuple[Path, float | None]]:
        """The cells that are done, by what tells a new result from an old one."""
        return frozenset((row.path, row.seconds) for row in self._cells if row.state == DONE)

    def _notes(self) -> list[str]:
        slurm = self._overview.trouble
        away = f"SLURM does not answer ({slurm}); shown: run directories only" if slurm else ""
        return [note for note in (away, self._trouble, *progress.advices(self._cells)) if note]

    def _link(self) -> str:
        return "report/index.html" if self.report.exists() else ""

    def renew(self, **parts: str) -> None:
        """Take over parts; whoever waits for a change is told if one is other than before."""
        with self._changed:
            new = {name: text for name, text in parts.items() if self._parts[name][0] != text}
            if new:
                self.version += 1
                self._parts |= {name: (text, self.version) for name, text in new.items()}
                self._changed.notify_all()

    def page(self) -> str:
        """The whole page as it is now."""
        with self._changed:
            parts = {name: text for name, (text, _) in self._parts.items()}
            return live.whole(self.heading, parts, self.version)

    def changes(self, since: int, patience: float = _PATIENCE) -> dict[str, Any]:
        """What has changed since a version, waited for if nothing has."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != since, patience)
            # A page of another process has a number that means nothing here.
            after = since if since <= self.version else 0
            parts = {name: text for name, (text, made) in self._parts.items() if made > after}
            return {"version": self.version, "parts": parts}


def _heading(sweep_dir: Path) -> str:
    design = sweep_directory.read(sweep_dir)
    return str(design.get("question") or design.get("name") or sweep_dir.name)


def _labels(sweep_dir: Path) -> list[str]:
    """Variants in the order of the design, which gives them their colours in the report, too."""
    cells = sweep_directory.read(sweep_dir).get("cells") or []
    return list(dict.fromkeys(str(cell["label"]) for cell in cells))


def _indices(sweep_dir: Path, rows: Sequence[CellStatus]) -> list[int]:
    """The variant of each cell; those of other commands come after."""
    cells = sweep_directory.read(sweep_dir).get("cells") or []
    labels = _labels(sweep_dir)
    known = {str(cell["signature"]): labels.index(str(cell["label"])) for cell in cells}
    return [known.get(row.path.name, len(labels)) for row in rows]


def serve(sweep_dir: Path, report: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until interrupted. `ready` is told its address.

    Raises:
        OSError: the port is taken.
    """
    shown = LiveSweep(sweep_dir, report)
    shown.look()
    with ThreadingHTTPServer(("127.0.0.1", port), _handler(shown)) as server:
        server.daemon_threads = True
        for work in (_following, _concluding):
            threading.Thread(target=work, args=(shown,), daemon=True).start()
        ready(f"http://127.0.0.1:{server.server_address[1]}/")
        server.serve_forever()


def _following(shown: LiveSweep) -> None:
    while True:
        time.sleep(_EVERY)
        try:
            shown.look()
        except Exception as error:  # a file is being written anew; the next look may see it
            shown.tell(progress.last_line(str(error) or type(error).__name__))


def _concluding(shown: LiveSweep) -> None:
    """Give the verdicts whenever a cell is done that was not."""
    before: object = None
    while True:
        if before != (now := shown.done):
            before = now
            shown.conclude()
        time.sleep(_EVERY)


def _handler(shown: LiveSweep) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """The page, its changes, and the static report; to browsers of this machine only."""

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            # A page elsewhere whose name was made to lead here must not read this one.
            if (self.headers.get("Host") or "").partition(":")[0] not in ("127.0.0.1", "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
            elif asked.path == "/":
                self._answer(shown.page().encode(), "text/html")
            elif asked.path == "/changes":
                since = parse_qs(asked.query).get("since", ["0"])[0]
                changes = shown.changes(int(since) if since.isdigit() else 0)
                self._answer(json.dumps(changes).encode(), "application/json")
            elif asked.path == "/report/index.html" and shown.report.exists():
                self._answer(shown.report.read_bytes(), "text/html")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, content: bytes, kind: str) -> None:
            try:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:  # the page was closed
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal is the user's."""

    return Handler
