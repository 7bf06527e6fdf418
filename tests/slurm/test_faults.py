"""What dies, and what becomes of the cells. The table at the end of the run is made from these."""

import pytest


@pytest.fixture
def outcome(sweep, faults):
    """Note a line of the table once the cell is done, and was worked on no more than expected."""

    def outcome(fault: str, said: str, starts: int, cell: str = "self") -> None:
        assert sweep.cells[cell].status == "done"
        assert sweep.starts(cell) <= starts
        faults.append((fault, said, sweep.starts(cell)))

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
