"""Jobs as the pool sees them, with a cluster and a clock that are made up."""

import pytest

from keyseg.config import ConfigError
from keyseg.runs import disk
from keyseg.runs.run_directory import RunDirectory, now
from keyseg.sweep.local.launcher import LocalLauncher
from keyseg.sweep.slurm import reconcile
from keyseg.sweep.slurm.launcher import AutoLauncher, SlurmLauncher
from keyseg.sweep.slurm.nodes import Nodes
from keyseg.sweep.slurm.options import SlurmOptions, check
from keyseg.sweep.slurm.pool import SlurmPool, Submission, cancelled_marker, why
from keyseg.sweep.slurm.queue import WHOLE_ARRAY, Job, Jobs, SlurmError, prepare_name
from keyseg.sweep.slurm.reconcile import Overview, state_of
from keyseg.sweep.slurm.sbatch import SubmitLimit, script
from keyseg.sweep.status import Watch
from keyseg.sweep.supervise import NO_SPACE, Supervisor


class FakeCluster:
    """Knows jobs by name; the clock moves when it is told to."""

    def __init__(self) -> None:
        self.submissions: dict[str, list[str]] = {}
        self.jobs: dict[tuple[str, int], Job] = {}
        self.down = False
        self.most: int | None = None
        """Jobs that this user may have queued at a time."""
        self.avoided: list[tuple[list[str], str]] = []
        self.said: list[str] = []
        self.time = 0.0

    def submit(self, name, jobs):
        if self.down:
            raise SlurmError("Unable to contact slurm controller")
        queued = sum(job.state in ("PENDING", "RUNNING") for job in self.jobs.values())
        if self.most is not None and queued + len(jobs) > self.most:
            raise SubmitLimit("sbatch refuses the job: QOSMaxSubmitJobPerUserLimit")
        self.submissions[name] = [path for job in jobs for path in job.paths]
        for index in range(len(jobs)):
            self.jobs[(name, index)] = Job(f"7_{index}", "PENDING")

    def avoid(self, ids, nodes):
        self.avoided.append((ids, nodes))

    def look(self, names):
        if self.down:
            raise SlurmError("Unable to contact slurm controller")
        return {key: job for key, job in self.jobs.items() if key[0] in names}

    def all_become(self, state: str, **fields: str) -> None:
        self.jobs = {key: Job(job.id, state, **fields) for key, job in self.jobs.items()}

    def pool(self, sweep_dir, cells_per_job=1, max_array=1000) -> SlurmPool:
        return SlurmPool(
            self.submit,
            sweep_dir,
            slots=4,
            threads=1,
            cells_per_job=cells_per_job,
            every=2.0,
            look=self.look,
            cancel=lambda names: None,
            avoid=self.avoid,
            max_array=lambda: max_array,
            nodes=Nodes("n0"),
            clock=lambda: self.time,
            say=self.said.append,
        )


@pytest.fixture
def fake():
    return FakeCluster()


@pytest.fixture
def start(fake, tmp_path, make_cell):
    """A supervisor with cells that are submitted."""

    def start(
        *fusions: str, max_attempts: int = 3, cells_per_job: int = 1, max_array: int = 1000
    ) -> Supervisor:
        pool = fake.pool(tmp_path / "t", cells_per_job, max_array)
        supervisor = Supervisor(pool, max_attempts=max_attempts)
        for fusion in fusions:
            supervisor.add(make_cell(fusion))
        steps(supervisor, fake, 2)
        return supervisor

    return start


def steps(supervisor: Supervisor, fake: FakeCluster, count: int) -> None:
    for _ in range(count):
        supervisor.step()
        fake.time += 2.0


def ends(run: RunDirectory, status: str) -> None:
    attempts = [*run.info["attempts"], {"started": now(), "ended": now(), "seconds": 1.0}]
    run.update(status=status, attempts=attempts, error="no luck" if status == "failed" else None)


