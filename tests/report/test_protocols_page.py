"""docs/protocols.md against what it speaks of: the numbers in print, and the dialects."""

import re

import pandas as pd

from keyseg.config import PROJECT
from keyseg.dialects.score import dialects
from keyseg.report.tables import printed

PAGE = (PROJECT / "docs" / "protocols.md").read_text(encoding="utf-8")


def audit() -> list[str]:
    """The lines of the page's table: one a system, data set and split."""
    rows = printed.load(PROJECT / "reports" / "published")
    keys = ["source", "row", "data", "split", "protocol", *printed.RULES]
    lines = []
    for key, group in rows.groupby(keys, sort=False):
        fields = dict(zip(keys, key, strict=True))
        values = group.set_index("metric")["value_percent"]
        shown = " / ".join(
            printed.number(values[m]) if m in values else "–" for m in ("giou", "ciou")
        )
        place = f"{fields['data']} {fields['split'] or '(split not stated)'}"
        said = [_short(fields[k]) for k in ("protocol", *printed.RULES)]
        name = fields["row"] + _of(fields["source"])
        lines.append(f"| {' | '.join([name, place, shown, *said])} |")
    return lines


def _of(source: str) -> str:
    """Which table of which work a row stands in."""
    table = re.search(r"table \d( and table \d)?", source)
    if table:
        return f" (KeySeg, {table[0]})"
    return " (LISA)" if source.startswith("LISA") else " (secondary source)"


def _short(value: str) -> str:
    return re.sub(r"not stated \((?:public|released) code: (.+)\)", r"not stated; code: \1", value)


def test_every_number_in_print_is_audited_as_the_files_have_it() -> None:
    missing = [line for line in audit() if line not in PAGE]
    assert not missing, "\n".join(missing)
    assert len(pd.unique(pd.Series(audit()))) == len(audit())


def test_every_dialect_stands_on_the_page() -> None:
    assert all(f"| `{name}` |" in PAGE for name in dialects())
