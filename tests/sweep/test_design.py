from itertools import product

import pytest

from keyseg.config import ConfigError
from keyseg.runs.sweep_directory import label_of
from keyseg.sweep.design import read_design


def grid(*rows: str) -> list[list[str]]:
    return [row.split() for row in rows]


def test_one_factor():
    design = read_design(grid("fusion=cross", "fusion=self", "fusion=full"), fusion="full")
    assert design.name == "fusion"
    assert design.factors == {"fusion": ["cross", "self", "full"]}
    assert design.baseline == {"fusion": "cross"}
    assert [p.label for p in design.points] == ["cross", "self", "full"]
    assert [p.seed for p in design.points] == [None, None, None]
    assert design.metrics == ["giou", "ciou"]


def test_seg_only_is_the_baseline_wherever_it_stands():
    design = read_design(grid("fusion=full", "fusion=seg_only"))
    assert design.baseline == {"fusion": "seg_only"}


def test_seeds_are_repetitions_not_a_factor():
    design = read_design(grid("fusion=cross seed=0", "fusion=cross seed=1", "fusion=full seed=0"))
    assert design.name == "fusion"
    assert design.factors == {"fusion": ["cross", "full"]}
    assert [(p.label, p.seed) for p in design.points] == [("cross", 0), ("cross", 1), ("full", 0)]


def test_seeds_alone_name_the_sweep_and_the_variant_is_the_label():
    design = read_design(grid("seed=0", "seed=1"), fusion="self")
    assert design.name == "seed"
    assert design.factors == {"fusion": ["self"]}
    assert [p.label for p in design.points] == ["self", "self"]


def test_two_factors_with_values_of_their_types():
    design = read_design(
        grid(
            "fusion=cross loss.keyword.weight=0 optim.steps=9",
            "fusion=cross loss.keyword.weight=0.5 optim.steps=9",
            "fusion=full loss.keyword.weight=0 optim.steps=9",
            "fusion=full loss.keyword.weight=0.5 optim.steps=9",
        )
    )
    assert design.name == "fusion-weight"
    assert design.factors == {"fusion": ["cross", "full"], "loss.keyword.weight": [0, 0.5]}
    assert design.points[1].factors == {"fusion": "cross", "loss.keyword.weight": 0.5}
    assert design.points[1].label == "cross · weight=0.5"


def test_nothing_varies():
    design = read_design(grid("optim.steps=9"), fusion="full")
    assert design.name == "single"
    assert [p.label for p in design.points] == ["full"]


@pytest.mark.parametrize(
    ("value", "label"),
    [(None, "init=null"), (True, "init=true"), ([1, 2], "init=[1, 2]"), ("a b", "init=a b")],
)
def test_labels_of_odd_values(value, label):
    assert label_of({"model.tokens.init": value}) == label


def test_values_in_quotes_and_lists_are_plain_values():
    design = read_design([["prompt.end='a, b'"], ["prompt.end=x"], ["prompt.end=[a,1]"]])
    assert design.factors == {"prompt.end": ["a, b", "x", ["a", 1]]}


def test_added_keys_and_the_sweep_file_itself_are_no_factors():
    design = read_design(grid("+sweeps=t +fusion.x=1", "+sweeps=t +fusion.x=2"))
    assert design.factors == {"fusion.x": [1, 2]}


def test_the_ablation_block_says_what_overrides_leave_open():
    design = read_design(
        grid("fusion=cross run=0", "fusion=full run=0", "fusion=cross run=1", "fusion=full run=1"),
        {
            "name": "table4",
            "question": "Is it the residual?",
            "baseline": {"fusion": "full"},
            "replicate": "run",
            "metrics": ["giou"],
            "contrasts": [{"of": {"fusion": "full"}, "against": {"fusion": "cross"}}],
            "published": "table4.csv",
        },
    )
    assert design.name == "table4"
    assert design.question == "Is it the residual?"
    assert design.baseline == {"fusion": "full"}
    assert design.factors == {"fusion": ["cross", "full"]}
    assert [p.seed for p in design.points] == [0, 0, 1, 1]
    assert design.metrics == ["giou"]
    assert design.contrasts == [{"of": {"fusion": "full"}, "against": {"fusion": "cross"}}]
    assert design.published == "table4.csv"


def test_a_margin_is_declared_for_each_metric_or_for_all():
    cells = grid("fusion=cross", "fusion=full")
    assert read_design(cells, {"margin": {"giou": 1}}).margin == {"giou": 1.0}
    assert read_design(cells, {"margin": 0.5}).margin == {"giou": 0.5, "ciou": 0.5}
    assert read_design(cells).margin == {}


