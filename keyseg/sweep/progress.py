"""What a user sees while cells run: one live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from keyseg.config import OWN_TERMS
from keyseg.runs import convergence
from keyseg.runs.run_directory import DONE, FAILED, PRUNED, QUEUED, RUNNING, STOPPED
from keyseg.runs.titles import in_brief
from keyseg.sweep.status import LOST, TESTING, CellStatus

_STYLES = {
    RUNNING: "cyan",
    TESTING: "cyan",
    DONE: "green",
    FAILED: "bold red",
    LOST: "bold red",
    STOPPED: "yellow",
    PRUNED: "yellow",
    QUEUED: "dim",
}
_NOTE = " · gIoU, cIoU: val, percent"
_FRAME_LINES = 7
"""Lines around the cells: heading, table head, rules, footer, and the prompt below."""
_LONGEST = 22
"""Letters of a node's name, or of why a job waits, in the table."""
_WIDE = 100
"""Terminal width from which the single losses get columns of their own."""
_FORMS = ((True, True), (True, False), (False, False))
"""Terms of the loss and whole words on the training: what is left out, so that names have room."""
_NAME = 20
"""Letters of a cell's name for which other columns give way."""
_SHORT = {convergence.UNTRAINED: "untrained"}
"""How a training ended, where the terminal is narrower than that."""


class View(Protocol):
    """Shows the cells for as long as it is entered."""

    def __enter__(self) -> View: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

    def update(self, cells: Sequence[CellStatus]) -> None:
        """Show the cells as they are now."""


def open_view(heading: str, console: Console, *, slots: int = 1, table: bool = True) -> View:
    """The table where the console is a terminal (and `table`), else lines."""
    if table and console.is_terminal and not console.is_dumb_terminal:
        return TableView(heading, console, slots)
    return LineView(heading, console)


class TableView:
    """One live table, redrawn in place; what others print meanwhile stands above it."""

    def __init__(self, heading: str, console: Console, slots: int) -> None:
        self.heading = heading
        self.slots = slots
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> TableView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, tb)

    def update(self, cells: Sequence[CellStatus]) -> None:
        """Draw the table anew."""
        width, height = self._live.console.size
        drawn = render(self.heading, cells, width, height=height, slots=self.slots)
        self._live.update(drawn, refresh=True)


def render(
    heading: str,
    cells: Sequence[CellStatus],
    width: int,
    *,
    height: int | None = None,
    slots: int = 1,
) -> RenderableType:
    """The table of a sweep for a terminal of this size; None: as many lines as it takes."""
    total, everyone = progress(cells, slots), cells
    cells, hidden = _fitting(cells, height)
    wanted = min(_NAME, max((len(cell.title) for cell in cells), default=0))
    for terms, words in _FORMS if width >= _WIDE else _FORMS[-1:]:
        headers, rows = columns(cells, terms=terms, words=words)
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        # The name of a cell gives way, the numbers do not. 2 stand between columns.
        room = max(8, width - sum(widths[1:]) - 2 * len(widths))
        if room >= wanted:
            break
    rows = [[shortened(row[0], room), *row[1:]] for row in rows]
    left = [i < 2 or header == "training" for i, header in enumerate(headers)]
    widths[0] = min(widths[0], room)
    table = _table(headers, rows, widths, left, [_STYLES.get(cell.state, "") for cell in cells])
    if hidden:
        table.append(f"and {hidden} more\n", style="dim")
    errors = [
        Text(f"{c.title}: {last_line(c.error)}", style="red", no_wrap=True, overflow="ellipsis")
        for c in cells
        if c.error
    ]
    errors += [Text(line, style="yellow") for line in advices(everyone)]
    head = Text(heading, style="bold", no_wrap=True, overflow="ellipsis")
    if len(heading) + len(_NOTE) <= width:
        head.append(_NOTE, style="not bold dim")
    foot = Text(total, style="dim", no_wrap=True, overflow="ellipsis")
    return Group(head, table, *errors, foot)


