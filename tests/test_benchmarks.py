"""Benchmarks that nobody can run on a small machine still have to run."""

import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest
import torch

from keyseg.config import PROJECT


def test_full_size_at_a_small_size():
    command = [sys.executable, PROJECT / "benchmarks" / "full_size.py", "--model", "tiny"]
    small = ["--steps", "1", "--variants", "full", "--device", "cpu"]
    done = subprocess.run([*command, *small], capture_output=True, text=True, check=True)
    assert not done.stderr
    [found] = json.loads(done.stdout.splitlines()[-1])["results"]
    assert found["variant"] == "full"
    assert found["seconds_per_step"][0] > 0 < found["seconds_per_step_stored"][0]
    assert abs(sum(found["share"].values()) - 1) < 0.01


ESTIMATES = (PROJECT / "docs" / "benchmarks.md").read_text()


def tables() -> list[list[dict[str, str]]]:
    """The rows of the tables of estimates."""
    blocks = re.findall(r"^\| `.*\n\|---.*\n(?:\| `.*\n)+", ESTIMATES, re.MULTILINE)
    found = []
    for block in blocks:
        head, _, *rows = (
            [c.strip(" `") for c in r.strip("|").split("|")] for r in block.splitlines()
        )
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def models() -> dict[str, dict[str, str]]:
    """The rows of the first table, by model."""
    return {row["model"]: row for row in tables()[0]}


def needed(row: dict[str, str], images: int) -> float:
    """GB of a step with so many images at once."""
    stands, each = map(float, row["step, GB: + an image"].split(" + "))
    return stands + images * each


