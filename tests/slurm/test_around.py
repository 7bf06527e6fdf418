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
