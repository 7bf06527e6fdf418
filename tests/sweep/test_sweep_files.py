"""Every file in sweeps/ is a design that holds: values, baseline, contrasts, published numbers."""

from itertools import product

import pandas as pd
import pytest
from omegaconf import OmegaConf

from keyseg.config import PROJECT, ConfigError, flatten, signature
from keyseg.data.split import as_test
from keyseg.metrics import BY_NAME
from keyseg.report.stats.contrasts import contrasts, path
from keyseg.report.store import Sweep, VariantResult
from keyseg.sweep.design import check_block, read_design

FILES = [
    file
    for file in sorted((PROJECT / "sweeps").glob("*.yaml"))
    if "hydra/sweeper" not in file.read_text()  # a tuning has a space, not a grid
]


def read(file):
    """Content of a sweep's file, its parameters and the overrides of all its cells."""
    content = OmegaConf.to_container(OmegaConf.load(file))
    params = {k: str(v).split(",") for k, v in content["hydra"]["sweeper"]["params"].items()}
    jobs = [
        [f"{k}={v}" for k, v in zip(params, values, strict=True)]
        for values in product(*params.values())
    ]
    return content, params, jobs


def test_the_questions_are_there():
    assert {f.stem for f in FILES} >= {
        "table1",
        "table2",
        "table3",
        "table4",
        "fusion_full",
        "key",
        "keyword_loss",
        "loss_weights",
        "token_order",
        "lora_rank",
        "fidelity",
        "bands",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_value_composes_on_scenes_and_on_public_data(file, compose_run):
    jobs = read(file)[2]
    assert {job[-1] for job in jobs} >= {"seed=0", "seed=1", "seed=2"}
    one_change = [j for j in jobs if len(set(j) - set(jobs[0])) <= 1 and j[-1] == "seed=0"]
    for job in one_change:
        assert compose_run("data=refcocog", *job).data["name"] == "refcocog"
    assert compose_run(*jobs[0]).data["name"] == "scenes"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_design_holds(file):
    content, params, jobs = read(file)
    made = read_design(jobs, content["ablation"])
    assert made.name == file.stem
    assert made.question
    assert set(made.metrics) <= set(BY_NAME)
    assert made.published in (
        None,
        *(p.stem for p in (PROJECT / "reports/published").glob("*.csv")),
    )
    for key, values in content["ablation"]["factors"].items():
        assert made.factors[key] == values
    for group in {"fusion", "loss", "data"} & params.keys():
        known = {f.stem for f in (PROJECT / "experiments" / group).glob("*.yaml")}
        assert set(params[group]) <= known
    points = {p.label: p.factors for p in made.points}
    variants = tuple(VariantResult(label, i, f, ()) for i, (label, f) in enumerate(points.items()))
    plan = {"baseline": made.baseline, "contrasts": made.contrasts, "path": made.path}
    sweep = Sweep(file, plan, variants)
    assert len(path(sweep)) == (len(made.path) + 1 if made.path else 0)
    found = contrasts(sweep)
    assert len(found) >= max(len(made.contrasts), 2)
    assert len({c.name for c in found}) == len(found)


def test_key_asks_a_part_of_fusion_full():
    """So that its cells count for both, and no contrast was thought of after it was seen."""
    key, whole = (read(PROJECT / f"sweeps/{name}.yaml") for name in ("key", "fusion_full"))
    assert {tuple(job) for job in key[2]} < {tuple(job) for job in whole[2]}
    contrasts_of = [content["ablation"]["contrasts"] for content, _, _ in (key, whole)]
    assert all(contrast in contrasts_of[1] for contrast in contrasts_of[0])


def test_keyword_loss_runs_no_cell_twice():
    """Off, temperature and target cannot matter, and without KEY nothing of the loss can."""
    content, _, jobs = read(PROJECT / "sweeps/keyword_loss.yaml")
    made = read_design(jobs, content["ablation"])
    assert made.left_out == len(jobs) - len(made.points) > 0
    bare = [p for p in made.points if p.factors.get("loss.keyword.weight", 0) == 0]
    said = [(p.factors["fusion"], p.factors["prompt.names_target"], p.seed) for p in bare]
    assert len(said) == len(set(said)) == 2 * 2 * 3


@pytest.mark.parametrize("name", ["table3", "fusion_full", "key", "token_order", "keyword_loss"])
def test_questions_about_key_are_held_against_a_model_without_it(name):
    content, _, jobs = read(PROJECT / f"sweeps/{name}.yaml")
    made = read_design(jobs, content["ablation"])
    assert made.baseline["fusion"] == "no_key"
    assert any(e.get("against", {}).get("fusion") == "no_key" for e in made.contrasts)
    bare = [p for p in made.points if p.factors["fusion"] == "no_key"]
    assert not any({"model.tokens.order", "loss.keyword.weight"} & p.factors.keys() for p in bare)


SET_BY_RELEASED = {
    "model.tokens.order": "seg_first",
    "model.tokens.state": "previous",
    "model.tokens.rows": "all",
    "model.shared_projection": True,
    "model.name": "llava_1_5_7b",
    "data.name": "released",
    "data.keyword": "expression",
    "data.draw": "uniform",
    "prompt.name": "released",
    "prompt.test": "{query}",
    "loss.keyword.table": "projected",
    "loss.keyword.similarity": "cosine",
    "loss.keyword.temperature": 0.07,
    "loss.text": 1e-4,
    "loss.dice_smooth": 1e-3,
    "loss.void": "background",
    "optim.steps": 4000,
    "optim.until": "patience",
    "optim.patience": 5,
    "evaluation.texts": "first",
}


@pytest.mark.parametrize("name", ["released", "fidelity"])
def test_all_that_can_be_set_is_as_released(name, compose_run):
    """And fidelity asks its question with it."""
    cfg = compose_run(f"+sweeps={name}")
    found = flatten(cfg)
    assert {key: found[key] for key in SET_BY_RELEASED} == SET_BY_RELEASED
    assert cfg.ablation["name"] == name
    small = compose_run(f"+sweeps={name}", "model=tiny", "data=scenes", "prompt=short")
    assert (small.model.name, small.data["name"]) == ("tiny", "scenes")
    assert small.model.shared_projection


def test_tables_1_and_2_are_one_training_that_is_read_on_many_test_sets(compose_run):
    """The second table costs no cell: its own are found by their signatures."""
    one, two = (compose_run(f"+sweeps=table{n}", "fusion=full", "seed=1") for n in (1, 2))
    assert signature(one) == signature(two)
    for number, places in ((1, {("ReasonSeg", "test")}), (2, TABLE_2)):
        content, _, jobs = read(PROJECT / f"sweeps/table{number}.yaml")
        found = set()
        for item in read_design(jobs, content["ablation"]).tests:
            name, _, split = item.partition(":")
            test = as_test(compose_run(f"data={name}").data, split)["splits"]["test"]
            assert [entry["split"] for entry in test] == [split]
            found.add((TITLES[name], split))
        assert found == places
    printed = pd.read_csv(PROJECT / "reports/published/keyseg.csv", dtype=str)
    for table, places in (("1", {("ReasonSeg", "test")}), ("2", TABLE_2)):
        rows = printed[printed["table"] == table]
        assert set(zip(rows["data"], rows["split"], strict=True)) == places


TITLES = {
    "reason_seg": "ReasonSeg",
    "refcoco": "refCOCO",
    "refcoco_plus": "refCOCO+",
    "refcocog": "refCOCOg",
}
TABLE_2 = {
    *((data, split) for data in ("refCOCO", "refCOCO+") for split in ("testA", "testB")),
    ("refCOCOg", "test"),
}


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (["refcoc:testA"], "refcoc:testA is no option of the group data.*Did you mean refcoco"),
        (["refcoco testA"], "is no option of the group data"),
        ("refcoco", "ablation.tests=refcoco: give a list"),
    ],
)
def test_a_test_set_that_there_is_not_is_told(tests, message):
    with pytest.raises(ConfigError, match=message):
        check_block({"tests": tests})