def test_a_name_on_the_command_line_wins():
    assert read_design(grid("seed=0"), {"name": "block"}, name="mine").name == "mine"


KEYWORD = {"t": {"w": 0.5}, "target": {"w": [0.5]}}


def test_keys_that_cannot_matter_are_dropped_and_their_repeats_left_out():
    cells = [
        [f"w={w}", f"t={t}", f"target={target}", f"seed={seed}"]
        for w, t, target, seed in product((0.0, 0.5), (0.07, 1.0), ("first", "all"), (0, 1, 2))
    ]
    design = read_design(cells, {"only_where": KEYWORD, "baseline": {"w": 0.0, "t": 1.0}})
    assert (len(cells), len(design.points), design.left_out) == (24, 15, 9)
    off = [p for p in design.points if p.factors["w"] == 0]
    assert [(p.label, p.factors, p.seed) for p in off] == [
        ("w=0.0", {"w": 0.0}, s) for s in (0, 1, 2)
    ]
    assert [p.overrides for p in off] == [["w=0.0", f"seed={s}"] for s in (0, 1, 2)]
    assert design.points[3].label == "w=0.5 · t=0.07 · target=first"
    assert design.factors == {"w": [0.0, 0.5], "t": [0.07, 1.0], "target": ["first", "all"]}
    assert design.baseline == {"w": 0.0, "t": 1.0, "target": "first"}
    assert design.only_where == {"t": {"w": [0.5]}, "target": {"w": [0.5]}}
    assert read_design(cells).left_out == 0


def test_a_condition_that_is_dropped_drops_what_hangs_on_it():
    cells = [[f"a={a}", f"b={b}", f"c={c}"] for a, b, c in product((0, 1), (0, 1), (0, 1))]
    design = read_design(cells, {"only_where": {"b": {"a": 1}, "c": {"b": 1}}})
    assert [p.label for p in design.points] == [
        "a=0",
        "a=1 · b=0",
        "a=1 · b=1 · c=0",
        "a=1 · b=1 · c=1",
    ]


