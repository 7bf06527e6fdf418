"""Pruning: the verdict on rows of cells at work, and cells that end by it, quick ones and real."""

import pytest
from omegaconf import OmegaConf

from keyseg.runs.run_directory import PRUNED, RunDirectory
from keyseg.sweep.pool import WORKER
from keyseg.sweep.tune import samplers
from keyseg.sweep.tune.options import options
from keyseg.sweep.tune.prune import WilcoxonTest, val_iou


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("median", {"n_startup_trials": 1}),
        ("hyperband", {"min_resource": 1, "max_resource": 2}),  # one bracket
        ("wilcoxon", {}),
    ],
)
def test_a_lost_cause_is_asked_to_end_and_is_told_as_pruned(bench, monkeypatch, name, args):
    monkeypatch.setenv("ROWS", "4")
    monkeypatch.setenv("PATIENCE", "60")
    monkeypatch.setenv("UNTRAINED", "0.9")  # the same in every trial, so it decides nothing
    best = {"loss.keyword.temperature": 0.3, "loss.bce": 2.0}
    bad = {"loss.keyword.temperature": 4.0, "loss.bce": 0.6}
    here = bench(
        sampler="random",
        pruner=name,
        pruner_args=args,
        enqueue=[best, bad],
        n_trials=2,
    )
    trials = here.run()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED"]
    assert trials[0].intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}
    assert list(trials[1].intermediate_values) == [1, 2]
    assert trials[1].value == trials[1].intermediate_values[2]
    assert RunDirectory(here.root / trials[1].user_attrs["cell"]).status == "pruned"
    assert here.arms()[0].best().number == 0
    assert here.run() == trials  # pruned trials count, and are not run again


def test_hyperband_knows_the_length_of_a_run():
    hyperband = samplers.pruner(options({"pruner": "hyperband"}), 150, 25)
    assert (hyperband._min_resource, hyperband._max_resource) == (25, 150)


def test_the_paired_test_needs_examples_and_a_difference():
    test = WilcoxonTest()
    best = {str(i): 0.5 + 0.01 * i for i in range(20)}
    assert test.worse({k: v - 0.1 for k, v in best.items()}, best)
    assert not test.worse({k: v + 0.1 for k, v in best.items()}, best)
    assert not test.worse(best, best)
    assert not test.worse({k: v - 0.1 for k, v in list(best.items())[:7]}, best)


REAL = (
    "model=tiny",
    "optim.steps=12",
    "optim.eval_every=2",
    "optim.warmup=1",
    "optim.schedule=constant",
    "runtime.log_every=1",
    "runtime.threads=1",
    "evaluation.protocols=[]",
)


def test_a_real_training_that_goes_wrong_is_pruned_through_its_run_directory(
    make_bench, compose_run, scenes_folder, tmp_path, monkeypatch
):
    """Two cells on the bundled weights; a rate that is far too high spoils the masks."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    counts = "{train: 6, val: 3, test: 3}"
    data = [f"data.prepare.{kind}={counts}" for kind in ("refer", "reason")]
    config = compose_run(
        *REAL, f"data.root={scenes_folder}", *data, "optim.images_per_step=2", "runtime.device=cpu"
    )
    here = make_bench(
        tmp_path / "s",
        OmegaConf.structured(config),
        ("optim.lr_decoder=0.0005,1.0",),
        worker=WORKER,
        pruner="wilcoxon",
        enqueue=[{"optim.lr_decoder": 0.0005}, {"optim.lr_decoder": 1.0}],
        n_trials=2,
    )
    good, bad = here.run(patience=600)
    log = RunDirectory(here.root / bad.user_attrs["cell"]).log_file.read_text()
    assert [good.state.name, bad.state.name] == ["COMPLETE", "PRUNED"], log
    assert sorted(good.intermediate_values) == list(range(2, 13, 2))
    assert max(bad.intermediate_values) < 12
    run = RunDirectory(here.root / bad.user_attrs["cell"])
    assert run.status == PRUNED
    assert max(row.step for row in run.rows()) < 12
    assert val_iou(run)
