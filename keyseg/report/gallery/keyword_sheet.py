"""The page on which a person settles keywords: picture, query, keyword, and the reason for doubt.

It stands alone, works without a server, keeps what was typed in the browser, and saves a CSV that
`keyseg keywords review --apply` reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import ImageOps

from keyseg.data.files import DataError
from keyseg.data.pictures import open_rgb
from keyseg.report.gallery import overlay
from keyseg.report.gallery.sheet import TARGET_OUTLINE

if TYPE_CHECKING:
    from keyseg.data.example import Example

SIDE = 300
"""Longest side of a picture on the page, in pixels."""


def page(name: str, rows: Sequence[Mapping[str, str]], examples: Iterable[Example]) -> str:
    """The page as HTML.

    Args:
        name: of the data set.
        rows: those of `keyseg.data.keywords.sheet.rows`.
        examples: where the pictures and targets of the rows are; a row without one has no picture.
    """
    known: dict[tuple[str, str], Example] = {}
    for e in examples:
        known.setdefault((e.image.stem, e.query), e)
    lines = []
    for row in rows:
        example = known.get((Path(row["image"]).stem, row["query"]))
        lines.append({**row, "picture": _picture(example) if example else ""})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    reasons = sorted({row["reason"] for row in rows if row["reason"]})
    # "<" would end the script that holds the data.
    data = json.dumps(list(rows), ensure_ascii=False).replace("<", "\\u003c")
    template = environment.get_template("keyword_sheet.html.j2")
    return template.render(name=name, rows=lines, reasons=reasons, data=data)


def _picture(example: Example) -> str:
    """A data URI: the image with its target edged in blue; "" where the file cannot be read."""
    try:
        picture = open_rgb(example.image)
    except DataError:
        return ""
    small = np.asarray(ImageOps.contain(picture, (SIDE, SIDE)))
    return overlay.jpeg_uri(
        overlay.draw(small, None, TARGET_OUTLINE, (example.mask() == 1, TARGET_OUTLINE))
    )
