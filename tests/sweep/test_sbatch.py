"""What is asked of SLURM for cells that share a job, have several processes, or wait for others."""

import os
import sys

import pytest

from keyseg.config import ConfigError
from keyseg.runs.run_directory import EXIT_BUSY, EXIT_STOPPED
from keyseg.sweep.pool import job_ends
from keyseg.sweep.slurm.job import CellJob, CommandJob, WorkerFailedError, stuck
from keyseg.sweep.slurm.launcher import SlurmLauncher
from keyseg.sweep.slurm.options import SlurmOptions, check, report_options
from keyseg.sweep.slurm.queue import SlurmError
from keyseg.sweep.slurm.sbatch import Sbatch, SubmitLimit, script
from keyseg.worker import precompute


def test_packed_cells_need_fewer_jobs(tmp_path):
    options = SlurmOptions(cells_per_job=3)
    assert "#SBATCH --array=0-2%3\n" in script(options, "t", tmp_path, tmp_path, 8)
    assert "--array" not in script(options, "t", tmp_path, tmp_path, 3)


def test_one_process_for_each_gpu(tmp_path):
    text = script(SlurmOptions(gpus=4, processes=4), "t", tmp_path, tmp_path, 1)
    assert "#SBATCH --ntasks-per-node=4\n" in text
    assert "--cpus-per-task=2 --kill-on-bad-exit=1" in text.split("srun", 1)[1]
    assert "ntasks" not in script(SlurmOptions(gpus=4), "t", tmp_path, tmp_path, 1)


@pytest.mark.parametrize(("gpus", "each"), [(8, 8), ("a100:4", 4), (None, 1)])
def test_a_cell_of_several_nodes_has_a_process_for_each_gpu(tmp_path, gpus, each):
    options = SlurmOptions(nodes=2, gpus=gpus)
    check(options)
    text = script(options, "t", tmp_path, tmp_path, 1)
    assert "#SBATCH --nodes=2\n" in text
    assert f"#SBATCH --ntasks-per-node={each}\n" in text
    assert (f"#SBATCH --gpus-per-node={gpus}\n" in text) is bool(gpus)
    assert "--kill-on-bad-exit=1" in text.split("srun", 1)[1]
    assert not report_options(options).together


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes": 0}, "nodes=0: must be above 0"),
        ({"nodes": 2, "cells_per_job": 2}, "cells of several processes"),
        ({"nodes": 2, "gpus": 4, "use_srun": False}, "use_srun=false: srun starts the 8"),
        ({"processes": 3, "gpus": 2}, "processes=3: must be 1, or as many as hydra.launcher.gpus"),
        ({"processes": 2, "gpus": 2, "cells_per_job": 2}, "cells of several processes"),
        ({"report_job": {"partitoin": "cpu"}}, "no such option; meant partition?"),
        ({"cells_per_job": 0}, "cells_per_job=0: must be above 0"),
        ({"processes": 2, "gpus": "a100:4"}, "processes=2: must be 1, or as many"),
        ({"gpus": "a100"}, "gpus=a100: give a number, or a kind and a number: a100:2"),
        ({"gpus": "a100:0"}, "gpus=a100:0: give a number"),
        ({"gpus": -1}, "gpus=-1: give a number"),
        ({"gpus": 2, "processes": 2, "use_srun": False}, "use_srun=false: srun starts the 2"),
        ({"mem_per_gpu": "20G"}, "mem_per_gpu=20G: there are no GPUs"),
        ({"cpus_per_gpu": 4, "gpus": 0}, "cpus_per_gpu=4: there are no GPUs"),
        ({"cpus_per_gpu": 0, "gpus": 1}, "cpus_per_gpu=0: must be above 0"),
        ({"mem_per_gpu": "2G", "memory": "9G", "gpus": 1}, "SLURM takes one of them"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(ConfigError, match=words):
        check(SlurmOptions(**options))


def test_named_options_reach_the_script(tmp_path):
    options = SlurmOptions(
        gpus="a100:2",
        cpus_per_gpu=6,
        mem_per_gpu="40G",
        gres="craynetwork:1",
        exclude="n[1-3],n7",
        comment="two words",
        python="apptainer exec my.sif python",
        setup=["module load cuda"],
    )
    check(options)
    text = script(options, "t", tmp_path, tmp_path, 4)
    for line in (
        "--gpus-per-node=a100:2",
        "--cpus-per-gpu=6",
        "--mem-per-gpu=40G",
        "--gres=craynetwork:1",
        "--exclude='n[1-3],n7'",
        "--comment='two words'",
    ):
        assert f"#SBATCH {line}\n" in text
    assert "cpus-per-task" not in text
    assert "apptainer exec my.sif python -u -m submitit" in text.split("srun", 1)[1]
    assert options.threads == 12
    lines = text.splitlines()
    at = lines.index("module load cuda")
    assert (lines[at - 1], lines[at + 1]) == ("set -e", "set +e")
    launcher = SlurmLauncher(python="apptainer exec my.sif python")
    assert launcher.worker == ["apptainer", "exec", "my.sif", "python", "-m", "keyseg.worker"]


def test_without_srun_the_signal_goes_to_the_worker_itself(tmp_path):
    text = script(SlurmOptions(use_srun=False), "t", tmp_path, tmp_path, 1)
    assert "#SBATCH --signal=B:USR2@120\n" in text
    assert "\nsrun " not in text
    assert f"\nexec {sys.executable} -u -m submitit" in text


def test_gpus_of_a_kind_are_counted():
    check(SlurmOptions(gpus="a100:2", processes=2))
    assert SlurmOptions(gpus="a100:2").gpu_count == 2
    assert SlurmOptions(gpus=3).gpu_count == 3
    assert SlurmOptions().gpu_count is None


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A program sbatch that says this, and fails."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def sbatch(*said: str) -> Sbatch:
        lines = "".join(f'echo "{line}" >&2\n' for line in said)
        environment = f"env >{tmp_path}/environment\n"
        (tmp_path / "sbatch").write_text(f"#!/bin/sh\n{environment}{lines}exit {int(bool(said))}\n")
        for name in ("sbatch", "srun"):
            (tmp_path / name).touch()
            (tmp_path / name).chmod(0o755)
        return Sbatch(SlurmOptions(), tmp_path / "t")

    return sbatch


LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit",
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
    "limit, user's size and/or time limits)",
)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (LIMIT, SubmitLimit, "QOSMaxSubmitJobPerUserLimit; Batch job submission failed: Job viol"),
        (
            ("sbatch: unrecognized option '--bad'", "Try 'sbatch --help' for more information"),
            ConfigError,
            r"refuses the job: unrecognized option '--bad' \(hydra",
        ),
        (
            ("sbatch: error: invalid partition specified: nope", "sbatch: error: Batch job failed"),
            ConfigError,
            "invalid partition specified: nope; Batch job failed",
        ),
        (("sbatch: error: Unable to contact slurm controller",), SlurmError, "^Unable to contact"),
    ],
)
def test_what_sbatch_says_is_told_whole(sbatch, said, error, words):
    with pytest.raises(error, match=words):
        sbatch(*said)("t-a", [CommandJob([["true"]], 1)])