def test_all_cells_are_one_array_and_a_second_process_attaches(fake, start):
    first = start("self", "cross")
    second = start("self", "cross")
    assert [len(paths) for paths in fake.submissions.values()] == [2]
    assert set(first.states().values()) == {"queued"}
    fake.all_become("RUNNING")
    steps(first, fake, 1)
    assert set(first.states().values()) == {"running"}
    for path in first.states():
        ends(RunDirectory(path), "done")
    for supervisor in (first, second):
        steps(supervisor, fake, 1)
        assert [o.status for o in supervisor.outcomes] == ["done", "done"]


def test_a_code_error_is_not_tried_again(fake, start):
    supervisor = start("self")
    (path,) = supervisor.states()
    ends(RunDirectory(path), "failed")
    fake.all_become("FAILED", exit_code="1:0")
    steps(supervisor, fake, 4)
    assert [o.status for o in supervisor.outcomes] == ["failed"]
    assert RunDirectory(path).info["error"] == "no luck"
    assert len(fake.submissions) == 1


@pytest.mark.parametrize("gone", [False, True])
def test_a_lost_node_is_tried_again_until_it_is_too_often(fake, start, gone):
    supervisor = start("self", max_attempts=3)
    (path,) = supervisor.states()
    for attempt in range(1, 4):
        assert len(fake.submissions) == attempt
        if gone:
            fake.jobs.clear()
        else:
            fake.all_become("NODE_FAIL", node="n7")
        steps(supervisor, fake, 5)
    assert len(fake.submissions) == 3
    assert [o.status for o in supervisor.outcomes] == ["failed"]
    error = RunDirectory(path).info["error"]
    assert ("neither squeue nor sacct knows it" if gone else "job 7_0 on n7 was lost") in error
    assert error.endswith("3 attempts were lost (hydra.launcher.max_attempts)")


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("OUT_OF_MEMORY", "0:125", "ran out of memory (hydra.launcher.memory=...)"),
        ("CANCELLED", "0:15", "was cancelled"),
        ("FAILED", "0:9", "was killed by SIGKILL (out of memory?)"),
        ("FAILED", "74:0", "ended: no space left to write to (paths.outputs); make room"),
        ("FAILED", "2:0", "ended as FAILED before the run was done"),
    ],
)
def test_ends_that_no_new_attempt_mends_are_told(fake, start, state, code, words):
    supervisor = start("self")
    (path,) = supervisor.states()
    fake.all_become(state, exit_code=code)
    steps(supervisor, fake, 5)
    assert words in RunDirectory(path).info["error"]
    assert len(fake.submissions) == 1


def begins(run: RunDirectory) -> None:
    run.update(status="running", attempts=[*run.info["attempts"], {"started": now()}])


@pytest.mark.parametrize(
    ("state", "begun", "outcomes", "submissions"),
    [
        # one cell's own doing: those behind it are submitted again
        ("OUT_OF_MEMORY", True, {"cross0": "failed"}, 2),
        # before any began (a broken setup line): no other attempt would be better
        ("FAILED", False, {"cross0": "failed", "full0": "failed"}, 1),
        # somebody wants the job to end
        ("CANCELLED", True, {"cross0": "failed", "full0": "failed"}, 1),
        ("NODE_FAIL", True, {}, 2),
    ],
)
def test_what_a_job_that_died_means_for_its_cells(
    fake, start, tmp_path, state, begun, outcomes, submissions
):
    supervisor = start("self", "cross", "full", cells_per_job=3)
    assert [len(paths) for paths in fake.submissions.values()] == [3]
    assert [key[1] for key in fake.jobs] == [0]
    fake.all_become("RUNNING")
    runs = {name: RunDirectory(tmp_path / "t" / name) for name in ("self0", "cross0", "full0")}
    ends(runs["self0"], "done")
    if begun:
        begins(runs["cross0"])
    steps(supervisor, fake, 1)
    assert supervisor.states()[runs["full0"].path] == "queued"
    if not begun:  # nobody of those left, and the one that was done is not known here
        supervisor.pool._mates[next(iter(fake.jobs))].discard(runs["self0"].path)
    fake.all_become(state, exit_code="1:0")
    steps(supervisor, fake, 5)
    ended = {o.cell.signature: o.status for o in supervisor.outcomes}
    assert ended == {"self0": "done", **outcomes}
    assert len(fake.submissions) == submissions