def test_an_answer_that_names_nothing_is_an_arm():
    content, _, jobs = read(PROJECT / "sweeps/keyword_loss.yaml")
    made = read_design(jobs, content["ablation"])
    silent = [p for p in made.points if p.factors["prompt.names_target"] is False and not p.seed]
    arms = {(p.factors["fusion"], p.factors.get("loss.keyword.weight")) for p in silent}
    assert arms == {("no_key", None), ("full", 0.0), ("full", 0.5)}


def test_a_dropped_factor_is_as_good_with_any_value():
    """Every variant with the loss on is held against the one without, whose other keys are gone."""
    on = [{"w": 0.5, "t": t} for t in (0.07, 1.0)]
    variants = tuple(VariantResult(str(f), i, f, ()) for i, f in enumerate([{"w": 0.0}, *on]))
    plan = {
        "baseline": {"w": 0.0, "t": 1.0},
        "contrasts": [
            {"of": {"w": 0.5}, "against": {"w": 0.0}},
            {"of": {"t": 0.07}, "against": {"t": 1.0}},
        ],
        "path": [{"w": 0.5}, {"t": 0.07}],
    }
    sweep = Sweep(PROJECT, plan, variants)
    assert sweep.baseline is variants[0]
    off, sharp, soft = variants
    found = [(c.of, c.against) for c in contrasts(sweep)]
    assert found == [(sharp, off), (soft, off), (sharp, soft)]
    assert path(sweep) == [off, soft, sharp]


def test_factors_that_a_contrast_does_not_name_are_held_equal():
    names = [(w, t) for w in (0.0, 0.5) for t in (0.07, 1.0)]
    variants = tuple(
        VariantResult(f"{w} {t}", i, {"w": w, "t": t}, ()) for i, (w, t) in enumerate(names)
    )
    entry = {"of": {"w": 0.5}, "against": {"w": 0.0}, "name": "on"}
    found = contrasts(Sweep(PROJECT, {"contrasts": [entry]}, variants))
    assert [(c.of.label, c.against.label) for c in found] == [
        ("0.5 0.07", "0.0 0.07"),
        ("0.5 1.0", "0.0 1.0"),
    ]
    assert found[0].name == "on: 0.5 0.07 − 0.0 0.07"


def test_steps_of_a_path_are_contrasts_too():
    names = [(w, t) for w in (0.0, 0.5) for t in (0.07, 1.0)]
    variants = tuple(
        VariantResult(f"{w} {t}", i, {"w": w, "t": t}, ()) for i, (w, t) in enumerate(names)
    )
    plan = {
        "baseline": {"w": 0.0, "t": 1.0},
        "contrasts": [{"of": {"w": 0.5}, "against": {"w": 0.0}, "name": "on"}],
        "path": [{"w": 0.5}, {"t": 0.07}],
    }
    sweep = Sweep(PROJECT, plan, variants)
    assert [v.label for v in path(sweep)] == ["0.0 1.0", "0.5 1.0", "0.5 0.07"]
    assert [c.name for c in contrasts(sweep)] == [
        "on: 0.5 0.07 − 0.0 0.07",
        "on: 0.5 1.0 − 0.0 1.0",
        "0.5 0.07 − 0.5 1.0",  # the first step is declared already
    ]
    assert path(Sweep(PROJECT, {**plan, "baseline": {}}, variants)) == []
