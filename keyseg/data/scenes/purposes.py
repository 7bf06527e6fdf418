"""What things are for, by category: read from purposes.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

PURPOSES: dict[str, list[list[str]]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)
"""By category: for each of its two purposes the ways to say it."""

KNOWN_PURPOSES: dict[str, list[str]] = {name: said[0] for name, said in PURPOSES.items()}
"""The first purpose of each: the bundled language model was told what these are for. Of the other
half it has heard no wording."""
