"""Tables as LaTeX (booktabs), to be read in with \\input, and a document that holds them all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from keyseg.report.tables.table import Entry, Line, Table

_LONGEST = 24
"""Lines, of two rows each, that a page of a paper holds under a caption."""
EVERY = 6
TEXT = "p{42mm}"
"""Columns of words are broken into lines of this width."""

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": r"{[}",
    "]": r"{]}",
    "−": r"$-$",
    "–": r"--",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "†": r"$^{\dagger}$",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
    "\n": " ",
}


def escape(text: str) -> str:
    """Text that LaTeX sets as it reads; brackets are guarded, for they may follow a line break.

    A letter that pdflatex does not know (beyond Latin Extended-A) is a question mark.
    """
    known = (_ESCAPES.get(x, x if ord(x) < 0x180 else "?") for x in text)
    return "".join(known)


def document(title: str, tables: Sequence[Path], figures: Sequence[tuple[Path, str]]) -> str:
    """A whole document: every table, then every figure (a PDF file and its caption).

    Paths are relative to where the document lies.
    """
    lines = [
        "% Written by keyseg report; pdflatex report.tex sets it as it is.",
        "\\documentclass[10pt]{article}",
        "\\usepackage[a4paper,margin=20mm]{geometry}",
        "\\usepackage{booktabs,graphicx}",
        f"\\title{{{escape(title)}}}",
        "\\author{keyseg report}",
        "\\date{}",
        "\\extrafloats{200}",
        "\\begin{document}",
        "\\maketitle",
    ]
    for i, table in enumerate(tables, 1):
        lines.append(f"\\input{{{table.with_suffix('').as_posix()}}}")
        if i % EVERY == 0:  # so that no more floats wait than LaTeX keeps
            lines.append("\\clearpage")
    for file, caption in figures:
        lines += [
            "\\begin{figure}[p]",
            "\\centering",
            "\\includegraphics[width=\\linewidth,height=.8\\textheight,keepaspectratio]"
            f"{{{file.as_posix()}}}",
            f"\\caption{{{escape(caption)}}}",
            "\\end{figure}",
        ]
    return "\n".join([*lines, "\\end{document}", ""])


def render(table: Table) -> str:
    """Whole `table` environments, one for each `_LONGEST` lines; needs booktabs and graphicx.

    A table that is wider than the text is scaled down to it.
    """
    parts = _pages(table.lines)
    said = escape(f"{table.title} ({table.mark}). {table.caption}")
    head = "% Written by keyseg report. In the preamble: \\usepackage{booktabs,graphicx}\n"
    return head + "".join(
        _page(table, part, said if i == 0 else escape(f"{table.title}, continued."), i)
        for i, part in enumerate(parts)
    )


def _pages(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines by page: a group that does not fit on what is left of one begins the next."""
    pages: list[list[Line]] = [[]]
    for _, members in groupby(lines, key=lambda line: line.group):
        rest = list(members)
        if pages[-1] and len(pages[-1]) + len(rest) > _LONGEST:
            pages.append([])
        while rest:
            room = _LONGEST - len(pages[-1])
            pages[-1] += rest[:room]
            rest = rest[room:]
            if rest:
                pages.append([])
    return pages


def _page(table: Table, part: Sequence[Line], caption: str, number: int) -> str:
    columns = "".join(TEXT if i in table.text else "r" for i in range(len(table.header)))
    label = table.name.replace("_", "-") + (f"-{number + 1}" if number else "")
    lines = [
        "\\begin{table}[tbp]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{caption}}}",
        f"\\label{{tab:{label}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{columns}}}",
        "\\toprule",
        " & ".join([escape(table.head), *(_stack(*title.split(", ")) for title in table.header)])
        + r" \\",
    ]
    for group, members in groupby(part, key=lambda line: line.group):
        lines.append("\\midrule")
        if group:
            span = len(table.header) + 1
            lines.append(f"\\multicolumn{{{span}}}{{l}}{{\\itshape {escape(group)}}} \\\\")
        for line in members:
            label = (
                _stack(line.label, f"({line.hole})", side="l") if line.hole else escape(line.label)
            )
            cells = (
                escape(e.value or e.word) if i in table.text else _entry(e)
                for i, e in enumerate(line.entries)
            )
            lines.append(" & ".join([label, *cells]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}}", "\\end{table}", ""]
    return "\n".join(lines)


def _entry(entry: Entry) -> str:
    value = escape(f"{entry.value} {entry.spread}".strip())
    small = [f"{{\\tiny {escape(part)}}}" for part in (entry.interval, entry.word) if part]
    return _shortstack([value, *small])


def _stack(*parts: str, side: str = "r") -> str:
    return _shortstack([escape(part) for part in parts], side)


def _shortstack(parts: list[str], side: str = "r") -> str:
    lines = "\\\\ ".join(parts)
    return lines if len(parts) == 1 else f"\\shortstack[{side}]{{{lines}}}"
