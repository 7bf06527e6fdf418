"""What the pictures of data=bruegel are made of: categories, colours, words.

Crowded like Bruegel's: many kinds of things, small ones among them, half hidden, in parts, with
others beside them that are nearly the same.

Outlines stand in `shapes.py`, purposes in `purposes.toml`. Also named here is what its backbones
(`python -m keyseg.tiny --world bruegel`) are not shown: an ablation's scenes hold it, so that a
cell has it to learn.
"""

from __future__ import annotations

from keyseg.data.scenes.shapes import SHAPES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "green": (50, 155, 65),
    "blue": (50, 85, 205),
    "yellow": (230, 200, 50),
    "purple": (145, 65, 175),
    "white": (238, 238, 238),
    "orange": (235, 125, 35),
    "black": (45, 45, 50),
}

RADIUS: dict[str, tuple[float, float]] = {"small": (11.0, 14.5), "big": (18.0, 25.0)}
"""Range of an object's radius in pixels."""

GROUPS: dict[str, tuple[str, ...]] = {
    "toy": ("ball", "kite", "drum", "teddy bear", "tennis ball", "tennis racket"),
    "vehicle": ("car", "boat", "bus", "fire truck", "hot air balloon"),
    "animal": ("fish", "bird", "cat"),
    "food": ("apple", "pear", "ice cream", "hot dog"),
    "plant": ("tree", "flower", "mushroom"),
    "tool": ("hammer", "key", "umbrella", "bell", "clock", "book", "flag"),
    "dish": ("cup", "bottle", "wine glass", "wine bottle"),
    "furniture": ("lamp", "table", "chair", "box"),
    "building": ("house", "tower"),
    "sign": ("traffic light", "traffic cone", "traffic sign", "street lamp", "fire hydrant"),
    "garment": ("hat", "shoe"),
    "ornament": ("star", "heart"),
}
"""Words for several categories: a query may say "the red vehicle"."""

CATEGORIES: tuple[str, ...] = (
    "ball", "cup", "traffic light", "house", "car", "tree", "star", "fish", "wine bottle", "box",
    "lamp", "heart", "traffic cone", "bird", "hat", "kite", "tennis ball", "boat", "apple", "clock",
    "teddy bear", "bottle", "flower", "bus", "traffic sign", "chair", "cat", "fire truck", "shoe",
    "mushroom", "umbrella", "key", "hot dog", "pear", "table", "wine glass", "hammer", "bell",
    "fire hydrant", "book", "tennis racket", "flag", "drum", "hot air balloon", "tower",
    "ice cream", "street lamp",
)  # fmt: skip
"""By falling frequency. Three in ten have several words, and most of these share the first one."""

TAIL = 4.0
"""The k-th category is drawn in proportion to 1 / (TAIL + k): the first twelve times as often as
the last."""

THING = "thing"
"""What everything may be called."""

GROUP_OF: dict[str, str] = {name: group for group, names in GROUPS.items() for name in names}

PARTS: tuple[str, ...] = tuple(
    sorted({piece.part for pieces in SHAPES.values() for piece in pieces if piece.part})
)
"""Parts that a query can ask for ("the roof of the red house")."""

HELD_OUT_CATEGORIES = ("flower", "wine glass", "key")
HELD_OUT_PAIRS = frozenset(
    (list(COLOURS)[(5 * k + 2) % len(COLOURS)], name) for k, name in enumerate(CATEGORIES)
)
"""Colour and category: one colour for each category."""
HELD_OUT_RELATION = "below"


def known(colour: str, category: str) -> bool:
    """Whether the backbones are shown such an object."""
    return category not in HELD_OUT_CATEGORIES and (colour, category) not in HELD_OUT_PAIRS


def is_called(category: str, noun: str) -> bool:
    """Whether a noun fits a category: its name, the last words of it (a tennis ball is a ball), its
    group or "thing"."""
    return noun in (category, GROUP_OF[category], THING) or category.endswith(f" {noun}")
