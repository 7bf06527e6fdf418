"""One look for every figure: a variant has one colour, dash and marker in the whole report.

Colours are Okabe and Ito's and Tol's colour-blind safe ones without yellow, which is the target's.
They differ in lightness too, and dashes and markers tell variants apart in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyseg.report.store import Variant

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#332288", "#882255", "#44AA99", "#6B6B6B", "#999933", "#000000"),
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "d")
TARGET = "#F0E442"
INK, RULE = "#222222", "#d5d5d5"

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
}


@dataclass(frozen=True)
class Look:
    """Colour, dash and marker of one variant."""

    colour: str
    dash: Any
    marker: str


def look(index: int) -> Look:
    """The look of the variant at this place of the design; 144 differ."""
    n = len(COLOURS)
    return Look(
        COLOURS[index % n],
        DASHES[(index + index // n) % len(DASHES)],
        MARKERS[(index + index // n) % len(MARKERS)],
    )


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's settings for the report, and no others from outside."""
    import matplotlib as mpl

    with mpl.rc_context({**mpl.rcParamsDefault, **_RC, "backend": "agg"}):
        yield


def legend(figure: Any, variants: Sequence[Variant], *, line: bool = True) -> None:
    """One legend under the figure, in as many columns as its width has room for."""
    from matplotlib.lines import Line2D

    handles = []
    for variant in variants:
        style = look(variant.index)
        handles.append(
            Line2D(
                *([], []),
                color=style.colour,
                linestyle=style.dash if line else "none",
                marker=style.marker,
                label=wrap(variant.label, 44),
            )
        )
    if not handles:
        return
    longest = max(len(part) for h in handles for part in str(h.get_label()).splitlines())
    # 0.078 inch: a letter of 8.5 point; 0.62 inch: handle and gaps of one column.
    columns = int(figure.get_figwidth() / (0.078 * longest + 0.62))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(columns, len(handles))),
        handlelength=2.8,
        columnspacing=1.6,
    )


def wrap(text: str, width: int) -> str:
    """Text in lines of at most `width` letters; matplotlib's $ is taken literally."""
    lines = textwrap.wrap(text.replace("$", r"\$"), width, break_on_hyphens=False)
    return "\n".join(lines)


def save(figure: Any, folder: Path, name: str) -> tuple[Path, Path]:
    """Write PNG and SVG, the same bytes for the same figure; labels are never cut off."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    shared: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.06}
    figure.savefig(png, dpi=200, metadata={"Software": None}, **shared)
    figure.savefig(svg, metadata={"Date": None, "Creator": None}, **shared)
    return png, svg