def test_a_job_inherits_nothing_of_the_job_that_it_is_submitted_from(sbatch, monkeypatch, tmp_path):
    for name in ("SLURM_MEM_PER_CPU", "SLURM_JOB_ID", "SLURM_CONF", "PMIX_RANK", "MINE"):
        monkeypatch.setenv(name, "7")
    with pytest.raises(ConfigError):
        sbatch("sbatch: error: no")("t-a", [CommandJob([["true"]], 1)])
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert names & {"SLURM_MEM_PER_CPU", "SLURM_JOB_ID", "PMIX_RANK"} == set()
    assert {"SLURM_CONF", "MINE"} <= names
    assert os.environ["SLURM_MEM_PER_CPU"] == "7"  # here, nothing changes


def test_the_report_needs_no_gpu():
    asked = SlurmOptions("gpu", gpus=2, processes=2, memory="90G", report_job={"partition": "cpu"})
    report = report_options(asked)
    assert (report.partition, report.gpus, report.processes) == ("cpu", None, 1)
    assert report.memory == "90G"


class Submissions(Sbatch):
    """Notes what would be submitted; `refuse`: the name that SLURM has no answer for."""

    def __init__(self, folder, refuse=None):
        self.cancelled = []
        self.seen = []
        self.refuse = refuse
        super().__init__(SlurmOptions(), folder, cancel=self.cancelled.extend)

    def _submit(self, options, name, jobs, after=()):
        if name == self.refuse:
            raise SlurmError("timed out")
        self.seen.append((name, list(after)))
        return f"{70 + len(self.seen)}"


