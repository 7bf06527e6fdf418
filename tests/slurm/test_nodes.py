"""One run on two nodes: the command of docs/several-gpus.md, in a job that has both."""

import shlex
import subprocess
import sys

from keyseg.config import PROJECT
from keyseg.runs.run_directory import DONE, RunDirectory
from tests.plain import PLAIN

COMMAND = "srun --ntasks={} --gpus-per-task=1 --kill-on-bad-exit=1 python run.py fusion=full"
TINY = (
    "optim.steps=2",
    "optim.eval_every=2",
    "optim.warmup=1",
    "runtime.log_every=1",
    "runtime.threads=1",
    "evaluation.protocols=[teacher_forced]",
)


def test_the_command_of_the_docs_shares_one_run_between_two_nodes(sweep, small_overrides):
    assert COMMAND.format(8) in (PROJECT / "docs" / "several-gpus.md").read_text()
    here = COMMAND.format(2).replace("--gpus-per-task=1 ", "")  # this cluster has none
    here = here.replace("python run.py", shlex.join([sys.executable, str(PROJECT / "run.py")]))
    outputs = f"paths.outputs={sweep.root / 'outputs'}"
    job = ["salloc", "-Q", "--partition=pair", "--nodes=2", "--mem-per-cpu=2G"]
    done = subprocess.run(
        [*job, *shlex.split(here), *PLAIN, *small_overrides, *TINY, outputs],
        cwd=sweep.root,
        env=sweep.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = sweep.root.glob("outputs/single/*/run.json")
    run = RunDirectory(path.parent)
    assert run.status == DONE
    assert [attempt["processes"] for attempt in run.info["attempts"]] == [2]
    assert run.info["slurm"]["SLURM_STEP_NUM_NODES"] == "2"
    losses = run.metrics().query("name == 'train/loss'")
    assert list(losses["step"]) == [1, 2]
    assert done.stdout.count("full  started") == 1  # the first process shows it, the other none


def test_a_cell_of_a_sweep_has_both_nodes(sweep, small_overrides):
    nodes = ("hydra.launcher.nodes=2", "hydra.launcher.partition=pair", "hydra.launcher.memory=3G")
    process = sweep.start("fusion=full", *PLAIN, *small_overrides, *TINY, *nodes, stub=False)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    [run] = sweep.cells.values()
    assert run.status == DONE
    assert [attempt["processes"] for attempt in run.info["attempts"]] == [2]
    assert run.info["slurm"]["SLURM_STEP_NUM_NODES"] == "2"
    assert list(run.metrics().query("name == 'train/loss'")["step"]) == [1, 2]
