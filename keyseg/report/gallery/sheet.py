"""A contact sheet of examples: what the readers make of a data set, to be looked at."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from keyseg.data.example import VOID
from keyseg.data.pictures import open_rgb
from keyseg.report.gallery import overlay

if TYPE_CHECKING:
    from keyseg.data.example import Example

TILE, _MARGIN, LINE, LINES, _COLUMNS = 300, 12, 16, 5, 4
TARGET_OUTLINE, IGNORED = "#0072b2", "#d55e00"
FONT_SIZE = 13


def contact_sheet(examples: Sequence[Example], n: int, seed: int) -> Image.Image:
    """`n` examples drawn at random: target edged in blue, ignored pixels tinted orange.

    Under each: the query, the keyword, whether the target is empty, and the example's id.
    """
    chosen = np.random.default_rng(seed).permutation(len(examples))[:n]
    columns = min(_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    cell = (TILE + _MARGIN, TILE + LINES * LINE + _MARGIN)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), "white")
    for place, number in enumerate(sorted(chosen.tolist())):
        left, top = (place % columns) * cell[0] + _MARGIN, (place // columns) * cell[1] + _MARGIN
        _tile(sheet, examples[number], left, top)
    return sheet


def _tile(sheet: Image.Image, example: Example, left: int, top: int) -> None:
    mask = example.mask()
    picture = ImageOps.contain(open_rgb(example.image), (TILE, TILE))
    ignored = mask == VOID
    # The target keeps its colour, which queries speak of.
    drawn = overlay.draw(
        np.asarray(picture),
        ignored if ignored.any() else None,
        IGNORED,
        (mask == 1, TARGET_OUTLINE),
    )
    sheet.paste(Image.fromarray(drawn), (left, top))
    empty = "" if (mask == 1).any() else " (empty mask)"
    font = ImageFont.load_default(FONT_SIZE)
    wide = TILE // 7  # characters
    query = textwrap.wrap(example.query, wide, max_lines=LINES - 2, placeholder=" ...")
    lines = [*query, f"keyword: {example.keyword or '-'}{empty}", _end(example.id, wide)]
    pencil = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        # The built-in font lacks most scripts: what it cannot draw is shown as a question mark.
        text = line.encode("latin-1", "replace").decode("latin-1")
        colour = "black" if i < len(query) else "#555555"
        pencil.text((left, top + TILE + i * LINE), text, colour, font)


def _end(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]