def test_a_cell_that_failed_is_tried_again_while_its_job_goes_on(fake, start, tmp_path):
    start("self", "cross", cells_per_job=2)
    fake.all_become("RUNNING")
    run = RunDirectory(tmp_path / "t" / "self0")
    begins(run)
    ends(run, "failed")
    start("self", "cross", cells_per_job=2)  # the same command
    first, second = fake.submissions.values()
    assert len(first) == 2
    assert second == [str(run.path)]


@pytest.mark.parametrize("by", ["scancel", "scancel, forgotten", "keyseg cancel, all forgotten"])
def test_cells_whose_array_was_cancelled_before_it_began_are_not_submitted_again(
    fake, start, tmp_path, by
):
    supervisor = start("self", "cross", "full")
    (name,) = fake.submissions
    fake.jobs.clear()
    if by == "scancel":  # one record for all three
        fake.jobs[(name, WHOLE_ARRAY)] = Job("7", "CANCELLED", "", "JobHeldUser")
    elif by == "scancel, forgotten":  # of the other two SLURM keeps no record
        fake.jobs[(name, 0)] = Job("7_0", "CANCELLED", "", "CANCELLED by 12")
    else:
        marker = cancelled_marker(tmp_path / "t", name)
        marker.parent.mkdir(parents=True)
        marker.touch()
    steps(supervisor, fake, 5)
    assert [o.status for o in supervisor.outcomes] == ["failed"] * 3
    errors = {RunDirectory(o.cell.path).info["error"] for o in supervisor.outcomes}
    assert all("was cancelled" in error for error in errors), errors
    assert len(fake.submissions) == 1
    start("self", "cross", "full")  # who gives the command again wants them
    assert len(fake.submissions) == 2


def test_a_run_that_ends_late_on_a_shared_file_system_is_not_failed(fake, start):
    supervisor = start("self")
    (path,) = supervisor.states()
    fake.all_become("COMPLETED", exit_code="0:0")
    steps(supervisor, fake, 1)
    ends(RunDirectory(path), "done")
    steps(supervisor, fake, 1)
    assert [o.status for o in supervisor.outcomes] == ["done"]


def test_a_controller_that_is_down_loses_nothing(fake, start):
    fake.down = True
    supervisor = start("self")
    steps(supervisor, fake, 10)
    assert not fake.submissions
    fake.down = False
    steps(supervisor, fake, 1)
    assert len(fake.submissions) == 1
    fake.down = True
    steps(supervisor, fake, 10)
    assert supervisor.active
    (path,) = supervisor.states()
    ends(RunDirectory(path), "done")  # seen although SLURM is down
    steps(supervisor, fake, 1)
    assert [o.status for o in supervisor.outcomes] == ["done"]
    assert [text.split(" (")[0] for text in fake.said] == [
        "SLURM does not answer",
        "SLURM answers again",
        "SLURM does not answer",
    ]


def test_arrays_are_as_large_as_the_cluster_allows(fake, start):
    supervisor = start("self", "cross", "full", max_array=2)
    assert [len(paths) for paths in fake.submissions.values()] == [2, 1]
    assert len(supervisor.states()) == 3


def test_cells_that_are_too_many_for_the_users_limit_come_later(fake, start):
    fake.most = 1
    supervisor = start("self", "cross", "full")
    assert [len(paths) for paths in fake.submissions.values()] == [1]
    (text,) = fake.said
    assert "QOSMaxSubmitJobPerUserLimit; 2 cells are not submitted yet" in text
    waiting = {path for path in supervisor.states() if not (path / "job.json").exists()}
    assert len(waiting) == 2  # nobody looks for a job of theirs
    for done in range(1, 4):
        ((key, job),) = ((k, j) for k, j in fake.jobs.items() if j.state == "PENDING")
        ends(RunDirectory(fake.submissions[key[0]][0]), "done")
        fake.jobs[key] = Job(job.id, "COMPLETED")
        steps(supervisor, fake, 3)
        assert len(supervisor.outcomes) == done
    assert not supervisor.active


