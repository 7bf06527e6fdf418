"""The page that is read: one HTML file that needs nothing else, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from keyseg.report.figures.registry import FIGURE_PLACES, FIGURES
from keyseg.report.figures.style import TARGET, look
from keyseg.report.gallery import overlay
from keyseg.report.gallery.examples import Gallery
from keyseg.report.page import overview
from keyseg.report.page.answer import FirstScreen
from keyseg.report.page.checks import Notice
from keyseg.report.sections import FilledSection
from keyseg.report.store import Sweep, shown
from keyseg.report.tables import contrasts as contrast_tables
from keyseg.report.tables import runs, tex
from keyseg.report.tables.contrasts import Conclusion
from keyseg.report.tables.table import PROTOCOL_TITLES, Line, Table, quantity
from keyseg.report.tuning.section import Section
from keyseg.runs.provenance import cost_unit

HERE = Path(__file__).parent
MARKDOWN = "report.md"
FIRST = "forest"
"""The figure that the first screen shows."""


@dataclass(frozen=True)
class PageContent:
    """Everything that the page shows, but for the figures."""

    sweep: Sweep
    answer: FirstScreen
    notices: Sequence[Notice]
    headline: Table
    answers: Sequence[Conclusion]
    results: Sequence[Table]
    verdicts: Sequence[Table]
    contrasts: Table | None
    slices: Sequence[Table]
    published: Table | None
    runs: pd.DataFrame
    manifest: pd.DataFrame
    gallery: Gallery | None
    tunings: Sequence[Section] = ()
    added: Sequence[FilledSection] = ()

    @property
    def tables(self) -> list[Table]:
        """Every table that is also written as a file."""
        return [*self.own_tables, *(table for section in self.added for table in section.tables)]

    @property
    def own_tables(self) -> list[Table]:
        """Those that are in no added section."""
        some = [self.published, *self.verdicts, self.contrasts, *self.slices]
        return [self.headline, *self.results, *(table for table in some if table is not None)]


def write(
    out_dir: Path,
    parts: PageContent,
    figures: Mapping[str, tuple[Path, ...]],
    formats: Sequence[str],
) -> tuple[Path, ...]:
    """Write those of the pages that are asked for, and with the first what the page of all sweeps
    says of this one; their paths.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "trim_blocks": True}
    page = jinja2.Environment(loader=loader, autoescape=True, lstrip_blocks=True, **options)
    plain = jinja2.Environment(loader=loader, autoescape=False, lstrip_blocks=True, **options)
    plain.filters["cell"] = _markdown
    tuned = [figure.files for section in parts.tunings for figure in section.figures]
    values = _values(parts, figures, [*figures.values(), *tuned], formats)
    pages = []
    if "html" in formats:
        for name in ("style.css", "filter.js"):
            values[name.replace(".", "_")] = (HERE / name).read_text(encoding="utf-8")
        pages.append(out_dir / "index.html")
        pages[-1].write_text(page.get_template("page.html.j2").render(values), encoding="utf-8")
        overview.keep(out_dir, asdict(parts.answer))
    if "md" in formats:
        pages.append(out_dir / MARKDOWN)
        pages[-1].write_text(plain.get_template("page.md.j2").render(values), encoding="utf-8")
    return tuple(pages)


def write_tex(
    out_dir: Path,
    parts: PageContent,
    tables: Sequence[Path],
    figures: Mapping[str, tuple[Path, ...]],
) -> Path:
    """Write report.tex, which sets all tables and figures; its path."""
    drawn = [
        (file.relative_to(out_dir), f"{FIGURES[name].title}. {FIGURES[name].caption}")
        for name in _order(parts, figures)
        for file in figures.get(name, ())
        if file.suffix == ".pdf"
    ]
    inputs = [file.relative_to(out_dir) for file in tables if file.suffix == ".tex"]
    file = out_dir / "report.tex"
    file.write_text(tex.document(parts.answer.title, inputs, drawn), encoding="utf-8")
    return file


def _values(
    parts: PageContent,
    figures: Mapping[str, tuple[Path, ...]],
    drawn: Sequence[tuple[Path, ...]],
    formats: Sequence[str],
) -> dict[str, Any]:
    sweep = parts.sweep
    svgs = [file for files in drawn for file in files if file.suffix == ".svg"]
    data = [file for files in drawn for file in files if file.suffix == ".csv"]
    order = _order(parts, figures)
    return {
        "parts": parts,
        "answer": parts.answer,
        "contents": _contents(parts),
        "first": FIRST if FIRST in figures else "",
        "svg": {file.stem: overlay.svg_uri(file) for file in svgs if "html" in formats},
        "figure_data": {file.stem: file.name for file in data if "csv" in formats},
        "pictured": "png" in formats,
        "sweep": sweep,
        "head": _head(sweep),
        "done": f"{len(sweep.finished)} of {len(sweep.cells)} cells finished",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "numbered": _numbers(parts),
        "rule": contrast_tables.rule(sweep, parts.answers),
        "answers": [(m, list(g)) for m, g in groupby(parts.answers, key=lambda a: a.metric)],
        "caveats": list(dict.fromkeys(a.caveat for a in parts.answers if a.caveat)),
        "figures": [
            (n, FIGURES[n].title, FIGURES[n].caption, figures[n], place)
            for n, place in order.items()
        ],
        "figure_numbers": {n: i for i, n in enumerate(order, 1)},
        "protocols": PROTOCOL_TITLES,
        "groups": _groups,
        "looks": [(v, look(v.index)) for v in sweep.variants],
        "target": TARGET,
        "manifest": _manifest(parts.manifest),
        "runs": [runs.display(row) for row in parts.runs.to_dict("records")],
        "folders": sorted({shown(cell.directory.parent) for cell in sweep.cells}),
        "unit": cost_unit(cell.info for cell in sweep.finished),
        "stated": runs.protocols(sweep),
    }


