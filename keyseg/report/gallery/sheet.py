"""A contact sheet of examples: what the readers make of a data set, to be looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from keyseg.data.example import NAMELESS, VOID
from keyseg.data.pictures import open_rgb
from keyseg.report.figures.style import PALETTE
from keyseg.report.gallery import overlay

if TYPE_CHECKING:
    from keyseg.data.example import Example

TILE, _MARGIN, LINE, LINES, _COLUMNS = 300, 12, 16, 5, 4
TARGET_OUTLINE, IGNORED = "#0072b2", "#d55e00"
_FONT, _PATCH = ImageFont.load_default(13), 9
_LONG, _OF_NAMES = 28, 4
"""Characters of a target's name, and lines with names."""


def contact_sheet(examples: Sequence[Example], n: int, seed: int) -> Image.Image:
    """`n` examples drawn at random: target edged in blue, ignored pixels tinted orange.

    Under each: the query, the keyword, whether the target is empty, and the example's id. Of a
    query with several targets each is edged in a colour of its own, which stands before its name.
    """
    chosen = np.random.default_rng(seed).permutation(len(examples))[:n]
    tiles = [_tile(examples[number]) for number in sorted(chosen.tolist())]
    rows = [tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    above = [max(tile.picture.height for tile in row) for row in rows]
    below = [LINE * max(len(tile.lines) for tile in row) for row in rows]
    wide = len(rows[0]) * (TILE + _MARGIN) + _MARGIN
    high = sum(above) + sum(below) + _MARGIN * (len(rows) + 1)
    sheet = Image.new("RGB", (wide, high), "white")
    pencil = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, picture, text in zip(rows, above, below, strict=True):
        for column, tile in enumerate(row):
            left = column * (TILE + _MARGIN) + _MARGIN
            sheet.paste(tile.picture, (left, top + picture - tile.picture.height))
            for i, line in enumerate(tile.lines):
                _write(pencil, (left, top + picture + i * LINE), line)
        top += picture + text + _MARGIN
    return sheet


class Tile(NamedTuple):
    """One example: its picture, and the lines below it."""

    picture: Image.Image
    lines: list[list[Caption]]


def _tile(example: Example) -> Tile:
    mask = example.mask()
    picture = ImageOps.contain(open_rgb(example.image), (TILE, TILE))
    ignored = mask == VOID
    # The target keeps its colour, which queries speak of.
    drawn = overlay.draw(np.asarray(picture), ignored if ignored.any() else None, IGNORED)
    masks, colours = [each == 1 for each in example.masks()], [TARGET_OUTLINE]
    empty = "" if (mask == 1).any() else " (empty mask)"
    named = [[Caption(f"keyword: {example.keyword or '-'}{empty}")]]
    if len(targets := example.targets or ()) > 1:
        colours = [PALETTE[n % len(PALETTE)] for n in range(len(masks))]
        names = [_end(t.name or t.keyword or NAMELESS, _LONG) for t in targets]
        named = _in_lines([Caption(n, patch=c) for n, c in zip(names, colours, strict=True)])
    wide = TILE // 7  # characters
    query = textwrap.wrap(example.query, wide, max_lines=LINES - 2, placeholder=" ...")
    asked = [[Caption(text, ink="black")] for text in query]
    shown = Image.fromarray(overlay.edge_each(drawn, masks, colours))
    return Tile(shown, [*asked, *named, [Caption(_end(example.id, wide))]])


class Caption(NamedTuple):
    """A piece of a line of text, behind a patch of a colour where it has one."""

    text: str
    patch: str = ""
    ink: str = "#555555"

    @property
    def shown(self) -> str:
        """The built-in font lacks most scripts: what it cannot draw is shown as a question mark."""
        return self.text.encode("latin-1", "replace").decode("latin-1")

    @property
    def width(self) -> int:
        """In pixels, with the room behind it."""
        return self.indent + int(_FONT.getlength(self.shown)) + 12

    @property
    def indent(self) -> int:
        """Of the text, behind its patch."""
        return _PATCH + 4 if self.patch else 0


def _in_lines(captions: Sequence[Caption]) -> list[list[Caption]]:
    """Lines as wide as a tile, of which the last may say how many more there are."""
    lines: list[list[Caption]] = [[]]
    for n, caption in enumerate(captions):
        left = len(captions) - n
        last = len(lines) == _OF_NAMES
        rest = [Caption(f"+ {left - 1} more")] if last and left > 1 else []
        if lines[-1] and sum(e.width for e in (*lines[-1], caption, *rest)) > TILE:
            if last:
                lines[-1].append(Caption(f"+ {left} more"))
                break
            lines.append([])
        lines[-1].append(caption)
    return lines


def _write(pencil: ImageDraw.ImageDraw, place: tuple[int, int], line: Sequence[Caption]) -> None:
    left, top = place
    for caption in line:
        if caption.patch:
            pencil.rectangle((left, top + 4, left + _PATCH, top + 4 + _PATCH), caption.patch)
        pencil.text((left + caption.indent, top), caption.shown, caption.ink, _FONT)
        left += caption.width


def _end(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]