def test_what_folds_says_so():
    """Two variants under one name, two cells in one place, a baseline and a contrast of nothing."""
    same_name = grid("a.weight=1", "b.weight=1")
    with pytest.raises(ConfigError, match=r"two variants are called 'weight=1.*': a.weight=1"):
        read_design(same_name, {"factors": ["a.weight", "b.weight"]})
    with pytest.raises(ConfigError, match="two variants are called 'x=1': x=1 and x=1"):
        read_design(grid("x=1", "x='1'"))
    apart = grid("fusion=full optim.lr=1", "fusion=full optim.lr=2")
    with pytest.raises(ConfigError, match=r"two cells are .full. with one seed: optim.lr=1, optim"):
        read_design(apart, {"factors": ["fusion"]})
    corner = grid("fusion=cross x=1", "fusion=full x=2")
    with pytest.raises(ConfigError, match=r"baseline=fusion=full, x=1: the sweep has no cell with"):
        read_design(corner, {"baseline": {"fusion": "full", "x": 1}})
    entry = {"of": {"fusion": "full"}, "against": {"fusion": "cross"}}
    with pytest.raises(ConfigError, match="fits no two cells of the sweep"):
        read_design(corner, {"contrasts": [entry]})
    with pytest.raises(ConfigError, match="the sweep has no cells"):
        read_design([])
    crossed = grid("a=0 b=0", "a=0 b=1", "a=1 b=0", "a=1 b=1")
    once = [{"main": "a"}, {"interaction": ["a", "b"]}]
    assert read_design(crossed, {"contrasts": once}).contrasts == once
    for entry, told in (
        ({"main": "a", "name": "again"}, "main=a"),
        ({"interaction": ["b", "a"]}, r"interaction=.*"),
    ):
        with pytest.raises(ConfigError, match=rf"contrasts\[2\]: {told} is ablation.contrasts"):
            read_design(crossed, {"contrasts": [*once, entry]})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"basline": {}}, r"ablation.basline: no such key. Did you mean ablation.baseline\?"),
        ({"zzz": 1}, r"ablation.zzz: no such key. Keys: name, question"),
        ({"baseline": "cross"}, r"ablation.baseline=cross: give factor and value"),
        ({"baseline": {"fusion": "self"}}, r"fusion=self is no value .* takes cross, full"),
        ({"baseline": {"loss": "lisa"}}, r"loss=lisa is no value .* takes no value"),
        ({"factors": ["loss"]}, r"ablation.factors names loss, .* sets fusion"),
        ({"path": [{"fusion": "self"}]}, r"ablation.path\[0\]: fusion=self is no value"),
        ({"path": [{"fusion": "full", "seed": 1}]}, r"ablation.path\[0\]=.*: give one change"),
        ({"path": "full"}, r"ablation.path\[0\]=.*: give one change"),
        ({"margin": {"giou": 0.01}}, r"ablation.margin: giou=0.01: give points of 100, at least"),
        ({"margin": {"giou": "two"}}, r"ablation.margin: giou=two: give points"),
        ({"margin": 100}, r"ablation.margin: giou=100: give points"),
        ({"margin": {"iou": 1}}, r"iou is no metric of the sweep; ablation.metrics: giou, ciou"),
        ({"only_where": ["a"]}, r"ablation.only_where=\['a'\]: give \{key: \{other key: value"),
        ({"only_where": {"fusion": 1}}, r"ablation.only_where.fusion=1: give the values at which"),
        (
            {"only_where": {"t": {"fusion": "full"}}},
            r"only_where: t is not set by the sweep",
        ),
        (
            {"only_where": {"fusion": {"w": 1}}},
            r"only_where: w is not set by the sweep",
        ),
        (
            {"only_where": {"fusion": {"fusion": "self"}}},
            r"only_where.fusion: fusion=self is no value of the sweep; fusion takes cross, full",
        ),
        ({"contrasts": [{"of": {"fusion": "full"}}]}, r"contrasts\[0\]=.*: give two variants"),
        (
            {"contrasts": [{"main": "loss"}]},
            r"main: loss is no factor that varies",
        ),
        ({"contrasts": [{"main": ["fusion"]}]}, r"is no factor that varies"),
        (
            {"contrasts": [{"interaction": ["fusion"]}]},
            r"interaction=.*: give 2 of fusion",
        ),
        (
            {"contrasts": [{"interaction": ["fusion", "w"]}]},
            r"interaction: w is no factor",
        ),
        ({"name": "a/b"}, r"name=a/b: use letters"),
        ({"name": ""}, r"name=: use letters"),
        ({"name": "x" * 101}, r"up to 100"),
        ({"metrics": ["gIoU"]}, r"ablation.metrics: gIoU is no measure. Did you mean giou\?"),
        ({"metrics": ["P@0.5"]}, r"P@0.5 is no measure. Did you mean precision@0.5\?"),
        ({"metrics": ["zzz"]}, r"zzz is no measure. One of giou, ciou"),
        ({"metrics": "giou"}, r"ablation.metrics=giou: give a list of names"),
        ({"metrics": []}, r"ablation.metrics=\[\]: give a list of names"),
        ({"metrics": ["giou", "giou"]}, r"one is given twice"),
        ({"replicate": "sed"}, r"ablation.replicate=sed: the sweep does not set it; it sets fus"),
        (
            {"contrasts": [{"of": {"fusion": "full"}, "against": {"fusion": "full"}}]},
            r"contrasts\[0\]: fusion=full against fusion=full compares a variant with itself",
        ),
        (
            {"contrasts": [{"of": {"fusion": "full"}, "against": {"fusion": "cross"}}] * 2},
            r"contrasts\[1\]: fusion=full against fusion=cross is ablation.contrasts\[0\] again",
        ),
        (
            {"contrasts": [{"main": "fusion"}, {"main": "fusion", "name": "x"}]},
            r"contrasts\[1\]: main=fusion is ablation.contrasts\[0\] again",
        ),
        ({"path": [{"fusion": "cross"}]}, r"path\[0\]=fusion=cross: changes nothing"),
        ({"name": ".hidden"}, r"name=.hidden: use letters"),
    ],
)
def test_a_block_that_does_not_fit_is_an_error(block, message):
    with pytest.raises(ConfigError, match=message):
        read_design(grid("fusion=cross", "fusion=full"), block)


def test_a_factor_with_one_value_has_no_effect_to_ask_for():
    points = grid("fusion=cross loss.dice=1", "fusion=full loss.dice=1")
    factors = {"factors": {"fusion": ["cross", "full"], "loss.dice": [1]}}
    with pytest.raises(ConfigError, match=r"loss.dice is no factor that varies; there are fusion$"):
        read_design(points, {**factors, "contrasts": [{"main": "loss.dice"}]})
