"""The figures of every report, and the drawing of all that are registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from keyseg.report.data import ReportData
from keyseg.report.figures import (
    budget,
    contrasts,
    interventions,
    pathway,
    plotted,
    test_scores,
)
from keyseg.report.figures.curves import learning_curves
from keyseg.report.figures.registry import FIGURES, ReportFigure, register
from keyseg.report.figures.style import FIGURE_KINDS, figure_style, save
from keyseg.report.stats.verdict import NO_RESULT


def draw_all(
    data: ReportData, folder: Path, kinds: Sequence[str] = FIGURE_KINDS
) -> dict[str, tuple[Path, ...]]:
    """Write every figure; {name: its files, in the order of `FIGURE_KINDS`}.

    A figure without data is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with figure_style():
        drawn = {n: make() for n, make in makers(data).items()}
        return {
            n: save(made, folder, n, kinds, partial(points, data) if points else None)
            for n, made in drawn.items()
            if made is not None
            for points in (FIGURES[n].data,)
        }


def makers(data: ReportData) -> dict[str, Callable[[], Any]]:
    """What draws each figure that this sweep has data for; to be called in `figure_style`."""
    return {n: partial(f.draw, data) for n, f in FIGURES.items() if f.wanted(data)}


def _known(data: ReportData) -> bool:
    return bool((data.contrasts["verdict"] != NO_RESULT).any())


def _finished(data: ReportData) -> bool:
    return bool(data.sweep.finished)


register(
    ReportFigure(
        "forest",
        "Differences",
        "Every contrast with its 95 % intervals, not corrected: thick, over seeds and images "
        "(over images alone where there is one seed); thin with caps, over test images with these "
        "weights; dotted with caps, over seeds on these images. Filled: Holm's p is at most 0.05. "
        "Few seeds alone leave more doubt than both sources together, where much of the whole is "
        "the well-known part of the images. A contrast of which one variant has no finished cell "
        "keeps its line. Headline protocol.",
        "verdicts",
        lambda d: contrasts.forest(d.sweep, d.contrasts),
        lambda d: len(contrasts.speaking(d.sweep, d.contrasts)) > 0,
        plotted.forest,
    )
)
register(
    ReportFigure(
        "path",
        "From the baseline to the whole",
        "One change a step: each variant with its 95 % interval over test examples, and above "
        "each step by how many points it changes the score, with a 95 % interval over seeds and "
        "images (over images alone where there is one seed) and the verdict. Headline protocol.",
        "verdicts",
        lambda d: pathway.figure(d.sweep, d.scores, d.contrasts),
        lambda d: bool(pathway.steps(d.sweep)),
        plotted.path,
    )
)
register(
    ReportFigure(
        "paired",
        "Example by example",
        "Left: IoU of both variants of a contrast on every test example (mean over common seeds); "
        "above the diagonal the first one is better. Right: share of examples whose difference is "
        "at most x. The first five contrasts; headline protocol.",
        "results",
        lambda d: contrasts.paired(d.sweep),
        lambda d: _known(d) and contrasts.pictured(d.sweep),
        plotted.paired,
    )
)
register(
    ReportFigure(
        "interaction",
        "Interaction",
        "gIoU in percent for both factors of the design (mean over seeds and over what else "
        "varies); headline protocol. An empty field has no result.",
        "results",
        lambda d: contrasts.interaction(d.sweep, d.scores),
        lambda d: bool(d.sweep.finished and contrasts.two_factors(d.sweep)),
        plotted.interaction,
    )
)
register(
    ReportFigure(
        "slices",
        "gIoU by slice",
        "gIoU of every variant by slice, under the headline protocol. Bars: 95 % interval over "
        "test examples (bootstrap over images); n: examples.",
        "slices",
        lambda d: test_scores.by_slice(d.sweep, d.scores, d.slices),
        lambda d: bool(d.slices),
        plotted.by_slice,
    )
)
register(
    ReportFigure(
        "learning_curves",
        "Learning curves",
        "Against the optimiser step: val scores (teacher-forced) and train losses as logged, "
        "before weighting; curves with many points are averaged in bins of steps. Bands, where "
        "there are several seeds: lowest to highest seed. Losses that fall by more than a factor "
        "of 20 stand on a logarithmic axis.",
        "learning",
        lambda d: learning_curves(d.sweep),
        lambda d: any(len(c.metrics) for c in d.sweep.cells),
        plotted.learning_curves,
    )
)
register(
    ReportFigure(
        "budget",
        "Score against budget",
        "Each variant's score with its 95 % interval over test examples against the steps that "
        "were made and against GPU-hours (CPU-hours where no run had a GPU) of training at the "
        "median pace, without evaluations; means over seeds, headline protocol, the sweep's first "
        "metric. Filled: every seed is at a plateau. Rings: the two lines cross.",
        "learning",
        lambda d: budget.figure(d.sweep, d.scores),
        lambda d: budget.varies(d.sweep, d.scores),
        plotted.budget,
    )
)
register(
    ReportFigure(
        "precision",
        "Precision curves",
        "Share of test examples with an IoU above X, for every X; markers at 0.5, 0.6, … 0.9. "
        "Bands, where there are several seeds: lowest to highest seed.",
        "learning",
        lambda d: test_scores.precision(d.sweep),
        _finished,
        plotted.precision,
    )
)
register(
    ReportFigure(
        "keyword",
        "Keyword against mask",
        "Left: accuracy of KEY's top word among examples of like IoU (no point for fewer than "
        "five); a line that rises says that keyword and mask go together. Right: how often "
        "keyword and mask are right or wrong together. The two middle parts are the discrepancy "
        "rates. Headline protocol, seeds pooled.",
        "learning",
        lambda d: test_scores.keyword(d.sweep),
        lambda d: any(c.key_asked for c in d.sweep.finished),
        plotted.keyword,
    )
)
register(
    ReportFigure(
        "interventions",
        "Interventions",
        "What masks and keywords change by where KEY's or SEG's state is replaced in finished "
        "models: the second table of interventions says which differ from each other. Bars: 95 % "
        "interval over seeds and test images (over images alone where there is one seed), not "
        "corrected; filled: Holm's p is at most 0.05. The keyword of a replaced KEY is asked "
        "against the expression's own. Headline protocol.",
        "results",
        interventions.figure,
        lambda d: len(interventions.shown(d)) > 0,
        plotted.interventions,
    )
)
register(
    ReportFigure(
        "cost",
        "Cost against quality",
        "gIoU with its 95 % interval over test images against GPU-hours (CPU-hours where no run "
        "had a GPU) of a whole run and against trained parameters; means over seeds, headline "
        "protocol.",
        "learning",
        lambda d: contrasts.cost(d.sweep, d.scores),
        _finished,
        plotted.cost,
    )
)
