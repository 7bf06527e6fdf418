"""The page that is read: one HTML file that needs nothing else, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from keyseg.report.figures.style import TARGET, look
from keyseg.report.gallery import overlay
from keyseg.report.gallery.examples import Gallery
from keyseg.report.page.checks import Notice
from keyseg.report.store import Sweep, shown
from keyseg.report.tables import contrasts as contrast_tables
from keyseg.report.tables import runs, tex
from keyseg.report.tables.contrasts import Conclusion
from keyseg.report.tables.table import PROTOCOL_TITLES, Line, Table, quantity
from keyseg.report.tuning.section import Section
from keyseg.runs.provenance import cost_unit

HERE = Path(__file__).parent

FIGURES: Mapping[str, tuple[str, str]] = {
    "forest": (
        "Differences",
        "Every contrast with its 95 % intervals, not corrected: thick, over seeds and images (over "
        "images alone where there is one seed); thin with caps, over test images with these "
        "weights; dotted with caps, over seeds on these images. Filled: Holm's p is at most 0.05. "
        "Few seeds alone leave more doubt than both sources together, where much of the whole is "
        "the well-known part of the images. A contrast of which one variant has no finished cell "
        "keeps its line. Headline protocol.",
    ),
    "path": (
        "From the baseline to the whole",
        "One change a step: each variant with its 95 % interval over test examples, and above each "
        "step by how many points it changes the score, with a 95 % interval over seeds and images "
        "(over images alone where there is one seed) and the verdict. Headline protocol.",
    ),
    "paired": (
        "Example by example",
        "Left: IoU of both variants of a contrast on every test example (mean over common seeds); "
        "above the diagonal the first one is better. Right: share of examples whose difference is "
        "at most x. The first five contrasts; headline protocol.",
    ),
    "interaction": (
        "Interaction",
        "gIoU in percent for both factors of the design (mean over seeds and over what else "
        "varies); headline protocol. An empty field has no result.",
    ),
    "slices": (
        "gIoU by slice",
        "gIoU of every variant by slice, under the headline protocol. Bars: 95 % interval over "
        "test examples (bootstrap over images); n: examples.",
    ),
    "learning_curves": (
        "Learning curves",
        "Against the optimiser step: val scores (teacher-forced) and train losses as logged, "
        "before weighting; curves with many points are averaged in bins of steps. Bands, where "
        "there are several seeds: lowest to highest seed. Losses that fall by more than a factor "
        "of 20 stand on a logarithmic axis.",
    ),
    "budget": (
        "Score against budget",
        "Each variant's score with its 95 % interval over test examples against the steps that "
        "were made and against GPU-hours (CPU-hours where no run had a GPU) of training at the "
        "median pace, without evaluations; means over seeds, headline protocol, the sweep's first "
        "metric. Filled: every seed is at a plateau. Rings: the two lines cross.",
    ),
    "precision": (
        "Precision curves",
        "Share of test examples with an IoU above X, for every X; markers at 0.5, 0.6, … 0.9. "
        "Bands, where there are several seeds: lowest to highest seed.",
    ),
    "keyword": (
        "Keyword against mask",
        "Left: accuracy of KEY's top word among examples of like IoU (no point for fewer than "
        "five); a line that rises says that keyword and mask go together. Right: how often "
        "keyword and mask are right or wrong together. The two middle parts are the discrepancy "
        "rates. Headline protocol, seeds pooled.",
    ),
    "cost": (
        "Cost against quality",
        "gIoU with its 95 % interval over test images against GPU-hours (CPU-hours where no run "
        "had a GPU) of a whole run and against trained parameters; means over seeds, headline "
        "protocol.",
    ),
}


@dataclass(frozen=True)
class PageContent:
    """Everything that the page shows, but for the figures."""

    sweep: Sweep
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

    @property
    def tables(self) -> list[Table]:
        """Every table that is also written as a file."""
        some = [self.published, *self.verdicts, self.contrasts, *self.slices]
        return [self.headline, *self.results, *(table for table in some if table is not None)]


def write(
    out_dir: Path, parts: PageContent, figures: Mapping[str, tuple[Path, ...]]
) -> tuple[Path, Path]:
    """Write index.html and report.md; their paths."""
    import jinja2

    html, markdown = out_dir / "index.html", out_dir / "report.md"
    loader = jinja2.FileSystemLoader(HERE)
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "trim_blocks": True}
    page = jinja2.Environment(loader=loader, autoescape=True, lstrip_blocks=True, **options)
    plain = jinja2.Environment(loader=loader, autoescape=False, lstrip_blocks=True, **options)
    plain.filters["cell"] = _markdown
    values = _values(parts, figures)
    values["svg"] = {name: overlay.file_uri(files[1]) for name, files in figures.items()}
    tuned = [figure.files for section in parts.tunings for figure in section.figures]
    values["svg"] |= {files[1].stem: overlay.file_uri(files[1]) for files in tuned}
    for name in ("style.css", "filter.js"):
        values[name.replace(".", "_")] = (HERE / name).read_text(encoding="utf-8")
    html.write_text(page.get_template("page.html.j2").render(values), encoding="utf-8")
    markdown.write_text(plain.get_template("page.md.j2").render(values), encoding="utf-8")
    return html, markdown


def write_tex(
    out_dir: Path,
    parts: PageContent,
    tables: Sequence[Path],
    figures: Mapping[str, tuple[Path, ...]],
) -> Path:
    """Write report.tex, which sets all tables and figures; its path."""
    drawn = [
        (file.relative_to(out_dir), f"{FIGURES[name][0]}. {FIGURES[name][1]}")
        for name in FIGURES
        for file in figures.get(name, ())
        if file.suffix == ".pdf"
    ]
    inputs = [file.relative_to(out_dir) for file in tables if file.suffix == ".tex"]
    title = f"{parts.sweep.name}: {parts.sweep.design.get('question') or 'a sweep'}"
    file = out_dir / "report.tex"
    file.write_text(tex.document(title, inputs, drawn), encoding="utf-8")
    return file


def _values(parts: PageContent, figures: Mapping[str, tuple[Path, ...]]) -> dict[str, Any]:
    sweep = parts.sweep
    return {
        "parts": parts,
        "sweep": sweep,
        "head": _head(sweep),
        "done": f"{len(sweep.finished)} of {len(sweep.cells)} cells finished",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "numbered": _numbers(parts),
        "rule": contrast_tables.rule(sweep, parts.answers),
        "answers": [(m, list(g)) for m, g in groupby(parts.answers, key=lambda a: a.metric)],
        "caveats": list(dict.fromkeys(a.caveat for a in parts.answers if a.caveat)),
        "figures": [(n, *FIGURES[n], figures[n]) for n in FIGURES if n in figures],
        "figure_numbers": {n: i for i, n in enumerate((f for f in FIGURES if f in figures), 1)},
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
        ("Seeds", ", ".join(map(str, sweep.seeds)) or "none"),
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