def test_a_refusal_leaves_no_trace_of_a_job(fake, start, tmp_path):
    fake.most = 0
    with pytest.raises(ConfigError, match="QOSMaxSubmitJobPerUserLimit"):
        start("self")
    run = RunDirectory(tmp_path / "t" / "self0")
    assert Submission.read(run) is None
    (row,) = Overview([Watch(run, "self")]).read()
    assert row.state == "stopped"  # not "the job is gone": there was none


def test_why_jobs_wait_is_told_once_with_the_remedy(fake, start):
    supervisor = start("self", "cross")
    fake.all_become("PENDING", reason="Priority")
    steps(supervisor, fake, 2)
    assert fake.said == []
    fake.all_become("PENDING", reason="PartitionTimeLimit")
    steps(supervisor, fake, 3)
    (text,) = fake.said
    assert text.startswith(
        "2 jobs wait: PartitionTimeLimit: longer than the partition allows: a sh"
    )
    assert "hydra.launcher.time" in text
    fake.all_become("PENDING", reason="JobHeldUser")
    steps(supervisor, fake, 3)
    assert fake.said[1] == "2 jobs wait: JobHeldUser: held by its user: `scontrol release 7`"


def test_a_job_that_prepares_and_fails_is_told_once(fake, start, tmp_path):
    supervisor = start("self", "cross")
    (name,) = fake.submissions
    helper = prepare_name(name)
    (tmp_path / "t" / ".slurm" / helper).mkdir(parents=True)
    fake.jobs[helper, WHOLE_ARRAY] = Job("6", "RUNNING")
    steps(supervisor, fake, 2)
    assert fake.said == []
    fake.jobs[helper, WHOLE_ARRAY] = Job("6", "FAILED", "n1", exit_code="1:0")
    steps(supervisor, fake, 3)
    (text,) = fake.said
    assert "features are not computed beforehand (job 6 on n1 ended as FAILED" in text
    assert "the cells compute what is missing. Log: " in text


def test_cells_that_were_cancelled_say_nothing_of_their_node(fake, start, tmp_path):
    supervisor = start("self", "cross", "full")
    *cancelled, last = fake.jobs
    for key in cancelled:
        fake.jobs[key] = Job(fake.jobs[key].id, "CANCELLED", "n1")
    steps(supervisor, fake, 3)
    fake.jobs[last] = Job(fake.jobs[last].id, "COMPLETED", "n2")
    ends(RunDirectory(tmp_path / "t" / "full0"), "done")
    steps(supervisor, fake, 3)
    outcomes = {o.cell.signature: o.status for o in supervisor.outcomes}
    assert outcomes == {"self0": "failed", "cross0": "failed", "full0": "done"}
    assert supervisor.pool.nodes.exclude == "n0"


def test_a_node_on_which_cells_fail_one_after_the_other_is_left_out(fake, start, tmp_path):
    supervisor = start("self", "cross", "full", "mlp", "add")
    runs = {name: tmp_path / "t" / f"{name}0" for name in ("self", "cross", "full", "mlp", "add")}
    jobs = dict(zip(runs, fake.jobs, strict=True))

    def ended(name: str, node: str, status: str) -> None:
        fake.jobs[jobs[name]] = Job(fake.jobs[jobs[name]].id, "COMPLETED", node)
        ends(RunDirectory(runs[name]), status)
        steps(supervisor, fake, 1)

    ended("self", "n1", "failed")
    ended("cross", "n1", "failed")
    assert supervisor.pool.nodes.exclude == "n0"  # it may be the code
    ended("full", "n2", "done")
    assert supervisor.pool.nodes.exclude == "n0,n1"
    assert fake.avoided == [(["7"], "n0,n1")]  # those that wait already
    assert fake.said == [
        "n1: two cells in a row failed there, while others do well elsewhere; left out from now on "
        "(1 so far)"
    ]
    ended("mlp", "n2", "failed")
    assert supervisor.pool.nodes.avoided == ["n1"]


