"""Every file in sweeps/ is a design that holds: values, baseline, contrasts, published numbers."""

from itertools import product

import pytest
from omegaconf import OmegaConf

from keyseg.config import PROJECT
from keyseg.report.declared import contrasts
from keyseg.report.measures import BY_NAME
from keyseg.report.store import Sweep, Variant
from keyseg.sweep.design import design

FILES = [
    file
    for file in sorted((PROJECT / "sweeps").glob("*.yaml"))
    if "hydra/sweeper" not in file.read_text()  # a tuning has a space, not a grid
]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_design_holds(file):
    content = OmegaConf.to_container(OmegaConf.load(file))
    params = {k: str(v).split(",") for k, v in content["hydra"]["sweeper"]["params"].items()}
    jobs = [
        [f"{k}={v}" for k, v in zip(params, values, strict=True)]
        for values in product(*params.values())
    ]
    made = design(jobs, content["ablation"])
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
    variants = tuple(Variant(label, i, f, ()) for i, (label, f) in enumerate(points.items()))
    plan = {"baseline": made.baseline, "contrasts": made.contrasts}
    found = contrasts(Sweep(file, plan, variants))
    assert len(found) >= max(len(made.contrasts), 2)
    assert len({c.name for c in found}) == len(found)


def test_factors_that_a_contrast_does_not_name_are_held_equal():
    names = [(w, t) for w in (0.0, 0.5) for t in (0.07, 1.0)]
    variants = tuple(Variant(f"{w} {t}", i, {"w": w, "t": t}, ()) for i, (w, t) in enumerate(names))
    entry = {"of": {"w": 0.5}, "against": {"w": 0.0}, "name": "on"}
    found = contrasts(Sweep(PROJECT, {"contrasts": [entry]}, variants))
    assert [(c.of.label, c.against.label) for c in found] == [
        ("0.5 0.07", "0.0 0.07"),
        ("0.5 1.0", "0.0 1.0"),
    ]
    assert found[0].name == "on: 0.5 0.07 − 0.0 0.07"
