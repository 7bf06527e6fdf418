"""Numbers and names as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyseg.config import PROJECT
from keyseg.report.figures.style import PALETTE, TARGET, look, wrap
from keyseg.report.page.render import _markdown
from keyseg.report.tables import printed, tex
from keyseg.report.tables.table import Entry, Line, Table, percent, quantity


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.5832, False, "58.3"),
        (-0.012, True, "−1.2"),
        (0.012, True, "+1.2"),
        (-0.0001, True, "0.0"),
        (float("nan"), True, "–"),
    ],
)
def test_percent(value: float, signed: bool, text: str) -> None:
    assert percent(value, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1234567, "1.23 M"), (4321, "4.32 k"), (0.5123, "0.512"), (7e9, "7 B")]
)
def test_quantity(value: float, text: str) -> None:
    assert quantity(value) == text


def test_tex_escapes() -> None:
    assert tex.escape(r"a_b & 5% {x} $y$ #1 ~ ^ \z") == (
        r"a\_b \& 5\% \{x\} \$y\$ \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )


def test_letters_that_pdflatex_lacks_are_question_marks() -> None:
    assert tex.escape("naïve Łódź 猫 †") == r"naïve Łódź ? $^{\dagger}$"


def test_long_tex_tables_are_several() -> None:
    lines = [Line(f"v{i}", [Entry("1")], group=("a", "b")[i // 20]) for i in range(40)]
    text = tex.render(Table("t", "T", "C", "V", ("x",), lines))
    assert text.count(r"\begin{table}") == text.count(r"\end{tabular}}") == 2
    first, second = text.split(r"\end{table}")[:2]
    assert (first.count(" & 1 "), second.count(" & 1 ")) == (20, 20)
    assert r"\caption{T, continued.}\n\label{tab:t-2}".replace(r"\n", "\n") in second


def test_tex_table() -> None:
    line = Line("a_b", [Entry("58.3", "[55.0, 61.2]", "± 1.2"), Entry("–")], 0, "1 of 3 seeds")
    text = tex.render(Table("t", "T", "50 %", "Variant", ("gIoU", "Key right, mask wrong"), [line]))
    assert r"\caption{T (measured). 50 \%}" in text
    assert r"\shortstack[r]{58.3 $\pm$ 1.2\\ {\tiny {[}55.0, 61.2{]}}} & -- \\" in text
    assert r"\shortstack[r]{Key right\\ mask wrong}" in text


def test_markdown_cells() -> None:
    assert _markdown("a|b_c\n<i>") == r"a\|b\_c \<i\>"


def test_looks_differ_and_leave_the_targets_colour() -> None:
    assert len({(x.colour, str(x.dash), x.marker) for x in map(look, range(48))}) == 48
    assert TARGET not in PALETTE
    assert len({look(i).colour for i in range(12)}) == 12


def test_wrap() -> None:
    assert wrap("full · r=8", 7) == "full\N{NO-BREAK SPACE}·\nr=8"
    assert wrap("$x$", 10) == r"\$x\$"


def test_numbers_in_print() -> None:
    rows = printed.load(PROJECT / "reports" / "published")
    assert rows["source"].ne("").all()
    assert rows["protocol"].ne("").all()
    assert rows["backbone"].ne("").all()
    assert set(rows["metric"]) == {"giou", "ciou"}
    assert rows["value_percent"].between(0, 100).all()
    full = rows[(rows["variant"] == "full") & (rows["table"] == "3")].set_index("metric")
    assert full["value_percent"].to_dict() == {"giou": 63.85, "ciou": 62.40}
    named = {file.stem for file in (PROJECT / "experiments" / "fusion").glob("*.yaml")}
    assert set(rows["variant"]) - {""} <= named


def test_a_bad_published_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("table,data\n1,a\n")
    with pytest.raises(ValueError, match=r"x\.csv lacks the columns split"):
        printed.load(tmp_path)
    (tmp_path / "x.csv").write_text(
        f"{','.join(printed.PRINTED_COLUMNS)}\n1,d,s,r,v,giou,many,s,p,b\n"
    )
    with pytest.raises(ValueError, match=r"x\.csv, column value_percent"):
        printed.load(tmp_path)
    assert printed.load(tmp_path / "absent").empty
