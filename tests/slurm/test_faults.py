"""What dies, and what becomes of the cells. The table at the end of the run is made from these."""

import os
import signal
import time

import pytest


@pytest.fixture
def outcome(sweep, faults):
    """Note a line of the table once the cell is done, and was worked on as often as expected."""

    def outcome(fault: str, said: str, starts: int, cell: str = "self") -> None:
        assert sweep.cells[cell].status == "done"
        assert sweep.starts(cell) == starts
        faults.append((fault, said, starts))

    return outcome


def ended(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def error(sweep, cell: str = "self") -> str:
    return str(sweep.cells[cell].info["error"])


def again(sweep) -> None:
    code, _, err = sweep.run("fusion=self")
    assert code == 0, err


def test_scancel(sweep, outcome):
    process = sweep.start("fusion=self", HANG="self")
    sweep.wait_for("self")
    sweep.cluster.call("scancel", *sweep.cluster.jobs())
    code, _, err = ended(process)
    assert code == 1, err
    assert "was cancelled" in error(sweep)
    again(sweep)
    outcome("scancel by somebody", "failed: was cancelled; same command: done", 2)


def test_the_worker_is_killed(sweep, outcome):
    code, _, _ = sweep.run("fusion=self", DIE="self")
    assert code == 1
    assert "the worker was killed by SIGKILL" in error(sweep)
    again(sweep)
    outcome(
        "SIGKILL of the worker", "failed: the worker was killed by SIGKILL; same command: done", 2
    )


def test_the_step_is_killed(sweep, outcome):
    process = sweep.start("fusion=self", HANG="self")
    sweep.wait_for("self")
    sweep.cluster.call("scancel", "--signal=KILL", *sweep.cluster.jobs())
    code, _, _ = ended(process)
    assert code == 1
    assert "SIGKILL" in error(sweep) or "was cancelled" in error(sweep), error(sweep)
    again(sweep)
    outcome("SIGKILL of a job step", "failed, with the reason; same command: done", 2)


def test_a_node_is_lost(sweep, outcome):
    process = sweep.start("fusion=self", STEP_SECONDS="1")
    sweep.wait_for("self")
    node = sweep.cluster.call("sinfo", "-h", "-o", "%N").split()[0]
    sweep.cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(1)
    sweep.cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    code, _, err = ended(process)
    assert code == 0, err
    outcome("node lost", "queued again by itself: done", 2)


def test_slurmd_is_killed_and_comes_back(sweep, outcome):
    process = sweep.start("fusion=self", STEP_SECONDS="1")
    sweep.wait_for("self")
    os.kill(sweep.cluster.pid("slurmd"), signal.SIGKILL)
    time.sleep(1)
    sweep.cluster.up()
    code, _, err = ended(process)
    assert code == 0, err
    outcome("SIGKILL of slurmd, started again", "the job goes on: done", 1)


def test_the_controller_is_down_while_we_wait(sweep, outcome):
    process = sweep.start("fusion=self", STEP_SECONDS="0.5")
    sweep.wait_for("self")
    os.kill(sweep.cluster.pid("slurmctld"), signal.SIGKILL)
    sweep.wait(lambda: sweep.cells["self"].status == "done")
    code, _, err = ended(process)
    sweep.cluster.up()
    assert code == 0, err
    outcome("slurmctld down while cells run", "seen done in the run directory", 1)


def test_the_controller_is_down_when_we_submit(sweep, outcome):
    os.kill(sweep.cluster.pid("slurmctld"), signal.SIGKILL)
    process = sweep.start("fusion=self")
    time.sleep(6)
    assert process.poll() is None
    sweep.cluster.up()
    code, out, err = ended(process)
    assert code == 0, err
    assert "SLURM does not answer" in out
    assert "SLURM answers again" in out
    outcome("slurmctld down at submit", "says so, asks again, submits when it is back: done", 1)


def test_the_launching_process_is_killed(sweep, outcome):
    process = sweep.start("fusion=self", STEP_SECONDS="1")
    sweep.wait_for("self")
    process.kill()
    process.communicate()
    again(sweep)
    outcome("SIGKILL of the launching process", "same command comes back to the job: done", 1)


def test_a_cell_runs_out_of_memory(sweep, outcome):
    code, _, _ = sweep.run("fusion=self", "hydra.launcher.memory=300M", EAT="self")
    assert code == 1
    assert "out of memory" in error(sweep), error(sweep)
    again(sweep)
    outcome("out of memory", "failed: ran out of memory; same command: done", 2)


def test_without_accounting(sweep, outcome, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sacct").write_text("#!/bin/sh\necho no accounting here >&2\nexit 1\n")
    (programs / "sacct").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    process = sweep.start("fusion=self", HANG="self", PATH=path)
    sweep.wait_for("self")
    sweep.cluster.call("scancel", *sweep.cluster.jobs())
    code, _, _ = ended(process)
    assert code == 1
    assert "was cancelled" in error(sweep)
    code, _, err = sweep.run("fusion=self", PATH=path)
    assert code == 0, err
    outcome("sacct missing, and scancel", "failed: was cancelled; same command: done", 2)
