"""One look for every figure: a variant has one colour, dash and marker in the whole report.

Colours are Okabe and Ito's and Tol's colour-blind safe ones without yellow, which is the target's.
They differ in lightness too, and dashes and markers tell variants apart in grey.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keyseg.report.figures import drawn
from keyseg.report.store import VariantResult
from keyseg.runs import disk
from keyseg.runs.disk import file_name

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#332288",
    "#882255",
    "#44AA99",
    "#6B6B6B",
    "#999933",
    "#000000",
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "d")
TARGET = "#F0E442"
LEGEND_LETTERS = 42
INK = "#222222"

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "keyseg",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: Type 3 fonts are refused by many publishers
}


FIGURE_KINDS = ("png", "svg", "pdf", "csv")
"""What a figure is written as; csv: its data."""
_UNDATED: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None},
}


_DIGITS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True)
class Look:
    """Colour, dash and marker of one variant."""

    colour: str
    dash: Any
    marker: str


SEVERAL = Look(INK, "-", "D")
"""The look of what several variants have part in."""


def look(index: int) -> Look:
    """The look of the variant at this place of the design; 144 differ."""
    n = len(PALETTE)
    return Look(
        PALETTE[index % n],
        DASHES[(index + index // n) % len(DASHES)],
        MARKERS[(index + index // n) % len(MARKERS)],
    )


def difference(ax: Any, place: int, row: Mapping[Any, Any], style: Look, *, filled: bool) -> None:
    """A difference on the line `place` of a forest plot: its interval, and a marker, filled or not.

    `row`: difference, low and high, as fractions; ends that are no numbers are left out.
    """
    ends = 100 * np.array([row["low"], row["high"]], float)
    if np.isfinite(ends).all():
        ax.plot(ends, [place, place], color=style.colour, linewidth=2.6, solid_capstyle="butt")
    ax.plot(
        [100 * row["difference"]],
        [place],
        marker=style.marker,
        markersize=6.5,
        color=style.colour,
        markerfacecolor=style.colour if filled else "white",
    )


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's settings for the report, and no others from outside."""
    import matplotlib as mpl

    with mpl.rc_context({**mpl.rcParamsDefault, **_RC, "backend": "agg"}):
        yield


def canvas(width: float, height: float, variants: Sequence[VariantResult]) -> Any:
    """A figure whose panels get `width` x `height` inches; its legend takes more below them."""
    from matplotlib.figure import Figure

    columns, lines = _legend_grid(width, variants)
    rows = -(-len(variants) // columns)
    # 0.155 inch a line of 8.5 point, and a gap between entries.
    return Figure(figsize=(width, height + rows * (0.155 * lines + 0.06) + 0.1))


def legend(figure: Any, variants: Sequence[VariantResult], *, line: bool = True) -> None:
    """One legend under the figure, in as many columns as its width has room for."""
    from matplotlib.lines import Line2D

    handles = []
    for variant in variants:
        style = look(variant.index)
        handles.append(
            Line2D(
                [],
                [],
                color=style.colour,
                linestyle=style.dash if line else "none",
                marker=style.marker,
                label=wrap(variant.label, LEGEND_LETTERS),
            )
        )
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=_legend_grid(figure.get_figwidth(), variants)[0],
            handlelength=2.8,
            columnspacing=1.6,
        )


def _legend_grid(width: float, variants: Sequence[VariantResult]) -> tuple[int, int]:
    """Columns that fit into `width` inches, and lines of the longest entry."""
    texts = [wrap(v.label, LEGEND_LETTERS).splitlines() for v in variants] or [[""]]
    longest = max(len(part) for text in texts for part in text)
    # 0.066 inch: a letter of 8.5 point; 0.62 inch: handle and gaps of one column.
    fit = int(width / (0.066 * longest + 0.62))
    return max(1, min(fit, len(texts))), max(map(len, texts))


def band(ax: Any, at: Any, low: Any, high: Any, colour: str, bands: int) -> None:
    """From the lowest to the highest seed; paler where many `bands` lie on each other."""
    ax.fill_between(at, low, high, color=colour, alpha=min(0.18, 0.8 / max(1, bands)), linewidth=0)


def wrap(text: str, width: int) -> str:
    """Text in lines of at most `width` letters; matplotlib's $ is taken literally."""
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": width > 20}
    # A hard space before the separator of factors: no line starts with it.
    text = text.replace("$", r"\$").replace(" · ", "\N{NO-BREAK SPACE}· ")
    return "\n".join(textwrap.wrap(text, width, **options))


def save(
    figure: Any,
    folder: Path,
    name: str,
    kinds: Sequence[str] = FIGURE_KINDS,
    points: Callable[[], pd.DataFrame] | None = None,
) -> tuple[Path, ...]:
    """Write the files of a figure, those of `FIGURE_KINDS` that are wanted, in that order.

    The same bytes for the same figure; labels are never cut off. `points`: its data, else the
    points that it drew.
    """
    files = {kind: folder / f"{file_name(name)}.{kind}" for kind in FIGURE_KINDS if kind in kinds}
    if "csv" in files:
        table = drawn.points(figure) if points is None else points()
        table.to_csv(files["csv"], index=False, float_format="%.6g", lineterminator="\n")
    if set(files) - {"csv"}:
        # Laid out and measured once: both take seconds where there are many panels.
        figure.get_layout_engine().execute(figure)
        box = figure.get_tightbbox().padded(0.06)
        figure.set_layout_engine("none")
        for kind, file in files.items():
            if kind != "csv":
                options = {"dpi": 200} if kind == "png" else {}
                figure.savefig(file, bbox_inches=box, metadata=_UNDATED[kind], **options)
        if "svg" in files:
            disk.replace(files["svg"], _shortened(files["svg"].read_text()).encode())
    return tuple(files.values())


def _shortened(svg: str) -> str:
    """Places to a hundredth of a point: a fifth of a file is digits that nobody sees."""
    svg = re.sub(r' d="[^"]*"', lambda path: _DIGITS.sub(r"\1", path[0]), svg)
    return re.sub(r'(\b[xy]="-?\d+\.\d\d)\d+', r"\1", svg)