def test_files_are_read_again_only_where_something_may_have_changed(fake, start, monkeypatch):
    supervisor = start("self", "cross")
    fake.all_become("RUNNING")
    steps(supervisor, fake, 2)
    read: list[str] = []
    info = RunDirectory.info.fget
    monkeypatch.setattr(
        RunDirectory, "info", property(lambda run: read.append(run.path.name) or info(run))
    )
    steps(supervisor, fake, 5)
    assert read == []
    (first, _) = supervisor.states()
    ends(RunDirectory(first), "done")
    steps(supervisor, fake, 1)
    assert [o.status for o in supervisor.outcomes] == ["done"]


def test_a_cell_that_waits_and_was_done_by_somebody_else_is_found(fake, start):
    supervisor = start("self", "cross")
    (first, _) = supervisor.states()
    ends(RunDirectory(first), "done")
    steps(supervisor, fake, 7)  # 14 s
    assert [o.status for o in supervisor.outcomes] == ["done"]


def test_stopping_leaves_jobs_at_work(fake, start):
    supervisor = start("self")
    supervisor.stop()
    assert not supervisor.active
    assert len(fake.jobs) == 1


def test_states_for_a_table(fake, start):
    supervisor = start("self")
    (path,) = supervisor.states()
    run = RunDirectory(path)

    def state(job, *, asked=True):
        return state_of(run, job, asked=asked)

    assert state(Job("7", "PENDING")) == "queued"
    assert state(Job("7", "RUNNING")) == "running"
    assert state(Job("7", "NODE_FAIL")) == "lost"
    assert state(Job("7", "CANCELLED")) == "stopped"
    assert state(None) == "lost"
    assert state(None, asked=False) is None
    ends(run, "failed")
    assert state(None) is None


def test_the_script_says_what_was_asked_for(tmp_path):
    options = SlurmOptions(
        "gpu",
        "lab",
        "high",
        "a100",
        gpus=2,
        cpus_per_task=6,
        memory="24G",
        array_parallelism=3,
        setup=["module load cuda"],
        sbatch={"mail-type": "END"},
        srun=["--mpi=none"],
    )
    text = script(options, "t-1", tmp_path / "code", tmp_path / "my jobs", 8)
    for line in (
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--constraint=a100",
        "--mem=24G",
        "--gpus-per-node=2",
        "--cpus-per-task=6",
        "--array=0-7%3",
        "--mail-type=END",
        "--time=240",
        "--requeue",
        "--signal=USR2@120",
    ):
        assert f"#SBATCH {line}\n" in text
    assert text.index("module load cuda") < text.index("export PYTHONPATH=")
    assert "--cpus-per-task=6 --mpi=none" in text.split("srun", 1)[1]


@pytest.mark.parametrize(("key", "value"), [("time", 0), ("array_parallelism", -1), ("poll", 0.0)])
def test_options_that_make_no_sense(key, value):
    with pytest.raises(ConfigError, match=rf"hydra.launcher.{key}={value}: must be above 0"):
        check(SlurmOptions(**{key: value}))


def test_a_signal_needs_time_before_it():
    with pytest.raises(ConfigError, match=r"signal_delay=120 s leaves nothing of .*time=1 min"):
        check(SlurmOptions(time=1))


