"""A sweep on a real SLURM: one array, every cell once, what is not done tried again."""

import signal

from keyseg.worker import precompute
from tests.plain import PLAIN


def test_a_sweep_is_one_array_and_what_failed_is_tried_again(sweep):
    command = ("fusion=self,cross,full", "hydra.launcher.time=13")
    code, out, err = sweep.run(*command, FAIL="self")
    assert code == 1, err
    assert err == "error: 1 of 3 cells failed\n"
    assert "sweep t · 3 cells on SLURM" in out
    assert "FAILED  self · seed 0: RuntimeError: no luck today" in out
    assert {name: run.status for name, run in sweep.cells.items()} == {
        "self": "failed",
        "cross": "done",
        "full": "done",
    }
    assert len(list(sweep.root.glob("outputs/t/.slurm/*"))) == 1
    code, out, _ = sweep.run(*command)
    assert code == 0
    assert "2 of 3 cells were done already" in out
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 2, "cross": 1, "full": 1}
    assert len(list(sweep.root.glob("outputs/t/.slurm/*"))) == 2


def test_ctrl_c_detaches_and_the_same_command_comes_back(sweep):
    command = ("fusion=self,cross", "hydra.launcher.array_parallelism=1")
    process = sweep.start(*command, HANG="self")
    sweep.wait_for("self")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "detached; the jobs go on. `keyseg status t` shows them" in out
    assert len(sweep.cluster.jobs()) == 2
    sweep.go("self")
    code, out, err = sweep.run(*command)
    assert code == 0, err
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 1, "cross": 1}


def test_two_launching_processes_submit_once_and_features_are_computed_once_before(
    sweep, small_overrides
):
    data = f"paths.data={sweep.root / 'data'}"
    command = (
        "fusion=self,cross",
        *PLAIN,
        *small_overrides,
        data,
        "hydra.launcher.features=true",
        "hydra.launcher.memory=3G",
    )
    stays = sweep.start(*command, HANG="self,cross")
    leaves = sweep.start(*command, "--detach", HANG="self,cross")
    out, err = leaves.communicate(timeout=120)
    assert leaves.returncode == 0, err
    assert "2 of 2 cells are queued or at work" in out
    for cell in ("self", "cross"):
        sweep.wait_for(cell, 300)  # a process that loads torch comes first
    config = sweep.cells["self"].config
    assert precompute.marker(config).exists()  # before a cell has ended
    sweep.go("self", "cross")
    _, err = stays.communicate(timeout=120)
    assert stays.returncode == 0, err
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 1, "cross": 1}
    first, array = sorted(sweep.root.glob("outputs/t/.slurm/*"), reverse=True)
    assert first.name == f"{array.name}-prepare"
    (log,) = first.glob("*_log.out")
    assert "24 images: 48 features computed" in log.read_text()


def test_a_refused_job_is_one_line(sweep):
    code, _, err = sweep.run("fusion=self,cross", "hydra.launcher.partition=nope")
    assert code == 2
    assert err.count("\n") == 1
    assert "sbatch refuses the job:" in err
    assert "Invalid partition name specified" in err


def test_dry_shows_cells_and_script_and_writes_nothing(sweep):
    code, out, err = sweep.run("fusion=self,cross", "--dry", "hydra.launcher.gpus=1")
    assert code == 0, err
    assert "sweep t · 2 cells, nothing started" in out
    for line in (
        "#SBATCH --array=0-1%2",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --signal=USR2@120",
        "export PYTHONSAFEPATH=1",
    ):
        assert line in out
    assert "srun --unbuffered" in out
    assert "--cpus-per-task=1 " in out
    assert list(sweep.root.iterdir()) == []
    assert sweep.cluster.jobs() == []
