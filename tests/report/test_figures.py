"""Every figure for few and many variants, one and many seeds, with holes and NaN: none overlaps.

The sweeps are made in memory, and figures are drawn small: this is about what is laid out, not
about files.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from keyseg.report.data import ReportData
from keyseg.report.figures import contrasts, drawing, interventions, plotted
from keyseg.report.figures.style import figure_style
from keyseg.report.stats import inference, scores
from keyseg.report.stats.verdict import NO_RESULT
from keyseg.report.store import CellResult, Sweep, VariantResult, variants_of

IMAGES, PER_IMAGE = 10, 3
SLICES = {
    "style": ("short", "short+location", "long", "reasoning"),
    "size": ("small", "medium", "large"),
    "length": ("short", "medium", "long"),
    "distractors": ("0", "1", "2", "3+"),
}
ALWAYS = {"precision", "keyword", "cost", "slices", "learning_curves"}


def cell(factors: dict[str, str], seed: int, status: str, rng: np.random.Generator) -> CellResult:
    n = IMAGES * PER_IMAGE
    iou = rng.beta(2, 2, n)
    iou[0] = np.nan if status == "nan" else iou[0]
    union = rng.integers(100, 900, n)
    rows: dict[str, Any] = {
        "id": [f"e{i}" for i in range(n)],
        "image_id": [f"i{i // PER_IMAGE}" for i in range(n)],
        "image": "none.png",
        "query": "the thing",
        "keyword": "thing",
        "intersection": np.nan_to_num(iou * union).astype(int),
        "union": union,
        "iou": iou,
        "keyword_rank": rng.integers(0, 2, n),
        "answer": "it",
        "has_seg": True,
        "has_key": True,
        "height": 8,
        "width": 8,
    }
    rows |= {f"slice_{name}": [v[i % len(v)] for i in range(n)] for name, v in SLICES.items()}
    frames = [pd.DataFrame(rows).assign(protocol=p) for p in ("teacher_forced", "generated")]
    steps = np.arange(0, 50, 10)
    names = ("val/giou", "val/ciou", "val/keyword_accuracy", "train/loss", "train/keyword")
    metrics = pd.concat(
        pd.DataFrame({"name": n, "value": rng.random(5) ** 9, "step": steps, "time": 0.0})
        for n in names
    )
    if status == "nan":
        metrics.loc[metrics["step"] > 20, "value"] = np.nan
    done = status in ("done", "nan")
    label = " · ".join(factors.values())
    return CellResult(
        f"{label}{seed}",
        label,
        factors,
        seed,
        Path(f"outputs/x/{label}{seed}"),
        status="done" if done else status,
        info={"minutes": 3.0 + rng.random(), "trainable_parameters": 600_000},
        metrics=metrics if status != "missing" else metrics.head(0),
        samples=pd.concat(frames, ignore_index=True) if done else pd.DataFrame(),
    )


def sweep(variants: int, seeds: int, holes: dict[tuple[int, int], str]) -> Sweep:
    """Two factors with long names; a path over the first variants."""
    rng = np.random.default_rng(0)
    fusions = [f"cross_residual_{k}" for k in range(-(-variants // 2))]
    weights = ["weight=0.5 and more", "weight=$0$"][:variants]
    grid = [{"fusion": f, "loss.keyword.weight": w} for f in fusions for w in weights][:variants]
    cells = [
        cell(factors, seed, holes.get((k, seed), "done"), rng)
        for k, factors in enumerate(grid)
        for seed in range(seeds)
    ]
    made: tuple[VariantResult, ...] = tuple(variants_of(cells))
    design = {
        "name": "x",
        "baseline": grid[0],
        "factors": {"fusion": fusions, "loss.keyword.weight": weights},
        "metrics": ["giou", "ciou"],
        "path": [{"loss.keyword.weight": w} for w in weights[1:]]
        + [{"fusion": f} for f in fusions[1:4]],
    }
    return Sweep(Path("outputs/x"), design, made)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bootstrap", "swap_images"):
        whole = getattr(inference, name)
        monkeypatch.setattr(inference, name, lambda *a, _w=whole, **k: _w(*a, **k, resamples=49))


def drawn_texts(figure: Any) -> list[tuple[str, Any]]:
    """Every text that is seen, with its place in pixels; ticks beyond an axis have one unseen."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                off = not (low - 1e-9 <= tick.get_loc() <= high + 1e-9) or not axis.get_visible()
                hidden |= {id(tick.label1), id(tick.label2)} if off else set()
                hidden |= set() if tick.label1.get_visible() else {id(tick.label1)}
                hidden |= set() if tick.label2.get_visible() else {id(tick.label2)}
            if not ax.axison:
                hidden |= {id(t) for t in axis.findobj(Text)}
    found = [
        t
        for t in figure.findobj(Text)
        if t.get_visible() and t.get_text().strip() and id(t) not in hidden
    ]
    return [(t.get_text(), t.get_window_extent()) for t in found]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other by more than a pixel or two."""
    found = []
    for (a, one), (b, two) in combinations(drawn_texts(figure), 2):
        width = min(one.x1, two.x1) - max(one.x0, two.x0)
        height = min(one.y1, two.y1) - max(one.y0, two.y0)
        if width > 1.5 and height > 1.5:
            found.append((a, b))
    return found


CASES = {
    "one cell": (1, 1, {}),
    "two variants, ten seeds": (2, 10, {}),
    "five variants, one seed": (5, 1, {}),
    "twelve variants, four seeds, holes and NaN": (
        12,
        4,
        {
            (1, 3): "failed",
            (4, 0): "missing",
            (6, 2): "nan",
            **{(9, s): "queued" for s in range(4)},
        },
    ),
    "nothing finished": (2, 1, {(0, 0): "failed", (1, 0): "running"}),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_figure(case: str) -> None:
    variants, seeds, holes = CASES[case]
    made = sweep(variants, seeds, holes)
    measured, held = scores.scores(made, 0), scores.contrasts(made, 0)
    with figure_style():
        makers = drawing.makers(ReportData(made, measured, held, scores.slices(made)))
        for name, make in makers.items():
            figure = make()
            figure.set_dpi(60)
            picture = BytesIO()
            figure.savefig(picture, dpi=60, bbox_inches="tight")
            assert picture.tell() > 2000, name
            assert overlapping(figure) == [], name
            canvas = figure.bbox
            for text, box in drawn_texts(figure):  # nothing hangs over the edge by much
                assert box.x0 > canvas.x0 - 60, (name, text)
                assert box.x1 < canvas.x1 + 60, (name, text)
    wanted = {"learning_curves"} if case == "nothing finished" else ALWAYS
    if made.finished and variants > 1:
        wanted |= {"forest", "path", "paired"}
        wanted |= {"interaction"} if variants > 2 else set()
    assert set(makers) == wanted


def replaced(made: Sweep, kinds: Sequence[str]) -> pd.DataFrame:
    """Interventions as `stats.interventions` gives them, on both tokens of every variant."""
    rows = [
        {
            "protocol": made.headline,
            "label": variant.label,
            "token": token,
            "kind": kind,
            "against": against,
            "metric": metric,
            "difference": -0.02 * n,
            "low": -0.02 * n - 0.01,
            "high": -0.02 * n + 0.01,
            "holm": {3: 0.03, 4: 0.04}.get(n, 0.06),
            "examples": 100,
        }
        for variant in made.variants
        for token in ("key", "seg")
        for n, kind in enumerate(kinds, 3)
        for against in ("", "mean")
        for metric in ("giou", "ciou", "keyword_accuracy")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("variants", [1, 3])
def test_interventions(variants: int) -> None:
    made = sweep(variants, 2, {})
    kinds = ["swap", "namesake_elsewhere", "renamed"]
    data = ReportData(made, pd.DataFrame(), pd.DataFrame(), {}, replaced=replaced(made, kinds))
    rows = plotted.interventions(data)
    assert set(zip(rows["token"], rows["metric"], strict=True)) == {
        ("key", "giou"),
        ("key", "keyword_accuracy"),
        ("seg", "giou"),
    }
    assert len(rows) == 3 * len(kinds) * variants
    assert sorted(set(rows["difference"].round(6))) == [-10, -8, -6]
    with figure_style():
        figure = interventions.figure(data)
        assert [ax.get_title("left") for ax in figure.axes] == [
            "KEY replaced: gIoU",
            "KEY replaced: Keyword acc.",
            "SEG replaced: gIoU",
        ]
        labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        own = made.variants[0].label
        assert labels[1] == (
            "namesake elsewhere" if variants == 1 else f"{own}: namesake elsewhere"
        )
        markers = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
        filled = [line.get_markerfacecolor() != "white" for line in markers]
        assert filled == [True, True, False] * variants  # Holm's p is 0.03, 0.04 and 0.06
        assert overlapping(figure) == []
    nothing = ReportData(made, pd.DataFrame(), pd.DataFrame(), {})
    assert interventions.shown(nothing).empty


def test_a_variant_looks_the_same_everywhere() -> None:
    """Colour and marker of a variant whose neighbour has no results are not the neighbour's."""
    made = sweep(3, 1, {(0, 0): "failed"})
    measured, held = scores.scores(made, 0), scores.contrasts(made, 0)
    with figure_style():
        makers = drawing.makers(ReportData(made, measured, held, scores.slices(made)))
        for name in ("precision", "cost", "slices"):
            legend = makers[name]().legends[0]
            entries = dict(
                zip(
                    (t.get_text() for t in legend.get_texts()),
                    ((h.get_color(), h.get_marker()) for h in legend.legend_handles),
                    strict=True,
                )
            )
            labels = [v.label.replace("$", r"\$").replace(" · ", "\xa0· ") for v in made.variants]
            assert entries == {labels[1]: ("#D55E00", "s"), labels[2]: ("#009E73", "^")}, name


@pytest.mark.parametrize(
    ("verdicts", "drawn"),
    [
        ({"giou": "better", "keyword_accuracy": NO_RESULT}, ["giou"]),
        ({"giou": "better", "keyword_accuracy": "no difference"}, ["giou", "keyword_accuracy"]),
        ({"giou": NO_RESULT, "keyword_accuracy": NO_RESULT}, ["giou", "keyword_accuracy"]),
    ],
)
def test_a_metric_on_which_nothing_speaks_has_no_panel(verdicts, drawn):
    sweep = SimpleNamespace(headline="teacher_forced", metrics=["giou", "keyword_accuracy"])
    rows = pd.DataFrame(
        {"protocol": "teacher_forced", "metric": m, "verdict": v, "difference": 0.1}
        for m, v in verdicts.items()
    )
    assert contrasts.panels(sweep, rows) == drawn