def test_cells_wait_once_for_what_prepares_them(tmp_path):
    sbatch = Submissions(tmp_path)
    sbatch.prepare = CommandJob([["true"]], 1)
    sbatch("t-a", [])
    sbatch("t-b", [])  # cells whose node was lost
    assert sbatch.seen == [("t-a-prepare", []), ("t-a", ["71"]), ("t-b", [])]


def test_nothing_is_prepared_for_cells_that_were_not_submitted(tmp_path):
    sbatch = Submissions(tmp_path, refuse="t-a")
    sbatch.prepare = CommandJob([["true"]], 1)
    with pytest.raises(SlurmError):
        sbatch("t-a", [])
    assert sbatch.cancelled == ["t-a-prepare"]
    assert sbatch.prepare is not None


def test_features_are_filled_once_before_several_jobs(make_cell, tmp_path, monkeypatch):
    data = f"paths.data={tmp_path / 'data'}"
    cells = [make_cell(name, data) for name in ("self", "cross")]
    job = SlurmLauncher().prepare_job(cells)
    assert job is not None
    (command,) = job.commands
    assert command[1:3] == ["-m", "keyseg.worker.precompute"]
    assert len(command) == 4  # the same images and encoders: one of the cells stands for both
    assert SlurmLauncher().prepare_job(cells[:1]) is None
    assert SlurmLauncher(cells_per_job=2).prepare_job(cells) is None
    assert SlurmLauncher(features=True).prepare_job(cells[:1]) is not None
    assert SlurmLauncher(features=False).prepare_job(cells) is None
    for cell in cells:
        cell.config.runtime.features = False
    assert SlurmLauncher().prepare_job(cells) is None
    for cell in cells:
        cell.config.runtime.features = True
    precompute.marker(cells[0].config).parent.mkdir(parents=True)
    precompute.marker(cells[0].config).touch()
    assert SlurmLauncher().prepare_job(cells) is None


def test_commands_of_a_job_all_run(tmp_path):
    job = CommandJob([["false"], ["touch", str(tmp_path / "done")]], 1)
    with pytest.raises(WorkerFailedError, match="failed: false"):
        job()
    assert (tmp_path / "done").exists()


def test_how_runs_of_one_worker_share_its_end(make_cell):
    runs = [make_cell("self", seed=seed).create() for seed in range(3)]
    runs[0].update(status="done")
    paths = [run.path for run in runs]
    codes = {code: [end.code for end in job_ends(paths, code)] for code in (3, EXIT_STOPPED)}
    assert codes == {3: [0, 3, EXIT_STOPPED], EXIT_STOPPED: [0, EXIT_STOPPED, EXIT_STOPPED]}
    assert [end.code for end in job_ends(paths, EXIT_BUSY)] == [0, EXIT_BUSY, EXIT_BUSY]
    assert [end.code for end in job_ends(paths[:1], -9)] == [-9]


@pytest.mark.parametrize(
    ("reached", "is_stuck"),
    [
        ([[4, 0]], False),
        ([[0, 0], [0, 0]], True),  # never past its loading
        ([[4, 0], [4, 0]], False),  # the first of them got somewhere
        ([[4, 0], [4, 0], [4, 0]], True),
        ([[8, 1], [8, 1], [8, 2]], False),
        ([[8, 1], None, [8, 1]], False),  # killed in between, not stopped
    ],
)
def test_two_attempts_that_get_nowhere(make_cell, reached, is_stuck):
    run = make_cell("self").create()
    run.update(attempts=[{"started": 1.0} | ({"reached": r} if r else {}) for r in reached])
    assert stuck(run) is is_stuck


def test_a_job_too_short_to_get_on_fails_and_names_the_option(make_cell, tmp_path):
    run = make_cell("self").create()
    attempts = [{"started": 1.0, "ended": 2.0, "reached": [8, 3]}] * 3
    run.update(attempts=attempts, status="queued")
    CellJob([str(run.path)], ["worker"], 1, minutes=60)._give_up_if_stuck([str(run.path)], 100.0)
    assert run.status == "queued"  # preempted after 100 s: nobody's fault
    with pytest.raises(WorkerFailedError, match="no further than 3 batches of the test split"):
        CellJob([str(run.path)], ["worker"], 1, minutes=60)._give_up_if_stuck([str(run.path)], 3400)
    assert run.status == "failed"
    assert "hydra.launcher.time=60 is too short" in run.info["error"]
