"""Scores and contrasts of a sweep as tidy tables: one row per value, with its interval.

`scores` columns: protocol, slice, group, label, metric, value, low, high, sd (over seeds), seeds,
examples, images, majority. The whole test split is slice "" and group "". Fractions, not percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from keyseg.metrics import COLUMNS, MEASURES, OF_KEY, SOME_DATA, majority, ratios
from keyseg.report.stats import inference, looks, registration, training, verdict
from keyseg.report.stats.collapse import sentence
from keyseg.report.stats.comparison import MCNEMAR, Comparison, collapsed_seeds, compare
from keyseg.report.stats.contrasts import Contrast
from keyseg.report.stats.contrasts import contrasts as declared
from keyseg.report.stats.margin import margins
from keyseg.report.stats.parts import SLICE, WHOLE_SPLIT, images_of, part_of
from keyseg.report.store import Sweep
from keyseg.runs.provenance import cost_unit

MAX_GROUPS = 12
"""A slice with more values than this (an id, say) is no slice worth a table."""
_BY_SIZE = ("empty", "small", "short", "medium", "large", "long")
_BY_SHARE = ("all", "most", "part", "none")
ORDER = (*_BY_SIZE, "0", "1", "2", "3+", *_BY_SHARE)

SCORE_COLUMNS = (
    "protocol",
    "slice",
    "group",
    "label",
    "metric",
    "value",
    "low",
    "high",
    "sd",
    "seeds",
    "examples",
    "images",
    "majority",
)
SOURCES = ("images", "seeds", "both")
TESTS = (*SOURCES, "equivalence")
CONTRAST_COLUMNS = (
    "protocol",
    "contrast",
    "label",
    "baseline",
    "metric",
    "difference",
    "low",
    "high",
    *(f"{end}_{source}" for source in SOURCES for end in ("low", "high")),
    *(f"p_{source}" for source in SOURCES),
    *(f"holm_{source}" for source in SOURCES),
    "margin",
    "p_equivalence",
    "holm_equivalence",
    "sd",
    "effect_images",
    "effect_seeds",
    "won",
    "lost",
    "mcnemar",
    "difference_all",
    "low_all",
    "high_all",
    "median",
    "low_median",
    "high_median",
    "confidence_median",
    "seeds",
    "examples",
    "images",
    "hole",
    "verdict",
    "sentence",
    "caveat",
    "collapsed",
    "verdict_all",
    "second",
    "training",
    "at",
    "look",
    "declared",
)


def slices(sweep: Sweep) -> dict[str, list[str]]:
    """Slices worth splitting by and their values: style, size, length, distractors, then others.

    Values stand in their natural order if they have one, else as they come in the data. A slice
    that has one value only, or more than `MAX_GROUPS`, is left out.
    """
    values: dict[str, dict[str, None]] = {}
    for cell in sweep.finished:
        for column in cell.samples.columns:
            if column.startswith(SLICE):
                present = cell.samples[column].dropna().astype(str).unique()
                values.setdefault(column.removeprefix(SLICE), {}).update(dict.fromkeys(present))

    def ordered(present: Iterable[str]) -> bool:
        return set(present) <= set(ORDER)

    first = ["style", "size", "length", "distractors"]
    names = [n for n in first if n in values] + sorted(set(values).difference(first))
    return {
        name: sorted(values[name], key=ORDER.index) if ordered(values[name]) else list(values[name])
        for name in names
        if 1 < len(values[name]) <= MAX_GROUPS
    }


def scores(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Every measure of every variant and protocol, by slice under the headline one."""
    split = [(name, value) for name, values in slices(sweep).items() for value in values]
    rows: list[tuple[object, ...]] = []
    for variant in sweep.variants:
        for protocol in sweep.protocols:
            parts = [p for c in variant.finished if len((p := part_of(c, protocol)).samples)]
            if not parts:
                continue
            images = images_of(parts)
            codes = [images.get_indexer(p.image_ids) for p in parts]
            groups = [*WHOLE_SPLIT, *split] if protocol == sweep.headline else WHOLE_SPLIT
            for group in groups:
                each = zip(parts, codes, strict=True)
                table = np.stack([p.sums(len(images), at, p.within(group)) for p, at in each], 1)
                table = table[:, :, None]
                seen = np.asarray((table[..., COLUMNS.index("examples")] > 0).any((1, 2)))
                estimate = inference.bootstrap(table, seed=seed, rows=seen if group[0] else None)
                by_seed = ratios(table.sum(0)[:, 0])
                spread = _spread(by_seed)
                first = parts[0]
                own = first.samples[first.within(group)]
                size = (len(parts), len(own), int(own["image_id"].nunique()), majority(own))
                for m, measure in enumerate(MEASURES):
                    ends = (estimate.value[m], estimate.low[m], estimate.high[m], spread[m])
                    key = (protocol, *group, variant.label, measure.name)
                    rows.append((*key, *map(float, ends), *size))
    return _measured(pd.DataFrame(rows, columns=list(SCORE_COLUMNS)), "value")


