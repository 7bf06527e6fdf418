"""The section of a report that holds its runs on other data, by data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keyseg.metrics import NO_TARGET
from keyseg.report.data import ReportData
from keyseg.report.sections import Block, section
from keyseg.report.stats import looks
from keyseg.report.stats.evaluations import OnTestSet, lacking
from keyseg.report.stats.verdict import NO_RESULT
from keyseg.report.store import Sweep
from keyseg.report.tables import printed
from keyseg.report.tables.table import (
    DASH,
    INTERVALS,
    Entry,
    Line,
    Table,
    entry,
    measured,
    percent,
    protocols,
    titles,
)

_MEASURES = ("giou", "ciou", "precision@0.5")
_MOST = 6
"""Runs that are named in a note."""


@section("evaluations", title="By data set", place="results")
def by_data_set(data: ReportData) -> Sequence[Block]:
    """Every variant on every test set, with rows in print; paired contrasts; what to know."""
    notes = list(_lacking(data.sweep))
    if not data.evaluated:
        return notes
    compared = _contrasts(data)
    tables = [_scores(data), *([compared] if compared.lines else [])]
    return [*tables, *notes, *_looks(data.sweep), *_notes(data.evaluated)]


def _scores(data: ReportData) -> Table:
    known = {m for each in data.evaluated for m in each.scores["metric"]}
    names = (*_MEASURES, *(m for m in NO_TARGET if m in known))
    lines = [line for each in data.evaluated for line in _of_set(each, names, data)]
    return Table(
        "evaluations",
        "By data set",
        "Finished runs, read on other data without training (`keyseg evaluate`), beside their own "
        "test. Imported: another system's masks, scored here. In print: copied, with the words in "
        f"what else the number differs. {INTERVALS} With several seeds: their mean, ± their "
        "standard deviation.",
        "Variant",
        (*titles(names), "Examples", "Source"),
        lines,
        mark="measured, and in print where it says so",
        text=frozenset({len(names) + 1}),
    )


def _of_set(each: OnTestSet, names: Sequence[str], data: ReportData) -> Iterator[Line]:
    index = {(r["protocol"], r["label"], r["metric"]): r for r in each.scores.to_dict("records")}
    for protocol, title in protocols(each.sweep).items():
        group = f"{each.title}, {title}"
        for variant in each.sweep.variants:
            rows = [index.get((protocol, variant.label, name)) for name in names]
            if variant.imported and not any(rows):
                continue
            entries = [measured(variant, n, r) for n, r in zip(names, rows, strict=True)]
            count = str(int(rows[0]["examples"])) if rows[0] else DASH
            source = "imported" if variant.imported else "measured"
            words = (Entry(count), Entry(source))
            yield Line(variant.label, (*entries, *words), variant.index, variant.hole, group)
        if protocol == each.sweep.headline:
            yield from _in_print(each.sweep, names, data, group)


def _in_print(sweep: Sweep, names: Sequence[str], data: ReportData, group: str) -> Iterator[Line]:
    rows = printed.on_same_data(sweep, data.published)
    if rows.empty:
        return
    rows = rows.assign(differs=printed.differs(sweep, rows))
    for (row, source, differs), of in rows.groupby(["row", "source", "differs"], sort=False):
        value = dict(zip(of["metric"], of["value_percent"], strict=True))
        entries = [Entry(printed.number(value[n]) if n in value else DASH) for n in names]
        other = f"; differs in: {differs}" if differs else ""
        words = (Entry(DASH), Entry(f"in print: {source}{other}"))
        yield Line(f"{row} (in print)", (*entries, *words), None, "", group)


def _contrasts(data: ReportData) -> Table:
    names = data.sweep.metrics
    lines = []
    for each in data.evaluated:
        rows = each.contrasts[each.contrasts["protocol"] == each.sweep.headline]
        index = {(r["contrast"], r["metric"]): r for r in rows.to_dict("records")}
        where = {v.label: v.index for v in each.sweep.variants}
        for name in dict.fromkeys(rows["contrast"]):
            own = [index.get((name, metric)) for metric in names]
            first = next(r for r in own if r)
            none = first["verdict"] == NO_RESULT
            entries = [entry(r, "difference") if r and not none else Entry(DASH) for r in own]
            hole = str(first["hole"]) if isinstance(first["hole"], str) else ""
            lines.append(Line(name, entries, where.get(first["label"]), hole, each.title))
    return Table(
        "evaluation_contrasts",
        "Contrasts by data set",
        "First minus second variant, in points, on the same examples and seeds of each data set, "
        "headline protocol; in brackets the 95 % interval over seeds and images, or over images "
        "alone where there is one seed; ± the standard deviation of the seeds' differences. The "
        "word follows Holm's p over the contrasts of one data set and column, not over data sets.",
        "Contrast",
        titles(names),
        lines,
    )


def _lacking(sweep: Sweep) -> Iterator[str]:
    missing = lacking(sweep)
    if missing:
        tests = list(dict.fromkeys(t for each in missing.values() for t in each))
        yield (
            f"Declared and not read yet: {', '.join(tests)} ({_named(list(missing))}). "
            f"`keyseg evaluate {sweep.name}` reads what is missing."
        )


def _looks(sweep: Sweep) -> Iterator[str]:
    if looks.standing(sweep) or looks.parts_by_looks(sweep):
        yield (
            "Seeds came look by look, decided on the runs' own test: p values of other test sets "
            "are not corrected for that."
        )


def _notes(test_sets: Sequence[OnTestSet]) -> Iterator[str]:
    for each in (one for one in test_sets if not one.own):
        evaluations = [e for of_run in each.evaluated.values() for e in of_run]
        if len(versions := {e.of.get("data") for e in evaluations}) > 1:
            yield f"{each.title}: the runs did not read the same data ({len(versions)} versions)."
        if len({e.of.get("code") for e in evaluations}) > 1:
            yield f"{each.title}: the runs were not read by the same code."
        cells = {c.signature: c for c in each.sweep.cells}
        ours = [s for s in each.evaluated if not cells[s].imported]
        if others := [cells[s] for s in each.evaluated if cells[s].imported]:
            names = ", ".join(dict.fromkeys(_origin(c.label, c.imported) for c in others))
            yield (
                f"{each.title}: what imported weights were trained on is not known here, nor who "
                f"chose them on what. {names}."
            )
        seen = [e.about.get("trained_on") for s in ours for e in each.evaluated[s]]
        if any(s is None for s in seen):
            yield (
                f"{each.title}: whether its images were trained on is not known, as the runs' own "
                "data was not there when they were read."
            )
        most = max((s for s in seen if s), key=lambda s: s["images"], default=None)
        if most and most["images"]:
            share = percent(most["images"] / most["of"])
            yield (
                f"{each.title}: {most['images']} of its {most['of']} images ({share} %) are among "
                "those that a run was trained on. Its scores are not those of unseen images."
            )
        chosen = max((s["val"] for s in seen if s), default=0)
        if chosen:
            yield f"{each.title}: {chosen} of its examples are among those that chose the weights."


def _origin(label: str, origin: Mapping[str, Any]) -> str:
    return (
        f"{label}: {origin.get('file')}, sha256 {str(origin.get('sha256'))[:12]}, said by "
        f"{origin.get('said_by')}"
    )


def _named(runs: Sequence[str]) -> str:
    more = f" and {len(runs) - _MOST} more" if len(runs) > _MOST else ""
    return "; ".join(runs[:_MOST]) + more
