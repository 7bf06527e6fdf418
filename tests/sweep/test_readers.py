"""Who reads finished runs on other data: a made-up cluster, launchers, and what cannot be asked."""

import json
from types import SimpleNamespace

import pytest

from keyseg.config import ConfigError
from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep import readers
from keyseg.sweep.local.launcher import LocalLauncher
from keyseg.sweep.pool import Ended
from keyseg.sweep.slurm import reconcile
from keyseg.sweep.slurm.queue import Job, SlurmError
from keyseg.sweep.slurm.readers import SlurmReaders
from keyseg.sweep.supervise import NO_SPACE


class Cluster:
    """Takes submissions, and says what it is told of jobs; a clock that is moved by hand."""

    def __init__(self, sweep_dir, cells_per_job=1):
        self.sweep_dir = sweep_dir
        self.options = SimpleNamespace(cells_per_job=cells_per_job, poll=1.0, threads=2)
        self.submissions, self.jobs, self.time, self.down = {}, {}, 0.0, False

    def __call__(self, name, jobs):
        self.submissions[name] = [job.commands[0] for job in jobs]
        self.jobs |= {(name, n): Job(f"7_{n}", "PENDING") for n in range(len(jobs))}

    def look(self, names):
        if self.down:
            raise SlurmError("no answer")
        return {key: job for key, job in self.jobs.items() if key[0] in names}

    def pool(self):
        return SlurmReaders(self, ["keyseg", "evaluate"], look=self.look, clock=lambda: self.time)

    def become(self, state, index=0):
        for name in self.submissions:
            self.jobs[name, index] = Job(f"7_{index}", state, node="n1")
        self.time += 2


@pytest.fixture
def runs(tmp_path, run_config):
    names = ("a", "b", "c")
    return [RunDirectory.create(tmp_path / "t" / n, run_config, label=n) for n in names]


def started(cluster, runs):
    pool = cluster.pool()
    for run in runs:
        assert pool.free() > 0
        pool.start(run)
    assert pool.poll() == []
    return pool


def test_an_array_reads_them_and_whoever_comes_later_waits_for_it(tmp_path, runs):
    cluster = Cluster(tmp_path / "t", cells_per_job=2)
    pool = started(cluster, runs)
    [(name, commands)] = cluster.submissions.items()
    assert [c[2:] for c in commands] == [[str(r.path) for r in runs[:2]], [str(runs[2].path)]]
    assert json.loads((runs[2].evaluations / "job.json").read_text()) == [name, 1]
    later = started(cluster, runs)
    assert list(cluster.submissions) == [name]
    cluster.become("RUNNING")
    assert pool.poll() == later.poll() == []
    cluster.become("COMPLETED")
    assert {end.path for end in later.poll()} == {runs[0].path, runs[1].path}
    cluster.become("FAILED", index=1)
    [end] = later.poll()
    assert end == Ended(runs[2].path, 1, reason=end.reason)
    assert "job 7_1 on n1 ended as FAILED" in end.reason
    assert pool.stop() == [run.path for run in runs]  # it never looked again: let go of
    again = started(cluster, runs[2:])
    assert len(cluster.submissions) == 2
    assert again.stop() == [runs[2].path]


def test_a_full_disk_is_named_where_slurm_knows_no_exit_code(tmp_path, runs, monkeypatch):
    cluster = Cluster(tmp_path / "t")
    pool = started(cluster, runs[:1])
    cluster.become("FAILED")
    monkeypatch.setattr(disk, "is_full", lambda folder: folder == runs[0].path)
    [end] = pool.poll()
    assert NO_SPACE in end.reason


def test_keyseg_cancel_ends_them_too(tmp_path, runs, monkeypatch):
    cluster = Cluster(tmp_path / "t")
    started(cluster, runs[:1])
    ended = []
    monkeypatch.setattr(reconcile.queue, "look", cluster.look)
    monkeypatch.setattr(reconcile.queue, "cancel", ended.extend)
    assert reconcile.cancel(tmp_path / "t") == 1
    assert ended == list(cluster.submissions)


def test_a_cluster_that_is_silent_ends_nothing(tmp_path, runs):
    cluster = Cluster(tmp_path / "t")
    cluster.down = True
    with pytest.raises(ConfigError, match="SLURM does not answer"):
        started(cluster, runs[:1])
    cluster.down = False
    pool = started(cluster, runs[:1])
    cluster.time, cluster.down = 2.0, True
    assert pool.poll() == []
    cluster.down = False
    cluster.jobs.clear()  # it has forgotten a job that ended, or shows a new one late
    for cluster.time in (4.0, 6.0):
        assert pool.poll() == []
    cluster.time = 9.0
    assert pool.poll() == [Ended(runs[0].path, 0)]


def test_every_run_is_started_once_and_all_must_be_there(runs):
    class Two:
        at_work: list[RunDirectory] = []  # noqa: RUF012

        def free(self):
            return 2 - len(self.at_work)

        def start(self, run):
            assert len(self.at_work) < 2
            self.at_work.append(run)

        def poll(self):
            return [Ended(self.at_work.pop(0).path, 0)] if self.at_work else []

    tasks = [SimpleNamespace(run=run, number=n) for run in runs for n in (1, 2)]
    told = []

    def said(task, ended):
        assert ended.path == task.run.path
        told.append(task)
        return task.run != runs[1]

    assert not readers.read(tasks, Two(), said, detach=False)
    assert told == tasks
    assert readers.read(tasks[:2], Two(), said, detach=False)


def test_the_launcher_is_the_one_that_sweeps_have():
    words = ["fusion", "hydra/launcher=local", "data=x", "hydra.launcher.n_jobs=3"]
    rest, these = readers.chosen(words)
    assert rest == ["fusion", "data=x"]
    made = readers.launcher(these, detach=False)
    assert isinstance(made, LocalLauncher)
    assert made.n_jobs == 3
    assert readers.launcher([], detach=False) is None
    assert readers.launcher(["hydra/launcher=debug"], detach=False) is None


@pytest.mark.parametrize(
    ("words", "detach", "message"),
    [
        (["hydra.launcher.gpus=1"], False, "gpus=1: of which launcher"),
        ([], True, "--detach: of which launcher"),
        (["hydra/launcher=local"], True, "hydra/launcher=slurm has jobs that go on"),
        (["hydra/launcher=slrum"], False, "Did you mean 'slurm'"),
        (["hydra/launcher=slurm", "hydra.launcher.gpu=1"], False, "hydra.launcher.gpus"),
    ],
)
def test_what_no_launcher_does(words, detach, message):
    with pytest.raises(ConfigError, match=message):
        readers.launcher(words, detach=detach)