def contrasts(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Every declared contrast on the examples and seeds that all of its variants have.

    One without a result is a row all the same; `hole` says what is lacking, there and where only
    a part of the seeds is done. Holm's correction runs over all declared contrasts, for each
    protocol and measure.
    """
    rows: list[dict[str, object]] = []
    margin = np.array([margins(sweep.design)[measure.name] for measure in MEASURES])
    going_by, when = looks.by_contrast(sweep), registration.of(sweep)
    for protocol in sweep.protocols or ("",):
        every = declared(sweep)
        n = len(every)
        block = [(c, compare(c, protocol, margin, seed, n)) for c in every]
        stands = {c.name: going_by(c) for c in every}
        block = [
            (c, h and _over_looks(stands[c.name], c, h, protocol, margin, n)) for c, h in block
        ]
        known = [comparison for _, comparison in block if comparison]
        pending = len(block) - len(known)
        lost = {c.name: collapsed_seeds(c, protocol) for c in every}
        reached = {c.name: training.reach(c, lost[c.name]) for c in every}
        for m, measure in enumerate(MEASURES):
            corrected = {
                s: iter(inference.holm([h.p[s][m] for h in known], pending)) for s in TESTS
            }
            for contrast, comparison in block:
                stand = stands[contrast.name]
                row: dict[str, object] = {
                    "protocol": protocol,
                    "contrast": contrast.name,
                    "label": contrast.of.label if contrast.plain else "",
                    "baseline": contrast.against.label if contrast.plain else "",
                    "metric": measure.name,
                    "hole": _hole(contrast, comparison, lost[contrast.name]),
                }
                if comparison:
                    adjusted = {test: float(next(corrected[test])) for test in TESTS}
                    stage = stand.stage(contrast.name, measure.name, protocol) if stand else None
                    row |= _row(
                        comparison, m, adjusted, len(block), margin[m], *_hours(contrast), stage
                    )
                    if measure.name in OF_KEY and not contrast.asks_key:
                        row["sentence"] = f"{row['verdict']}: not asked, answers hold no KEY"
                else:
                    row |= _no_result(str(row["hole"]))
                row["look"] = stand.note(contrast.name, measure.name, protocol) if stand else ""
                row["declared"] = when(contrast, measure.name)
                rows.append(training.qualified(row, reached[contrast.name]))
    return _measured(pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS)), "difference")


def _over_looks(
    stand: looks.Standing | None,
    contrast: Contrast,
    comparison: Comparison,
    protocol: str,
    margin: np.ndarray,
    contrasts: int,
) -> Comparison:
    """A comparison whose verdict follows the boundary: its p values are those of all looks."""
    if stand is None:
        return comparison
    p, equivalence = stand.over_looks(contrast, protocol, margin, contrasts)
    return replace(comparison, p={**comparison.p, "both": p, "equivalence": equivalence})


def _no_result(hole: str) -> dict[str, object]:
    counts = dict.fromkeys(("seeds", "examples", "images"), 0)
    word = verdict.NO_RESULT
    return {**counts, "verdict": word, "sentence": f"{word}: {hole}", "caveat": ""}


def _measured(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Without the measures of no-target data, of answers' nouns and the like, where none are."""
    for family in SOME_DATA:
        absent = rows["metric"].isin(family)
        if not rows.loc[absent, column].notna().any():
            rows = rows[~absent].reset_index(drop=True)
    return rows


def _row(
    comparison: Comparison,
    m: int,
    holm: dict[str, float],
    contrasts: int,
    margin: float,
    hours: float,
    device: str,
    stage: str | None = None,
) -> dict[str, object]:
    """`stage`: of a sweep whose seeds come by looks, "" where that says nothing; else None."""
    seeds = len(comparison.by_seed)
    main = "both" if seeds > 1 else "images"
    ends = {
        f"{end}_{source}": float(getattr(each, end)[m])
        for source, each in comparison.intervals.items()
        for end in ("low", "high")
    }
    low, high = ends[f"low_{main}"], ends[f"high_{main}"]
    evidence = verdict.Evidence(
        measure=MEASURES[m],
        difference=float(comparison.value[m]),
        low=low,
        high=high,
        p=holm[main if stage is None else "both"],
        n_seeds=seeds,
        n_images=comparison.sources.n_images,
        images=float(comparison.sources.images[m]),
        seeds=float(comparison.sources.seeds[m]),
        interaction=float(comparison.sources.interaction[m]),
        hours=hours,
        device=device,
        contrasts=contrasts,
        equivalence=holm["equivalence"],
        margin=float(margin),
        stage=stage or "",
    )
    of_mcnemar = comparison.mcnemar if MEASURES[m].name == MCNEMAR else None
    won, lost, p = of_mcnemar or (None, None, None)
    return {
        "difference": float(comparison.value[m]),
        "low": low,
        "high": high,
        **ends,
        **{f"p_{test}": float(each[m]) for test, each in comparison.p.items()},
        **{f"holm_{test}": p for test, p in holm.items()},
        "margin": float(margin),
        "sd": float(_spread(comparison.by_seed)[m]),
        "effect_images": float(comparison.effects[0][m]),
        "effect_seeds": float(comparison.effects[1][m]),
        "won": won,
        "lost": lost,
        "mcnemar": p,
        "seeds": seeds,
        "examples": comparison.examples,
        "images": comparison.sources.n_images,
        **_beside(comparison, m),
        "verdict": verdict.word(evidence),
        "sentence": verdict.sentence(evidence),
        "caveat": verdict.caveat(evidence),
    }


def _beside(comparison: Comparison, m: int) -> dict[str, object]:
    """What stands beside a verdict: all trainings, if some collapsed, and the median of seeds."""
    everyone, strict, median = comparison.everyone, comparison.corrected, comparison.median
    low, high = float(everyone.low[m]), float(everyone.high[m])
    word = verdict.of_everyone(MEASURES[m], float(strict.low[m]), float(strict.high[m]))
    numbers = {
        "difference_all": float(everyone.value[m]),
        "low_all": low,
        "high_all": high,
        "median": float(median.value[m]),
        "low_median": float(median.low[m]),
        "high_median": float(median.high[m]),
        "confidence_median": median.confidence,
    }
    collapsed = sentence(comparison.sides)
    second = verdict.second_reading(
        float(comparison.value[m]), numbers["difference_all"], low, high, word, numbers["median"]
    )
    return {
        **numbers,
        "collapsed": collapsed,
        "verdict_all": word if collapsed else "",
        "second": f"{collapsed}; {second}" if collapsed else "",
    }


def _hole(contrast: Contrast, comparison: Comparison | None, lost: Mapping[str, set[int]]) -> str:
    """What the result lacks of the design; of one without a result, why."""
    hole = contrast.hole(comparison.seeds if comparison else 0)
    if comparison is None and not contrast.open and any(lost.values()):
        which = ", ".join(
            f"{k} in seed {', '.join(map(str, sorted(s)))}" for k, s in lost.items() if s
        )
        return f"no seed in which all trainings succeeded, collapsed: {which}"
    return hole


def _hours(contrast: Contrast) -> tuple[float, str]:
    """Hours of one more seed of every variant of ours, from finished cells, and of what."""
    ours = [v for v in contrast.variants if not v.imported]
    cells = [cell for v in ours for cell in v.finished]
    return sum(v.hours for v in ours), cost_unit(cell.info for cell in cells)


def _spread(by_seed: np.ndarray) -> np.ndarray:
    few = np.full(by_seed.shape[1:], np.nan)
    return by_seed.std(0, ddof=1) if len(by_seed) > 1 else few
