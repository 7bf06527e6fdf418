"""Text from outside in the cells of a CSV: a spreadsheet must not run it as a formula."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, in one spreadsheet or another."""

GUARD = "'"
"""Before it a cell is text, and is shown without."""


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"{GUARD}{text}" if text.lstrip(GUARD).startswith(FORMULA) else text


def unguarded(text: str) -> str:
    """The text of a cell that `guarded` wrote; any other as it is."""
    return text[1:] if text.startswith(GUARD) and guarded(text[1:]) == text else text