@pytest.fixture
def estimate(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    return importlib.import_module("estimate")


def test_the_documented_command_fits_the_memory_that_the_page_says(compose_run):
    [command] = re.findall(r"python run.py (-m \+sweeps=table3 .*?) --dry", ESTIMATES, re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))
    own = [w for w in words if not w.startswith(("-m", "+sweeps", "hydra"))]
    assert "hydra.launcher.gpus=1" in words
    cfg = compose_run(*own)
    row = models()[cfg.model.name]
    assert row["mask"] == f"sam_{cfg.model.sam_type}"
    images = -(-cfg.optim.images_per_step // cfg.runtime.accumulation)
    [told] = re.findall(r"\| memory of a cell \| (\d+) GB", ESTIMATES)
    assert round(needed(row, images)) == int(told)
    assert needed(row, images) <= 0.9 * 40
    assert str(cfg.runtime.accumulation) == row["micro-batches on 40 GB"]
    standing = needed(row, 0)
    evaluation = standing + (float(row["evaluation, GB"]) - standing) * (
        cfg.evaluation.images_per_batch / 16
    )
    assert evaluation <= 0.9 * 40 < float(row["evaluation, GB"]) + 0.5  # 16 at once do not fit


def test_the_micro_batches_of_every_row_fit(estimate):
    assert [row["model"] for row in tables()[0]] == estimate.options_of("model")
    assert [row["mask"] for row in tables()[1]] == estimate.options_of("mask")
    for row in tables()[0]:
        for gb in (40, 80):
            parts = row[f"micro-batches on {gb} GB"]
            if parts == "-":
                assert needed(row, 1) > 0.9 * gb - 0.1
                continue
            fit = -(-40 // int(parts))
            assert needed(row, fit) <= 0.9 * gb + 0.3  # figures of the page are rounded
            if int(parts) > 1:
                assert needed(row, -(-40 // (int(parts) - 1))) > 0.9 * gb - 0.3


def test_a_row_is_what_the_program_counts(estimate, monkeypatch, capsys):
    names = {"model": ["internvl3_2b"], "mask": []}
    monkeypatch.setattr(estimate, "options_of", names.__getitem__)
    monkeypatch.setattr(sys, "argv", ["estimate.py", "--table"])
    estimate.main()
    first, line, row, *_, said = capsys.readouterr().out.splitlines()
    assert f"{first}\n{line}" in ESTIMATES
    assert row in ESTIMATES
    [found] = json.loads(said)["language"]
    assert found["billion"] == pytest.approx(1.79, abs=0.01)  # at full depth: docs/backbones.md
    assert found["feature_mb_an_image"] == pytest.approx(0.8 + 8.4, abs=0.1)


def test_memory_is_what_a_step_takes_where_it_can_be_measured(estimate):
    """Of a model small enough: what tensors really took, on the CPU, against the count."""
    from shapes import Count, cost, without_content

    def work():
        x = torch.randn(64, 256)
        with torch.autocast("cpu", torch.bfloat16):
            model(x).float().pow(2).mean().backward()

    def made(device):
        with torch.device(device):
            layers = [torch.nn.Linear(256, 256) for _ in range(4)]
            return torch.nn.Sequential(*layers, torch.nn.GELU())

    model = made("cpu")
    with Count() as real:
        work()
    model = made("meta")
    with without_content(model):
        found = cost(work)
    assert found.peak == real.most > 4 * 256 * 256 * 4  # gradients, and more
    assert found.tflop * 1e12 == real.operations == 3 * 4 * 2 * 64 * 256 * 256 - 2 * 64 * 256 * 256
    found = cost(lambda: torch.zeros(3, 5) @ torch.zeros(5, 7))
    assert found.tflop == pytest.approx(2 * 3 * 5 * 7 / 1e12)


def test_the_parts_of_the_gpu_script_fit_ten_minutes():
    done = subprocess.run(
        ["bash", PROJECT / "benchmarks" / "gpu.sh", "--dry"], capture_output=True, text=True
    )
    assert done.returncode == 0
    limits = [int(n) for n in re.findall(r", at most (\d+) s: ", done.stdout)]
    assert len(limits) == 4
    assert sum(limits) <= 600
    assert "last line: {benchmark, gpu, " in done.stdout
    wrong = subprocess.run(
        ["bash", PROJECT / "benchmarks" / "gpu.sh", "--fast"], capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "--fast: not known; --help says what there is" in wrong.stderr


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    return importlib.import_module("planted")


@pytest.mark.parametrize(
    ("truth", "verdict", "points", "outcome"),
    [
        ("none", "no difference", 0.3, "agrees"),
        ("none", "inconclusive", 3.0, "open"),
        ("none", "better", 3.0, "contradicts"),
        ("none", "smaller than", 0.8, "contradicts"),
        ("above", "better", 3.0, "agrees"),
        ("above", "smaller than", 0.8, "agrees"),
        ("above", "no difference", 0.8, "open"),
        ("above", "smaller than", -0.8, "contradicts"),
        ("below", "no difference", -0.8, "open"),
        ("below", "says nothing", -9.0, "open"),
        ("not above", "no difference", 0.8, "agrees"),
        ("not above", "worse", -3.0, "agrees"),
        ("not above", "better", 3.0, "contradicts"),
        ("not below", "worse", -3.0, "contradicts"),
    ],
)
def test_a_verdict_is_held_against_what_was_planted(planted, truth, verdict, points, outcome):
    row = {"verdict": verdict, "difference": points / 100, "margin": 0.02}
    assert planted.outcome(row, truth) == outcome


@pytest.mark.parametrize(
    ("verdict", "size", "outcome"),
    [
        ("worse", -0.4, "agrees"),
        ("no difference", -0.4, "agrees"),
        ("inconclusive", -4.0, "open"),
        ("no difference", -4.0, "contradicts"),
        ("better", -0.4, "contradicts"),
    ],
)
def test_a_verdict_is_held_against_a_known_size(planted, verdict, size, outcome):
    row = {"verdict": verdict, "difference": size / 100, "margin": 0.02}
    assert planted.outcome(row, "size", size / 100) == outcome


def test_every_planted_arm_is_known_or_expected(planted):
    arms = {file.stem for file in (PROJECT / "experiments" / "planted").glob("*.yaml")}
    assert arms - {"none"} == planted.KNOWN.keys() | planted.EXPECTED.keys()
    assert not planted.KNOWN.keys() & planted.EXPECTED.keys()
