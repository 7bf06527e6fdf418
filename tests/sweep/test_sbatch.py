"""What is asked of SLURM for cells that share a job, have several processes, or wait for others."""

import pytest

from keyseg.config import ConfigError
from keyseg.runs.run_directory import EXIT_BUSY, EXIT_STOPPED
from keyseg.sweep.pool import job_ends
from keyseg.sweep.slurm.job import CommandJob, WorkerFailedError
from keyseg.sweep.slurm.launcher import SlurmLauncher
from keyseg.sweep.slurm.queue import SlurmError
from keyseg.sweep.slurm.sbatch import Sbatch, SlurmOptions, check, report_options, script
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processes": 3, "gpus": 2}, "processes=3: must be 1, or as many as hydra.launcher.gpus"),
        ({"processes": 2, "gpus": 2, "cells_per_job": 2}, "cells of several processes"),
        ({"report_job": {"partitoin": "cpu"}}, "no such option; meant partition?"),
        ({"cells_per_job": 0}, "cells_per_job=0: must be above 0"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(ConfigError, match=words):
        check(SlurmOptions(**options))


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
