"""Jobs that hold several cells, and the jobs before and after the array."""

import json


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
    command = ("fusion=self,cross", "--detach", "hydra.launcher.report=true")
    held = ("+hydra.launcher.sbatch.hold=true", "+hydra.launcher.report_job.sbatch={}")
    for _ in range(2):  # the second finds that job, too
        code, out, err = sweep.run(*command, *held, FAIL="cross")
        assert code == 0, err
        assert "a last job makes the report when they have ended" in out
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


def test_cancel_leaves_no_report_behind(sweep):
    command = ("fusion=self,cross", "--detach", "hydra.launcher.report=true")
    code, _, err = sweep.run(*command, HANG="self")
    assert code == 0, err
    assert sweep.keyseg("cancel", "t")[0] == 0
    sweep.cluster.wait_until_empty()
    assert not (sweep.root / "reports").exists()


def test_srun_starts_a_process_for_each_gpu(sweep):
    command = ("fusion=self", "hydra.launcher.gpus=2", "hydra.launcher.processes=2")
    code, _, err = sweep.run(*command)
    assert code == 0, err
    path = sweep.cells["self"].path
    told = [(path / f"rank{rank}.txt").read_text().split() for rank in range(2)]
    assert [(local, count) for local, count, _ in told] == [("0", "2"), ("1", "2")]
    assert told[0][2] == told[1][2]
    assert sweep.starts("self") == 1
    assert (path / "log.1.txt").exists()
