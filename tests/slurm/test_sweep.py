"""A sweep on a real SLURM: one array, every cell once, what is not done tried again."""

import signal


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
    process = sweep.start(*command, STEP_SECONDS="1")
    sweep.wait_for("self")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "detached; the jobs go on. `keyseg status t` shows them" in out
    assert len(sweep.cluster.jobs()) == 2
    code, out, err = sweep.run(*command)
    assert code == 0, err
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 1, "cross": 1}


def test_detach_returns_at_once_and_two_commands_submit_once(sweep):
    command = ("fusion=self,cross", "--detach")
    both = [sweep.start(*command, STEP_SECONDS="0.5") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "2 of 2 cells are queued or at work" in out
    assert len(list(sweep.root.glob("outputs/t/.slurm/*"))) == 1
    code, _, err = sweep.run("fusion=self,cross")
    assert code == 0, err
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 1, "cross": 1}


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
        *("#SBATCH --array=0-1%2", "#SBATCH --gpus-per-node=1", "#SBATCH --signal=USR2@120"),
        "export PYTHONSAFEPATH=1",
    ):
        assert line in out
    assert "srun --unbuffered" in out
    assert "--cpus-per-task=1 " in out
    assert list(sweep.root.iterdir()) == []
    assert sweep.cluster.jobs() == []


def test_gpus_and_extra_arguments_reach_the_job(sweep):
    code, _, err = sweep.run(
        "fusion=self",
        *("hydra.launcher.gpus=1", "hydra.launcher.memory=500M", "hydra.launcher.partition=low"),
        *("hydra.launcher.setup=['export STEP_SECONDS=0.3']", "+hydra.launcher.sbatch.nice=3"),
        *("hydra.launcher.srun=['--kill-on-bad-exit=1']", "hydra.launcher.cpus_per_task=2"),
    )
    assert code == 0, err
    seen = sweep.cells["self"].info["environment"]
    assert seen["CUDA_VISIBLE_DEVICES"] in ("0", "1")
    assert seen["KEYSEG_THREADS"] == "2"
