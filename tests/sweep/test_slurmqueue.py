"""What is read from squeue and sacct, with programs that print what those printed."""

import pytest

from keyseg.sweep.slurm import queue
from keyseg.sweep.slurm.queue import WHOLE_ARRAY, Job, Jobs, SlurmError


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program of this name first on the PATH; it notes its arguments in NAME.args."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def program(name: str, prints: str = "", *, code: int = 0, error: str = "") -> None:
        (tmp_path / f"{name}.out").write_text(prints)
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "$@" >>{tmp_path}/{name}.args\ncat {tmp_path}/{name}.out\n'
            f'[ -z "{error}" ] || echo "{error}" >&2\nexit {code}\n'
        )
        (tmp_path / name).chmod(0o755)

    return program


def test_squeue_first_and_sacct_for_what_it_forgot_or_ended(program, tmp_path):
    program(
        "squeue",
        "t-a|7_0|RUNNING|n1|None\nt-a|7_1|PENDING||Resources\nt-b|8|FAILED|n2|NonZeroExitCode\n",
    )
    program(
        "sacct",
        "t-b|8|FAILED|n2|2:0\nt-c|5_3|CANCELLED by 12|n3|0:15\nt-c|5_[4-9]|PENDING||0:0\n",
    )
    assert queue.look(["t-a", "t-b", "t-c", "t-d"]) == {
        ("t-a", 0): Job("7_0", "RUNNING", "n1", "None"),
        ("t-a", 1): Job("7_1", "PENDING", "", "Resources"),
        ("t-b", WHOLE_ARRAY): Job("8", "FAILED", "n2", "NonZeroExitCode", "2:0"),
        ("t-c", 3): Job("5_3", "CANCELLED", "n3", "CANCELLED by 12", "0:15"),
    }
    assert "--name t-b,t-c,t-d " in (tmp_path / "sacct.args").read_text()


def state_of(jobs: Jobs, index: int, *, begun: bool = False) -> str | None:
    job = jobs.of(("t-a", index), begun=begun)
    return job and job.state


@pytest.mark.parametrize(
    "lines",
    [
        "t-a|7|CANCELLED||JobHeldUser",  # as squeue 22.05 shows an array that never started
        "t-a|7_[0-3,8,9]|CANCELLED||None",
        "t-a|7_[0-9%4]|CANCELLED||None",
        "t-a|7_[0,2,4,...]|CANCELLED||None",  # cut by squeue
        "t-a|7_0|CANCELLED|n1|None\nt-a|7|CANCELLED||None",
        "t-a|7_0|COMPLETED|n1|None\nt-a|7_1|CANCELLED|n1|None",  # scancel 7_[2-9]: no record
    ],
)
def test_tasks_that_were_cancelled_before_they_began_are_cancelled(program, lines):
    program("squeue", lines + "\n")
    program("sacct", code=1, error="Slurm accounting storage is disabled")
    jobs = queue.look(["t-a"])
    assert [state_of(jobs, index) for index in (3, 8, 9)] == ["CANCELLED"] * 3


def test_accounting_tells_of_cancelled_arrays_too(program):
    program("squeue")
    program("sacct", "t-a|7_[0-99]|CANCELLED by 12||0:0\n")
    jobs = queue.look(["t-a"])
    assert [state_of(jobs, index) for index in (0, 99)] == ["CANCELLED"] * 2
    job = jobs.of(("t-a", 99), begun=False)
    assert job.reason == "CANCELLED by 12"


def test_a_job_that_worked_and_is_gone_is_lost_not_cancelled(program):
    program("squeue", "t-a|7_0|RUNNING|n1|None\n")
    jobs = queue.look(["t-a"])
    assert state_of(jobs, 1, begun=True) is None
    assert state_of(jobs, 1) == "CANCELLED"
    assert jobs.of(("t-b", 0), begun=False) is None


def test_accounting_is_asked_once_for_each_end(program, tmp_path):
    asked = tmp_path / "sacct.args"
    program("squeue", "t-a|7_0|FAILED|n1|NonZeroExitCode\nt-a|7_1|RUNNING|n1|None\n")
    program("sacct", "t-a|7_0|FAILED|n1|2:0\n")
    look = queue.JobLookup()
    for _ in range(3):
        assert look(["t-a"])["t-a", 0].exit_code == "2:0"
    assert asked.read_text().count("--name t-a") == 1
    program("squeue", "t-a|7_0|RUNNING|n2|None\nt-a|7_1|RUNNING|n1|None\n")  # queued again
    assert look(["t-a"])["t-a", 0].node == "n2"
    program("squeue", "t-a|7_0|COMPLETED|n2|None\nt-a|7_1|RUNNING|n1|None\n")
    program("sacct", "t-a|7_0|COMPLETED|n2|0:0\n")
    assert look(["t-a"])["t-a", 0].exit_code == "0:0"


def test_accounting_that_is_missing_is_not_asked_every_time(program, tmp_path):
    program("squeue", "t-a|7_0|FAILED|n1|NonZeroExitCode\n")
    program("sacct", code=1, error="Slurm accounting storage is disabled")
    moment = [100.0]
    look = queue.JobLookup(clock=lambda: moment[0])
    for moment[0] in (100.0, 110.0, 150.0, 161.0):
        look(["t-a"])
    assert (tmp_path / "sacct.args").read_text().count("--name t-a") == 2


@pytest.mark.parametrize(
    ("printed", "most"),
    [("MaxArraySize            = 51", 51), ("MaxArraySize = 4000001", 1000), ("", 1000)],
)
def test_the_largest_array_is_asked_for(program, printed, most):
    program("scontrol", f"Configuration\n{printed}\nMaxJobCount = 10000\n")
    queue.max_array.cache_clear()
    assert queue.max_array() == most
    queue.max_array.cache_clear()


def test_a_users_own_view_of_the_queue_hides_nothing(program, tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    program("squeue")
    (tmp_path / "squeue").write_text(f"#!/bin/sh\nenv >{tmp_path}/environment\n")
    queue.look(["t-a"])
    assert "SQUEUE_" not in (tmp_path / "environment").read_text()


def test_accounting_is_not_asked_without_need(program, tmp_path):
    program("squeue", "t-a|7_0|RUNNING|n1|None\n")
    program("sacct")
    queue.look(["t-a"])
    assert queue.look([]) == {}
    assert not (tmp_path / "sacct.args").exists()


def test_without_accounting_squeue_has_to_do(program):
    program("squeue", "t-a|7_0|FAILED|n1|NonZeroExitCode\n")
    program("sacct", code=1, error="Slurm accounting storage is disabled")
    assert queue.look(["t-a"])["t-a", 0].state == "FAILED"


def test_no_answer_is_an_error_with_the_reason(program):
    program("squeue", code=1, error="slurm_load_jobs error: Unable to contact slurm controller")
    program("sbatch")
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        queue.look(["t-a"])
    assert not queue.answers()
    program("squeue")
    assert queue.answers()


def test_cancel_by_name(program, tmp_path):
    program("scancel")
    queue.cancel(["t-b", "t-a", "t-b"])
    asked = (tmp_path / "scancel.args").read_text().replace("--name ", "").split()
    assert asked == ["t-a-report", "t-a", "t-a-prepare", "t-b-report", "t-b", "t-b-prepare"]