def columns(
    cells: Sequence[CellStatus], *, terms: bool, words: bool
) -> tuple[list[str], list[list[str]]]:
    """Headers and a row a cell, on the terminal and on the live page; with every term of the loss,
    with whole words on the training.
    """
    every = dict.fromkeys(name for cell in cells for name in ("loss", *OWN_TERMS, *cell.losses))
    losses = [name for name in every if name == "loss" or terms]
    headers = ["cell", "state", "step", "s/step", *losses, "gIoU", "cIoU", "time"]
    rows = [_row(cell, losses) for cell in cells]
    if any(cell.training for cell in cells):
        headers.append("training")
        states = [c.training if words else _SHORT.get(c.training, c.training) for c in cells]
        rows = [[*row, word] for row, word in zip(rows, states, strict=True)]
    if any(cell.job for cell in cells):
        headers += ["job", "node", "log"]
        rows = [
            [*row, cell.job, _cut(cell.node), _log_of(cell)]
            for row, cell in zip(rows, cells, strict=True)
        ]
    return headers, rows


def _table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    left: Sequence[bool],
    styles: Sequence[str],
) -> Text:
    """The rows below a rule; `styles`: of the state in each. rich.Table takes 1 ms for each row."""

    def cell(text: str, column: int) -> str:
        size = widths[column]
        cut = text if len(text) <= size else f"{text[: size - 1]}…"
        return cut.ljust(size) if left[column] else cut.rjust(size)

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell(text, column) for column, text in enumerate(row)).rstrip()

    table = Text(no_wrap=True, overflow="ellipsis")
    table.append(f"{line(headers)}\n", style="bold")
    table.append("─" * (sum(widths) + 2 * len(widths) - 2) + "\n")
    for row, style in zip(rows, styles, strict=True):
        text = line(row)
        start = widths[0] + 2
        table.append(text[:start])
        table.append(text[start : start + widths[1]], style=style)
        table.append(text[start + widths[1] :] + "\n")
    return table


def advices(cells: Sequence[CellStatus]) -> list[str]:
    """Why cells wait that would wait for ever, and what to do; a line for each reason."""
    counts = Counter(cell.advice for cell in cells if cell.advice)
    return [
        f"{count} {'cell waits' if count == 1 else 'cells wait'}: {advice}"
        for advice, count in counts.items()
    ]


def shortened(name: str, room: int) -> str:
    """A cell's name in so many letters: what tells it from its neighbours, its end, is kept."""
    head, mark, end = name.rpartition(" · ")
    left = room - len(mark + end) - 1
    return name if len(name) <= room or left < 1 else f"{head[:left]}…{mark}{end}"


def _fitting(cells: Sequence[CellStatus], height: int | None) -> tuple[Sequence[CellStatus], int]:
    """The cells that a screen has lines for, those at work and those that failed first."""
    lines = len(cells) + sum(cell.error is not None for cell in cells)
    if height is None or lines <= height - _FRAME_LINES:
        return cells, 0
    order = (RUNNING, TESTING, FAILED, LOST, STOPPED, QUEUED, DONE, PRUNED)
    ranked = sorted(cells, key=lambda cell: order.index(cell.state))
    kept: list[CellStatus] = []
    free = height - _FRAME_LINES - 1
    for cell in ranked:
        free -= 1 if cell.error is None else 2
        if free < 0:
            break
        kept.append(cell)
    return [cell for cell in cells if cell in kept], len(cells) - len(kept)


def _row(cell: CellStatus, losses: Sequence[str]) -> list[str]:
    if cell.state == DONE:
        spent = duration(cell.seconds)
    else:
        spent = f"{duration(cell.left)} left" if cell.left is not None else ""
    return [
        cell.title,
        cell.state,
        f"{cell.step}/{cell.steps}" if cell.step and cell.steps else "",
        _number(cell.seconds_per_step, 2),
        *[_loss(cell.losses, name) for name in losses],
        _percent(cell.val.get("giou")),
        _percent(cell.val.get("ciou")),
        spent,
    ]


def _loss(losses: Mapping[str, float], name: str) -> str:
    if name == "keyword" and "text" in losses and name not in losses:
        return "not asked"  # answers without KEY
    return _number(losses.get(name), 3)


def progress(cells: Sequence[CellStatus], slots: int) -> str:
    """`1 of 3 done · 2 running · about 4 min left · on cpu`."""
    count = {s: sum(c.state == s for c in cells) for s in _STYLES}
    at_work = count[RUNNING] + count[TESTING]
    parts = [f"{count[DONE]} of {len(cells)} done"]
    parts += [f"{at_work} running"] if at_work else []
    parts += [f"{count[s]} {s}" for s in (QUEUED, STOPPED, LOST, FAILED, PRUNED) if count[s]]
    left = time_left(cells, slots)
    parts += [f"about {duration(left)} left"] if left is not None else []
    devices = dict.fromkeys(c.device for c in cells if c.device)
    parts += [f"on {', '.join(devices)}"] if devices else []
    return " · ".join(parts)


