"""Tables as LaTeX (booktabs), to be read in with \\input."""

from __future__ import annotations

from itertools import groupby

from keyseg.report.tables import Entry, Table

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
    "\n": " ",
}


def escape(text: str) -> str:
    """Text that LaTeX sets as it reads; brackets are guarded, for they may follow a line break."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def render(table: Table) -> str:
    """A whole `table` environment; needs \\usepackage{booktabs}."""
    columns = "".join("l" if i in table.text else "r" for i in range(len(table.header)))
    lines = [
        "% Written by keyseg report. In the preamble: \\usepackage{booktabs}",
        "\\begin{table}[tbp]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escape(f'{table.title} ({table.mark}). {table.caption}')}}}",
        f"\\label{{tab:{table.name.replace('_', '-')}}}",
        f"\\begin{{tabular}}{{l{columns}}}",
        "\\toprule",
        " & ".join([escape(table.head), *(_stack(*title.split(", ")) for title in table.header)])
        + r" \\",
    ]
    for group, members in groupby(table.lines, key=lambda line: line.group):
        lines.append("\\midrule")
        if group:
            span = len(table.header) + 1
            lines.append(f"\\multicolumn{{{span}}}{{l}}{{\\itshape {escape(group)}}} \\\\")
        for line in members:
            label = _stack(line.label, f"({line.hole})") if line.hole else escape(line.label)
            lines.append(" & ".join([label, *map(_entry, line.entries)]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def _entry(entry: Entry) -> str:
    value = escape(f"{entry.value} {entry.spread}".strip())
    small = [f"{{\\tiny {escape(part)}}}" for part in (entry.interval, entry.word) if part]
    return _shortstack([value, *small])


def _stack(*parts: str) -> str:
    return _shortstack([escape(part) for part in parts])


def _shortstack(parts: list[str]) -> str:
    lines = "\\\\ ".join(parts)
    return lines if len(parts) == 1 else f"\\shortstack[r]{{{lines}}}"