def _contents(parts: PageContent) -> list[tuple[str, str]]:
    """Id and title of each part of the page, in its order, with the sections that stand behind."""
    tuning = f"tuning-{parts.tunings[0].name}" if parts.tunings else ""
    known = (
        ("answer", "Answer", "head", True),
        ("caveats", "Caveats", "", bool(parts.notices)),
        ("verdicts", "Verdicts", "verdicts", bool(parts.answers)),
        ("results", "Results", "results", True),
        (tuning, "Tuning", "tuning", bool(parts.tunings)),
        ("slices", "Slices", "slices", bool(parts.slices)),
        ("learning", "Learning", "learning", True),
        ("gallery", "Gallery", "gallery", parts.gallery is not None),
        ("runs", "Runs", "runs", True),
    )
    entries = []
    for id, title, place, there in known:
        entries += [(id, title)] if there else []
        entries += [(f"section-{s.id}", s.title) for s in parts.added if s.place == place]
    return entries


def _order(parts: PageContent, figures: Mapping[str, tuple[Path, ...]]) -> dict[str, str]:
    """The figures that were drawn in the order of the page, each with its place there."""
    absent = {"verdicts": not parts.answers, "slices": not parts.slices}
    last = FIGURE_PLACES[-1]
    placed = [(n, last if absent.get(f.place) else f.place) for n, f in FIGURES.items()]
    drawn = [(name, place) for name, place in placed if name in figures]
    return dict(sorted(drawn, key=lambda pair: FIGURE_PLACES.index(pair[1])))


def _head(sweep: Sweep) -> list[tuple[str, str]]:
    started = sweep.design.get("started")
    when = datetime.fromtimestamp(float(started or 0), UTC).strftime("%Y-%m-%d %H:%M UTC")
    commits = sorted({commit for cell in sweep.cells for commit in cell.commits})
    protocols = [PROTOCOL_TITLES.get(p, p) for p in sweep.protocols]
    if protocols:
        protocols[0] += " (headline)"
    counts = sorted({int(c.samples["id"].nunique()) for c in sweep.finished})
    images = sorted({int(c.samples["image_id"].nunique()) for c in sweep.finished})
    examples = f"{_or(counts)} test examples on {_or(images)} images" if counts else "none yet"
    return [
        ("Sweep", sweep.name),
        ("Baseline", sweep.baseline.label if sweep.baseline else "none"),
        ("Started", when if started else "not recorded"),
        ("Commit", ", ".join(commit[:10] for commit in commits) or "not recorded"),
        ("Protocol", ", ".join(protocols) or "none yet"),
        ("Examples", examples),
        ("Seed numbers", ", ".join(map(str, sweep.seeds)) or "none"),
    ]


def _or(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))


def _numbers(parts: PageContent) -> dict[str, str]:
    """{table name: "1a"}: the number each table goes by."""
    chapters: list[Sequence[Table]] = [[parts.headline], parts.results]
    chapters += [[t] for t in (parts.published,) if t is not None]
    compared = [*parts.verdicts, *([parts.contrasts] if parts.contrasts else [])]
    chapters += [compared] if compared else []
    chapters += [parts.slices] if parts.slices else []
    chapters += [section.tables for section in parts.added if section.tables]
    return {
        table.name: f"{i}{chr(ord('a') + k) if len(chapter) > 1 else ''}"
        for i, chapter in enumerate(chapters, 1)
        for k, table in enumerate(chapter)
    }


def _groups(table: Table) -> list[tuple[str, list[Line]]]:
    return [(name, list(lines)) for name, lines in groupby(table.lines, key=lambda x: x.group)]


def _manifest(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Modules of each variant, with the trained share on top."""
    out = []
    for label, modules in rows.groupby("variant", sort=False):
        trained = modules[modules["trainable"].astype(bool)]["parameters"].sum()
        out.append(
            {
                "label": label,
                "trained": quantity(float(trained)),
                "all": quantity(float(modules["parameters"].sum())),
                "modules": modules.fillna("").to_dict("records"),
            }
        )
    return out


def _markdown(text: object) -> str:
    """Text inside a Markdown table's cell."""
    plain = " ".join(str(text).split())
    for letter in "\\|*_`<>[]":
        plain = plain.replace(letter, f"\\{letter}")
    return plain
