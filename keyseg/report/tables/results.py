"""Tables of what was measured: masks, keywords and failures, cost, and the same by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan

import pandas as pd

from keyseg.metrics import NO_TARGET, OF_NOUN, OF_SEVERAL, colliding, further
from keyseg.report.store import Sweep, VariantResult
from keyseg.report.tables.table import (
    BRIEF,
    DASH,
    INTERVALS,
    PROTOCOL_TITLES,
    Entry,
    Line,
    Table,
    measured,
    percent,
    protocols,
    quantity,
    titles,
)
from keyseg.runs.provenance import cost_unit

MASKS = ("giou", "ciou", *(f"precision@{x}" for x in (0.5, 0.6, 0.7, 0.8, 0.9)))
_WORDS = (
    "keyword_accuracy",
    "discrepancy_keyword_right_mask_wrong",
    "discrepancy_keyword_wrong_mask_right",
    "empty_rate",
    "no_seg_rate",
    "no_key_rate",
)


def results(sweep: Sweep, scores: pd.DataFrame) -> list[Table]:
    """The result table in panels: masks; keywords and failures; further measures; cost."""
    whole = scores[scores["slice"] == ""]
    how = INTERVALS
    if whole["sd"].notna().any():
        how += " With several seeds: their mean, ± their standard deviation."
    chance = whole["majority"].dropna()
    floor = (
        f" ({percent(chance.iloc[0])} by always naming the most frequent)" if len(chance) else ""
    )
    collide = next((colliding(cell.samples) for cell in sweep.finished), nan)
    if isfinite(collide) and collide:
        floor += f"; {percent(collide)} of the keywords share their first token with another"
    words = (
        f"Keyword acc.: KEY's top word is the keyword{floor}. Key right, mask wrong: share of "
        "examples with the right keyword and IoU < 0.5; key wrong, mask right: a wrong keyword and "
        "IoU ≥ 0.5. Empty: no pixel predicted. No SEG, No KEY: answers without the token "
        "(teacher-forced answers always have both). Not asked: the variant's answers hold no KEY. "
        f"{how}"
    )
    columns, masks = MASKS, "P@X: share of examples with IoU > X."
    if whole["metric"].isin(NO_TARGET).any():
        columns = (*MASKS, *NO_TARGET)
        masks += (
            " N-acc: share of the examples without a target for which nothing is predicted; "
            "T-acc: share of the others for which something is."
        )
    nouns = (
        "What the model calls the target in the answer that it writes, against its mask: the head "
        "noun of what stands after the tokens, by the rules of data.keyword=head_noun, is that of "
        "what it was trained to say. Noun right, mask wrong: share of examples with the right noun "
        "and IoU < 0.5; noun wrong, mask right: another noun or none, and IoU ≥ 0.5. A dash where "
        f"answers are given, or are not to name the target. {how}"
    )
    said = whole[whole["metric"].isin(OF_NOUN)]["value"].notna().any()
    spoken = [_panel(sweep, whole, "results_nouns", "Answer against mask", nouns, OF_NOUN)]
    each = (
        "Queries that may have several targets, each with a mask of its own. Masks and targets are "
        "matched one to one, so that the sum of IoUs at the images' own sizes is highest. gIoU: "
        "that sum over the number of masks or targets, whichever are more; cIoU: intersection over "
        "union, summed over the pairs, and over what has none; the table of masks scores the union "
        "of an answer's masks. MUSE's numbers in print are another protocol, matched at random "
        "points, and are not to be set beside these. Given answers tell how many targets there are "
        f"and name them. {how}"
    )
    asked = whole[whole["metric"].isin(OF_SEVERAL)]["value"].notna().any()
    several = [_panel(sweep, whole, "results_several", "Several targets", each, OF_SEVERAL)]
    more = further()
    named = "; ".join(f"{measure.title}: {measure.explanation}" for measure in more)
    names = tuple(measure.name for measure in more)
    added = [_panel(sweep, whole, "results_further", "Further measures", f"{named}. {how}", names)]
    return [
        _panel(sweep, whole, "results_masks", "Masks", f"{masks} {how}", columns),
        _panel(sweep, whole, "results_words", "Keywords and failures", words, _WORDS),
        *(spoken if said else []),
        *(several if asked else []),
        *(added if more else []),
        _cost(sweep),
    ]


def by_slice(sweep: Sweep, scores: pd.DataFrame, name: str, values: Sequence[str]) -> Table:
    """The result table split by one slice, under the headline protocol."""
    protocol = sweep.headline
    part = scores[(scores["slice"] == name) & (scores["protocol"] == protocol)]
    groups = {}
    for value in values:
        rows = part[part["group"] == value]
        size = f"{int(rows['examples'].max())} examples" if len(rows) else "no examples"
        chance = percent(rows["majority"].max()) if len(rows) else DASH
        groups[value] = f"{value} ({size}; most frequent first token {chance})"
    return Table(
        f"slices_{name}",
        f"By {name.replace('_', ' ')}",
        f"The same measures by {name.replace('_', ' ')}, "
        f"{PROTOCOL_TITLES.get(protocol, protocol)}. {INTERVALS}",
        "Variant",
        titles(BRIEF),
        _lines(sweep.variants, part, BRIEF, groups, "group"),
    )


def _panel(
    sweep: Sweep,
    whole: pd.DataFrame,
    name: str,
    title: str,
    caption: str,
    names: Sequence[str],
) -> Table:
    lines = _lines(sweep.variants, whole, names, protocols(sweep), "protocol")
    return Table(name, title, caption, "Variant", titles(names), lines)


def _lines(
    variants: Sequence[VariantResult],
    rows: pd.DataFrame,
    names: Sequence[str],
    groups: Mapping[str, str],
    by: str,
) -> list[Line]:
    index = {(r[by], r["label"], r["metric"]): r for r in rows.to_dict("records")}
    lines = []
    for group, title in groups.items():
        for variant in variants:
            entries = [measured(variant, n, index.get((group, variant.label, n))) for n in names]
            lines.append(Line(variant.label, entries, variant.index, variant.hole, title))
    return lines


def _cost(sweep: Sweep) -> Table:
    unit = cost_unit(cell.info for cell in sweep.finished)
    lines = []
    for variant in sweep.variants:
        steps, minutes = variant.mean("steps"), variant.mean("minutes")
        values = [
            quantity(variant.mean("trainable_parameters")),
            f"{steps:.0f}" if isfinite(steps) else DASH,
            quantity(variant.mean("seconds_per_step")),
            f"{minutes:.1f}" if isfinite(minutes) else DASH,
            quantity(variant.hours),
            ", ".join(str(c.seed) for c in variant.finished) or DASH,
        ]
        entries = [Entry(v) for v in values]
        lines.append(Line(variant.label, entries, variant.index, variant.hole))
    return Table(
        "results_cost",
        "Cost",
        "Trainable parameters, optimiser steps, seconds a step, and what a whole run (training and "
        f"evaluation, broken-off attempts included) took: minutes, and {unit}-hours, which are "
        f"those of all its {'GPUs' if unit == 'GPU' else 'processes'} together. The start of "
        "Python and its imports is not in it. Means over seeds; times compare only on one machine.",
        "Variant",
        ("Trainable parameters", "Steps", "Seconds a step", "Minutes", f"{unit}-hours", "Seeds"),
        lines,
    )
