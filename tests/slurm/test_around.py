"""Jobs that hold several cells, the jobs before and after the array, and what they ask for."""

import json
import subprocess

from keyseg.sweep.slurm import queue


def test_one_job_works_on_several_cells_and_one_of_them_is_killed(sweep):
    command = ("fusion=self,cross,full", "hydra.launcher.cells_per_job=3")
    code, out, err = sweep.run(*command, DIE="cross")
    assert code == 1, err
    assert "FAILED  cross · seed 0: the worker was killed by SIGKILL" in out
    status = {name: run.status for name, run in sweep.cells.items()}
    assert status == {"self": "done", "cross": "failed", "full": "done"}
    assert {name: sweep.starts(name) for name in status} == dict.fromkeys(status, 1)
    jobs = {
        json.loads((run.path / "job.json").read_text())["index"] for run in sweep.cells.values()
    }
    assert jobs == {0}
    assert len(list(sweep.root.glob("outputs/t/.slurm/*/*_submitted.pkl"))) == 1


def test_a_last_job_makes_the_report_of_a_sweep_that_nobody_waits_for(sweep):
    heard = sweep.root / "heard.jsonl"
    tell = f"notify='cat >> \"{heard}\"'"
    command = ("fusion=self,cross", "--detach", "hydra.launcher.report=true", tell)
    held = ("+hydra.launcher.sbatch.hold=true", "+hydra.launcher.report_job.sbatch={}")
    for _ in range(2):  # the second finds that job, too
        code, out, err = sweep.run(*command, *held, FAIL="cross")
        assert code == 0, err
        assert "a last job makes the report and notifies when they have ended" in out
    report = sweep.root / "reports" / "t" / "index.html"
    assert not report.exists()
    *cells, last = sorted(sweep.cluster.jobs())
    assert len(cells) == 2
    assert "Dependency" in sweep.cluster.call("squeue", "-h", "-j", last, "-o", "%r")
    sweep.cluster.call("scontrol", "release", cells[0].partition("_")[0])
    sweep.cluster.wait_until_empty()
    assert {name: run.status for name, run in sweep.cells.items()} == {
        "self": "done",
        "cross": "failed",
    }
    log = "".join(file.read_text() for file in sweep.root.glob("outputs/t/.slurm/*report/*_log.*"))
    assert report.exists(), log
    assert "cross" in report.read_text()
    told = json.loads(heard.read_text())
    assert (told["state"], told["done"], told["failed"]) == ("failed", 1, 1)
    assert told["report"] == str(report)


def test_what_is_asked_for_reaches_the_job_and_srun_starts_a_process_for_each_gpu(sweep):
    code, _, err = sweep.run(
        "fusion=self",
        "hydra.launcher.gpus=2",
        "hydra.launcher.processes=2",
        "hydra.launcher.memory=500M",
        "hydra.launcher.partition=low",
        "hydra.launcher.setup=['export MESSAGE=hello']",
        "+hydra.launcher.sbatch.nice=3",
        "hydra.launcher.srun=['--export=ALL,ALSO=there']",
        "hydra.launcher.cpus_per_task=2",
    )
    assert code == 0, err
    path = sweep.cells["self"].path
    told = [(path / f"rank{rank}.txt").read_text().split() for rank in range(2)]
    assert [(local, count) for local, count, _ in told] == [("0", "2"), ("1", "2")]
    assert told[0][2] == told[1][2]
    assert sweep.starts("self") == 1
    assert (path / "log.1.txt").exists()
    seen = sweep.cells["self"].info["environment"]
    assert sorted(seen["CUDA_VISIBLE_DEVICES"].split(",")) == ["0", "1"]
    assert (seen["KEYSEG_THREADS"], seen["MESSAGE"], seen["ALSO"]) == ("2", "hello", "there")


