"""Main effects and interactions of a design with several factors, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyseg.config import PROJECT
from keyseg.report.figures import drawing
from keyseg.report.page import render
from keyseg.report.stats import inference, scores
from keyseg.report.stats.contrasts import Contrast, contrasts
from keyseg.report.store import Sweep, VariantResult, load
from keyseg.report.tables.contrasts import answers

KEYS = ("model.tokens.order", "fusion")
CORNERS = [("seg_first", "seg_only"), ("seg_first", "full"), ("key_first", "seg_only")]
CORNERS += [("key_first", "full")]
BASELINE = dict(zip(KEYS, CORNERS[0], strict=True))


def made(
    corners: Sequence[dict[str, Any]], entries: list[Any], baseline: dict[str, Any] | None = None
) -> list[Contrast]:
    variants = tuple(
        VariantResult(" ".join(map(str, factors.values())), i, factors, ())
        for i, factors in enumerate(corners)
    )
    design = {"contrasts": entries, "baseline": BASELINE if baseline is None else baseline}
    return contrasts(Sweep(PROJECT, design, variants))


def labels(contrast: Contrast) -> list[tuple[str, str]]:
    return [(of.label, against.label) for of, against in contrast.pairs]


def test_a_main_effect_is_the_mean_over_the_other_factors() -> None:
    corners = [dict(zip(KEYS, corner, strict=True)) for corner in CORNERS]
    (found,) = made(corners, [{"main": "fusion", "name": "in the fusion"}])
    assert found.name == "in the fusion: main effect of fusion, full − seg_only"
    assert labels(found) == [
        ("seg_first full", "seg_first seg_only"),
        ("key_first full", "key_first seg_only"),
    ]
    assert found.weights == {
        "seg_first full": 0.5,
        "seg_first seg_only": -0.5,
        "key_first full": 0.5,
        "key_first seg_only": -0.5,
    }
    assert not found.plain


def test_an_interaction_is_a_difference_of_differences() -> None:
    corners = [dict(zip(KEYS, corner, strict=True)) for corner in CORNERS]
    (found,) = made(corners, [{"interaction": list(KEYS)}])
    assert found.name == "order × fusion, key_first − seg_first at full less at seg_only"
    assert found.weights == {
        "key_first full": 1,
        "seg_first full": -1,
        "seg_first seg_only": 1,
        "key_first seg_only": -1,
    }


def test_a_third_factor_is_averaged_over() -> None:
    cube = [{"a": a, "b": b, "c": c} for a in (0, 1) for b in (0, 1) for c in (0, 1, 2)]
    base = {"a": 0, "b": 0, "c": 0}
    (found,) = made(cube, [{"interaction": ["a", "b"]}], base)
    assert len(found.pairs) == 6
    wanted = {f"{a} {b} {c}": (1 if a == b else -1) / 3 for a, b, c in np.ndindex(2, 2, 3)}
    assert found.weights == pytest.approx(wanted)
    levels = made(cube, [{"main": "c"}], base)
    assert [c.name for c in levels] == ["main effect of c, 1 − 0", "main effect of c, 2 − 0"]


def test_a_dropped_factor_takes_part_with_its_one_variant() -> None:
    """Off, the temperature is no factor: on, both are held against the one that is off."""
    corners = [{"w": 0.0}, {"w": 0.5, "t": 0.07}, {"w": 0.5, "t": 1.0}]
    on, sharper = made(corners, [{"main": "w"}, {"main": "t"}], {"w": 0.0, "t": 1.0})
    assert labels(on) == [("0.5 0.07", "0.0"), ("0.5 1.0", "0.0")]
    assert on.weights["0.0"] == -1
    assert labels(sharper) == [("0.5 0.07", "0.5 1.0")]


def test_an_interaction_leaves_out_a_baseline_that_lacks_the_other_factor() -> None:
    """Without KEY there is no order: what it is worth with full is held against seg_only."""
    corners = [{"fusion": "no_key"}, *(dict(zip(KEYS, c, strict=True)) for c in CORNERS)]
    entries = [{"interaction": list(KEYS)}, {"main": "fusion"}]
    found = made(corners, entries, {"fusion": "no_key", KEYS[0]: "seg_first"})
    assert labels(found[0]) == [
        ("key_first full", "seg_first full"),
        ("seg_first seg_only", "key_first seg_only"),
    ]
    assert {against for c in found[1:] for _, against in labels(c)} == {"no_key"}


@pytest.fixture
def crossed(store: Callable[..., Path]) -> Path:
    """Two factors, three seeds, and a contrast of every kind."""
    folder = store([" · ".join(c) for c in CORNERS], seeds=(0, 1, 2), images=12, steps=8)
    file = folder / "sweep.json"
    design = json.loads(file.read_text())
    for i, cell in enumerate(design["cells"]):
        cell["factors"] = dict(zip(KEYS, CORNERS[i // 3], strict=True))
    design |= {
        "baseline": BASELINE,
        "factors": {key: list(dict.fromkeys(c[i] for c in CORNERS)) for i, key in enumerate(KEYS)},
        "contrasts": [
            {"of": {"fusion": "full"}, "against": {"fusion": "seg_only"}},
            {"main": "fusion"},
            {"interaction": list(KEYS)},
        ],
    }
    file.write_text(json.dumps(design))
    return folder


def test_values_and_spreads_are_those_of_the_samples(crossed: Path) -> None:
    sweep = load(crossed)
    held = scores.contrasts(sweep, 0).query("protocol == 'generated' and metric == 'giou'")
    values = np.array(
        [
            [
                c.samples.loc[c.samples["protocol"] == "generated", "iou"].mean()
                for c in variant.finished
            ]
            for variant in sweep.variants
        ]
    )  # (corner, seed)
    effect = (values[1] - values[0] + values[3] - values[2]) / 2
    interaction = (values[3] - values[1]) - (values[2] - values[0])
    for name, by_seed in (("main effect", effect), ("order × fusion", interaction)):
        row = held[held["contrast"].str.startswith(name)].iloc[0]
        assert row["difference"] == pytest.approx(by_seed.mean())
        assert row["sd"] == pytest.approx(by_seed.std(ddof=1))
        assert row["seeds"] == 3
        assert row["low_images"] < by_seed.mean() < row["high_images"]
        assert (row["label"], row["baseline"]) == ("", "")
    assert len(held) == 4
    said = answers(sweep, scores.contrasts(sweep, 0))
    assert [a.index for a in said[:4]] == [1, 3, None, None]


def test_the_images_part_of_an_interaction_is_that_of_its_sum() -> None:
    """An interaction of gIoU is one sum over images of the four variants' IoU, signs in."""
    rng = np.random.default_rng(0)
    from keyseg.metrics import BY_NAME, COLUMNS

    table = np.zeros((50, 2, 4, len(COLUMNS)))
    table[..., COLUMNS.index("examples")] = 1
    table[..., COLUMNS.index("iou")] = rng.beta(2, 2, (50, 2, 4))
    pairs = table[:, :, np.array([[1, 3], [2, 0]])]  # (against, of): 3 - 1, and 0 - 2
    giou = list(BY_NAME).index("giou")
    per_image = (table[..., COLUMNS.index("iou")] @ np.array([1, -1, -1, 1])).mean(1)
    found = inference.sources(pairs, factor=2.0)
    assert found.images[giou] == pytest.approx(per_image.var(ddof=1) / 50)
    value = inference.differences(pairs, 2.0)
    assert value[:, giou].mean() == pytest.approx(per_image.mean())


def test_a_missing_corner_is_told(crossed: Path) -> None:
    """Without results of one corner neither its effect nor the interaction has any."""
    design = json.loads((crossed / "sweep.json").read_text())
    for cell in design["cells"][-3:]:
        run = crossed / cell["signature"] / "run.json"
        run.write_text(json.dumps({**json.loads(run.read_text()), "status": "failed"}))
    held = scores.contrasts(load(crossed), 0).drop_duplicates("contrast")
    words = dict(zip(held["contrast"], held["verdict"], strict=True))
    lost = [name for name, word in words.items() if word == "no result"]
    assert len(lost) == 3
    assert len(words) == 4
    assert (held.loc[held["verdict"] == "no result", "hole"] == "3 cells failed").all()


@pytest.mark.slow
def test_the_whole_report_is_written(crossed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyseg.report import build

    monkeypatch.setattr(drawing, "FIGURES", {"forest": drawing.FIGURES["forest"]})
    files = build(crossed, crossed.parent / "report")
    page = files.html.read_text()
    assert "main effect of fusion, full − seg_only" in page
    assert "order × fusion, key_first − seg_first at full less at seg_only" in page
    assert render.FIGURES["forest"].title in page
