"""What `keyseg status` and `keyseg cancel` make of jobs that wait, work, fail and go away."""

import pytest

from keyseg.sweep.slurm.pool import Submission


def test_states_jobs_and_nodes_are_shown_and_cancel_ends_them(sweep):
    command = ("fusion=self,cross,full", "hydra.launcher.array_parallelism=2")
    leave = ("--detach", "hydra.launcher.report=true")
    code, out, err = sweep.run(*command, *leave, FAIL="self", HANG="cross")
    assert code == 0, err
    assert "a last job makes the report" in out
    sweep.wait_for("full")
    sweep.wait(lambda: sweep.cells["full"].status == "done")
    code, out, err = sweep.keyseg("status", "t", "--failed")
    assert code == 0, err
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    node = sweep.cluster.call("hostname", "-s").strip()
    assert "failed" in lines["self"]
    assert "running" in lines["cross"]
    assert f" {node} " in lines["cross"]
    assert "_1 " in lines["cross"]
    assert "done" in lines["full"]
    assert "RuntimeError: no luck today" in out
    assert f"log: {sweep.cells['self'].log_file}" in out

    code, out, _ = sweep.keyseg("cancel", "t")
    assert code == 0
    assert "t: 1 job cancelled; the command of the sweep goes on" in out
    sweep.cluster.wait_until_empty()
    assert not (sweep.root / "reports").exists()  # the last job went, too
    code, out, err = sweep.keyseg("status", "t")
    assert code == 0, err
    assert "cross" in out, out
    assert "stopped" in next(line for line in out.splitlines() if line.split()[:1] == ["cross"])
    code, _, err = sweep.keyseg("cancel", "t")
    assert code == 1
    assert err == "t: no job is queued or at work\n"
    code, _, err = sweep.run(*command)
    assert code == 0, err
    assert {name: sweep.starts(name) for name in sweep.cells} == {"self": 2, "cross": 2, "full": 1}


@pytest.mark.parametrize("by", ["scancel", "keyseg cancel"])
def test_a_followed_sweep_that_is_cancelled_while_it_waits_stays_cancelled(sweep, by, faults):
    command = ("fusion=self,cross,full,cross_self", "hydra.launcher.array_parallelism=1")
    process = sweep.start(*command, HANG="self")
    sweep.wait_for("self")
    if by == "scancel":
        sweep.cluster.call("scancel", sweep.job("self").partition("_")[0])
    else:
        code, _, err = sweep.keyseg("cancel", "t")
        assert code == 0, err
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "error: 4 of 4 cells failed" in err
    assert out.count("was cancelled") >= 4, out
    names = {Submission.read(run).name for run in sweep.cells.values()}
    assert len(names) == 1  # no second submission
    assert len(list(sweep.root.glob("outputs/t/.slurm/*"))) == 1
    code, out, err = sweep.keyseg("status", "t")
    assert "lost" not in out
    code, out, err = sweep.run(*command)
    assert code == 0, err
    assert [sweep.starts(name) for name in ("self", "cross")] == [2, 1]
    faults.append((f"{by} of an array, most of it waiting", "failed: cancelled; done again", 2))


def test_an_array_that_never_began_is_cancelled_not_lost(sweep):
    held = "+hydra.launcher.sbatch.hold=true"
    process = sweep.start("fusion=self,cross,full", held)
    sweep.wait(lambda: len(sweep.cluster.jobs("PENDING")) == 3)
    name = Submission.read(sweep.cells["self"]).name
    sweep.cluster.call("scancel", "--name", name)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "was cancelled" in out
    assert {Submission.read(run).name for run in sweep.cells.values()} == {name}
    code, out, err = sweep.keyseg("status", "t")
    assert code == 0, err
    assert "lost" not in out