def test_a_sweep_that_is_started_inside_a_job_hands_nothing_of_that_on(sweep):
    """SLURM_MEM_PER_CPU of the outer job would be an error of every cell."""
    command = sweep.command("fusion=self,cross", "hydra.launcher.memory=300M")
    done = subprocess.run(
        ["salloc", "-Q", "--mem-per-cpu=100", *command],
        cwd=sweep.root,
        env=sweep.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {run.status for run in sweep.cells.values()} == {"done"}


def test_a_worker_without_srun_hears_what_slurm_sends(sweep):
    process = sweep.start("fusion=self", "hydra.launcher.use_srun=false", HANG="self", OBEY="self")
    sweep.wait_for("self")
    sweep.cluster.call("scancel", "--batch", "--signal=USR2", sweep.job("self"))
    sweep.wait(lambda: sweep.starts("self") == 2)  # stopped, queued again, begun
    sweep.go("self")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err


def test_gpus_of_a_kind_with_cores_and_memory_of_each(sweep):
    code, out, err = sweep.run(
        "fusion=self",
        "hydra.launcher.gpus=2",
        "hydra.launcher.cpus_per_gpu=2",
        "hydra.launcher.mem_per_gpu=200M",
        "hydra.launcher.comment='two words'",
    )
    assert code == 0, out + err
    assert sweep.cells["self"].info["environment"]["KEYSEG_THREADS"] == "4"


def test_python_that_is_not_on_the_node_is_named(sweep):
    for use_srun in ("true", "false"):
        code, out, _ = sweep.run(
            "fusion=self",
            "hydra.launcher.python=/nowhere/python",
            f"hydra.launcher.use_srun={use_srun}",
        )
        assert code == 1
        assert "there is no /nowhere/python on that node" in out, out


def test_setup_that_fails_ends_the_job_and_says_what(sweep):
    code, out, _ = sweep.run("fusion=self", "hydra.launcher.setup=['module load nothing']")
    assert code == 1
    assert "module: command not found" in out, out
    assert sweep.starts("self") == 0


def test_why_a_job_waits_is_said_and_shown(sweep):
    sweep.cluster.call("scontrol", "update", "partitionname=low", "maxtime=30")
    try:
        where = ("hydra.launcher.partition=low", "hydra.launcher.time=60")
        process = sweep.start("fusion=self,cross", *where)
        sweep.wait(lambda: len(sweep.cluster.jobs("PENDING")) == 2)
        sweep.wait(lambda: "2 cells wait: Partition" in sweep.keyseg("status", "t")[1], 60)
        _, shown, _ = sweep.keyseg("status", "t")
        assert "(Partition" in shown
        assert "hydra.launcher.time" in shown
        assert sweep.keyseg("cancel", "t")[0] == 0
        out, _ = process.communicate(timeout=60)
        assert "2 jobs wait: Partition" in out
    finally:
        sweep.cluster.call("scontrol", "update", "partitionname=low", "maxtime=UNLIMITED")


def test_jobs_that_wait_are_told_to_avoid_a_node(sweep, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", sweep.cluster.environment["SLURM_CONF"])
    held = "+hydra.launcher.sbatch.hold=true"
    code, _, err = sweep.run("fusion=self,cross", held, "--detach")
    assert code == 0, err
    node = sweep.cluster.call("hostname", "-s").strip()
    array = sweep.job("self").partition("_")[0]
    queue.avoid([array], node)
    assert f"ExcNodeList={node}" in sweep.cluster.call("scontrol", "show", "job", array)


def test_what_sbatch_refuses_leaves_no_job_that_is_gone(sweep):
    code, _, err = sweep.run("fusion=self,cross", "hydra.launcher.partition=nope")
    assert code == 2
    assert "invalid partition specified: nope; Batch job submission failed" in err
    code, out, _ = sweep.keyseg("status", "t")
    assert code == 0
    assert "gone" not in out
    assert "0 of 2 done · 2 stopped" in out  # and nobody works on them