@pytest.mark.parametrize(
    ("log", "words", "again"),
    [
        ("slurmstepd: error: Exceeded job memory limit\nsrun: error: n7: task 0: Killed",
         "ran out of memory (hydra.launcher.memory=...)", False),
        ("srun: error: n7: task 0: Killed\nsrun: Force Terminated StepId=7.0",
         "was killed by SIGKILL (out of memory?)", False),
        ("RuntimeError: Waited for 60 seconds but could not find submitted jobs in path:\n/x",
         "found no work: who submitted it was killed while doing so", True),
        ("slurmstepd: error: execve(): /lab/python: No such file or directory\nsrun: error: n7",
         ": there is no /lab/python on that node: an environment on a shared file system, or "
         "hydra.launcher.python", False),
        ("/var/job: line 9: /lab/python: No such file or directory\n",
         ": there is no /lab/python on that node: an environment on a shared file system, or "
         "hydra.launcher.python", False),
        ("module: command not found\n", "ended as FAILED before the run was done: module: command"
         " not found", False),
    ],
)  # fmt: skip
def test_what_a_job_wrote_says_more_than_its_state(log, words, again):
    mark = "" if words.startswith(":") else " "
    assert why(Job("7_1", "FAILED", "n7"), log) == (f"job 7_1 on n7{mark}{words}", again)


def test_why_a_job_failed_that_slurm_never_started():
    told, again = why(Job("7", "FAILED", "n7", exit_code="0:53"))
    assert "could not open its output files (signal 53): paths.outputs" in told
    assert not again
    told, _ = why(Job("7", "FAILED", "", "BadConstraints"))
    assert "BadConstraints: no node can give what is asked for (hydra.launcher.gpus" in told


def test_the_table_of_cells_names_a_full_disk_too(fake, start, monkeypatch):
    supervisor = start("self")
    (path,) = supervisor.states()
    fake.all_become("FAILED")
    monkeypatch.setattr(reconcile.queue, "look", lambda names: Jobs(fake.look(names)))
    overview = Overview([Watch(RunDirectory(path), "self")])
    assert NO_SPACE not in overview.read()[0].error
    monkeypatch.setattr(disk, "is_full", lambda folder: folder == path)
    assert NO_SPACE in overview.read()[0].error


def test_a_full_disk_says_why_where_slurm_knows_no_exit_code():
    job = Job("7", "FAILED", "n7")
    assert why(job, full=True) == (f"job 7 on n7 ended: {NO_SPACE}", False)
    assert NO_SPACE not in why(job)[0]
    assert NO_SPACE not in why(Job("7", "CANCELLED"), full=True)[0]
    assert NO_SPACE not in why(Job("7", "NODE_FAIL"), full=True)[0]


def test_why_without_a_node():
    assert why(Job("7_1", "TIMEOUT")) == ("job 7_1 was lost (TIMEOUT)", True)


def test_auto_takes_slurm_where_it_answers(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for answers, kind in ((True, SlurmLauncher), (False, LocalLauncher)):
        monkeypatch.setattr("keyseg.sweep.slurm.queue.answers", lambda found=answers: found)
        assert type(AutoLauncher(n_jobs=2, time=30, worker=[], grace=1.0)) is kind
    monkeypatch.setattr("keyseg.sweep.slurm.queue.answers", lambda: True)
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # a shell inside a job has a machine already
    assert type(AutoLauncher(n_jobs=2)) is LocalLauncher


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, True),
        ({"gpus": 0}, True),
        ({"gpus": "a100:2"}, False),
        ({"gres": "gpu:1"}, False),
        ({"sbatch": {"gpus-per-node": 1}}, False),
    ],
)
def test_a_gpu_that_no_job_asks_for_is_told(make_cell, options, told):
    """The machine that submits needs none, and a partition may come with one."""
    said: list[str] = []
    launcher = SlurmLauncher(**options)
    launcher.check_devices(
        [make_cell("full"), make_cell("full", "runtime.device=cpu")], said.append
    )
    assert said == []
    launcher.check_devices([make_cell("full", "runtime.device=cuda")], said.append)
    assert ["runtime.device=cuda, and the jobs ask for no GPU" in line for line in said] == (
        [True] if told else []
    )