def time_left(cells: Sequence[CellStatus], slots: int) -> float | None:
    """Seconds until the last cell ends, from the pace of those at work; None before that."""
    running = [c.left for c in cells if c.state == RUNNING and c.left is not None]
    paces = [
        c.seconds_per_step * c.steps
        for c in cells
        if c.seconds_per_step is not None and c.steps is not None
    ]
    waiting = sum(c.state in (QUEUED, STOPPED) for c in cells)
    if not running or not paces:
        return None
    ends = sorted([*running, *[0.0] * max(0, slots - len(running))])[: max(slots, len(running))]
    for _ in range(waiting):  # each waiting cell takes the worker that is free first
        ends[0] += sum(paces) / len(paces)
        ends.sort()
    return ends[-1]


class LineView:
    """A line when a cell starts, at every validation, and when it ends."""

    def __init__(self, heading: str, console: Console) -> None:
        self.heading = heading
        self.console = console
        self._seen: dict[str, tuple[str, int]] = {}
        self._advised: set[str] = set()

    def __enter__(self) -> LineView:
        self._print(self.heading)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        return None

    def update(self, cells: Sequence[CellStatus]) -> None:
        """Print what is new."""
        for reason in {cell.advice for cell in cells} - self._advised - {""}:
            self._advised.add(reason)
            for line in advices([cell for cell in cells if cell.advice == reason]):
                self._print(line)
        width = max((len(c.title) for c in cells), default=0)
        now = time.strftime("%H:%M:%S")
        for state in (DONE, PRUNED):
            ended = [c.title for c in cells if c.state == state and c.title not in self._seen]
            if ended:
                self._print(f"{now}  {state} already: {in_brief(ended)}")
        for cell in cells:
            before = self._seen.get(cell.title)
            self._seen[cell.title] = (cell.state, cell.val_step)
            for text in self._news(cell, before):
                self._print(f"{now}  {cell.title:<{width}}  {text}")

    def _news(self, cell: CellStatus, before: tuple[str, int] | None) -> list[str]:
        if before is None and cell.state in (DONE, PRUNED):
            return []
        news = []
        state, val_step = before or (QUEUED, cell.val_step)
        if cell.val_step > val_step or (
            before is None and cell.val_step >= 0 and cell.state == RUNNING
        ):
            parts = [f"step {cell.val_step}/{cell.steps}"]
            parts += [f"loss {cell.losses['loss']:.3f}"] if "loss" in cell.losses else []
            parts += [
                f"{shown} {_percent(cell.val[name])}"
                for name, shown in (("giou", "gIoU"), ("ciou", "cIoU"))
                if name in cell.val
            ]
            parts += [f"{cell.seconds_per_step:.2f} s/step"] if cell.seconds_per_step else []
            parts += [f"{duration(cell.left)} left"] if cell.left else []
            news.append("  ".join(parts))
        if cell.state != state:
            news = (
                self._change(cell, state) + news
                if cell.state == RUNNING
                else [
                    *news,
                    *self._change(cell, state),
                ]
            )
        return news

    def _change(self, cell: CellStatus, before: str) -> list[str]:
        if cell.state == RUNNING and before != TESTING:
            return [f"started at step {cell.step}" if cell.step else "started"]
        if cell.state == TESTING:
            return ["trained; reading the test split"]
        took = f" after {duration(cell.seconds)}" if cell.seconds is not None else ""
        if cell.state == FAILED:
            return [f"FAILED{took}: {last_line(cell.error)}"]
        ended = f"{cell.state}{took}" + (f"; {cell.training}" if cell.training else "")
        return [ended] if cell.state in (DONE, PRUNED, STOPPED) else []

    def _print(self, line: str) -> None:
        print(line, file=self.console.file, flush=True)


def duration(seconds: float | None) -> str:
    """`48 s`, `3.9 min`, `2 h 05`; "" for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f}"


def _log_of(cell: CellStatus) -> str:
    """Where its worker prints; "" before one has begun."""
    return f"{cell.path.name}/log.txt" if cell.step or cell.state not in (QUEUED, LOST) else ""


def _cut(text: str) -> str:
    """Why a job waits may be a whole sentence; it stands below the table."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}…)"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return _number(None if value is None else 100 * value, 1)


def last_line(error: str | None) -> str:
    """What an error says in the end; the rest is a traceback."""
    lines = [line for line in (error or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
