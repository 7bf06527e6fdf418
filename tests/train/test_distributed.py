"""Several processes on the CPU (gloo): the same numbers as one process with the same batch."""

import json
import shutil
import socket
from dataclasses import asdict

import pytest
import torch
from omegaconf import OmegaConf

from keyseg.runs import process_rank
from keyseg.train.distributed import ALONE, Processes
from tests.families import LANGUAGES, language_folder, with_sides
from tests.forked import Forked
from tests.train import two_processes

WAYS = {
    "shared": (),
    "accumulated": ("runtime.accumulation=2",),
    "sharded": ("runtime.accumulation=2", "runtime.sharding=fsdp"),
}
SMALL = (
    f"optim.steps={two_processes.STEPS}",
    "optim.warmup=0",
    "optim.schedule=constant",
    "optim.images_per_step=7",  # no process has as many as another
    "optim.eval_every=2",
    "runtime.log_every=1",
    "evaluation.images_per_batch=2",
    "evaluation.max_new_tokens=8",
    "model.precision=fp32",
    "prompt=lisa",  # draws templates
    "fusion=full",
)
TIMEOUT = 900


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def of_family(small_run, tmp_path_factory):
    """The config of a language side at a tiny random size."""
    there = tmp_path_factory.mktemp("families")
    folders = {name: language_folder(name, there / name) for name in LANGUAGES}
    return lambda name, *options: with_sides(small_run(*SMALL, *options), folders, name)


@pytest.fixture(scope="module")
def trained(small_run, of_family, tmp_path_factory):
    """All ways, and all families sharded, by two processes."""
    folder = tmp_path_factory.mktemp("together")
    configs = {way: small_run(*SMALL, *options) for way, options in WAYS.items()}
    frugal = (*WAYS["sharded"], "model.gradient_checkpointing=full")
    configs |= {name: of_family(name, *frugal) for name in LANGUAGES}
    for name, cfg in configs.items():
        OmegaConf.save(OmegaConf.create(asdict(cfg)), folder / f"{name}.yaml")
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    logs = [folder / f"log.{rank}.txt" for rank in (0, 1)]
    processes = [
        Forked(two_processes.main, folder, log=log, **told, RANK=str(r), LOCAL_RANK=str(r))
        for r, log in enumerate(logs)
    ]
    for process, log in zip(processes, logs, strict=True):
        assert process.wait(TIMEOUT) == 0, log.read_text()
    return folder


@pytest.fixture(scope="module")
def alone(small_run, tmp_path_factory):
    """One process, one batch, not stopped."""
    return two_processes.train(small_run(*SMALL), tmp_path_factory.mktemp("alone"), ALONE, 2)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_measure_what_one_does(trained, alone, way):
    """Losses, gradients, entropies and scores; also after a stop of which one was told."""
    first, second = (json.loads((trained / f"{way}.{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first == pytest.approx(alone, rel=2e-4, abs=1e-6)
    assert {"train/keyword 2", "val/giou 2", "generated"} <= first.keys()
    assert any(name.startswith("entropy") for name in first)
    assert first["val/giou 0"] == alone["val/giou 0"]  # the same weights: to the last digit
    assert first["val/rows 0"] == alone["val/rows 0"]


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_language_side_is_sharded_with_activations_computed_again(
    trained, of_family, tmp_path, name
):
    first, second = (json.loads((trained / f"{name}.{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    alone = two_processes.train(of_family(name), tmp_path, ALONE, 2)
    assert first == pytest.approx(alone, rel=2e-4, abs=1e-6)
    assert {"train/loss 2", "val/giou 2", "generated"} <= first.keys()


def test_one_process_goes_on_where_two_were_stopped(trained, alone, small_run, tmp_path):
    for way in ("shared", "sharded"):
        folder = tmp_path / way
        shutil.copytree(trained / f"{way}.half", folder)
        found = two_processes.train(small_run(*SMALL), folder, ALONE, 2)
        assert found == pytest.approx({k: alone[k] for k in found}, rel=2e-4, abs=1e-6)
        assert "train/loss 2" in found
        assert "train/loss 1" not in found
        whole = torch.load(folder / "last.pt", weights_only=True)
        assert len(whole["random"]) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("each", [1, 2])
def test_every_position_is_somebodys(count, each):
    for total in range(count * each, 24):
        parts = [p for rank in range(count) for p in Processes(rank, count).parts(total, each)]
        assert [i for part in parts for i in part] == list(range(total))
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1


def test_srun_says_who_takes_part():
    said = {
        "SLURM_JOB_ID": "12345678",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_NODELIST": "gpu03",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
    }
    assert process_rank.from_srun(said) == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": "25678",
    }
    assert (process_rank.rank(said), process_rank.count(said)) == (3, 4)
    assert process_rank.count_here(said) == 2
    assert (process_rank.rank({}), process_rank.count({})) == (0, 1)
    assert process_rank.count_here({}) == 1
    assert process_rank.from_srun(said | {"WORLD_SIZE": "8"}) == {}
    assert process_rank.from_srun(said | {"SLURM_STEP_NUM_TASKS": "1"}) == {}
    # in the script of a job with several tasks, outside of srun
    assert (
        process_rank.from_srun({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"})
        == {}
    )
