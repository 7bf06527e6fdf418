"""A private SLURM on this machine, started for these tests and ended with them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import filelock
import pytest

from keyseg.config import PROJECT
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.slurm.pool import Submission
from tests import forked
from tests.forked import Command
from tests.sharing import once

HERE = Path(__file__).parent
STUB = HERE.parent / "sweep" / "cell_stub.py"
PATIENCE = 120


def wait(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


_FAULTS: list[tuple[str, str, int]] = []


@pytest.fixture
def faults() -> list[tuple[str, str, int]]:
    """Lines of the table of faults: what died, what was said, how often the cell was started."""
    return _FAULTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table (docs/reliability.md)."""
    if _FAULTS:
        terminalreporter.section("faults")
        terminalreporter.line("| what dies | what happens | starts |")
        terminalreporter.line("|---|---|---|")
        for fault, said, starts in _FAULTS:
            terminalreporter.line(f"| {fault} | {said} | {starts} |")


class Cluster:
    """The cluster: its environment, its daemons."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "SLURM_CONF": str(root / "etc" / "slurm.conf"),
            "SLURM_ROOT": str(root),
            "SLURM_PORT_BASE": _port_of(root) or str(_free_ports(5)),
        }

    def call(self, *command: str) -> str:
        """What a SLURM command prints."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def up(self) -> None:
        """Start the daemons that are not there."""
        done = subprocess.run(
            [str(HERE / "cluster_up.sh")],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """End what `up` started, and its files."""
        command = [str(HERE / "cluster_down.sh"), "--purge"]
        subprocess.run(command, env=self.environment, timeout=120, check=True)

    def pid(self, daemon: str) -> int:
        """Process of slurmctld, slurmd (of the first node), ..."""
        node = f"-{socket.gethostname().partition('.')[0]}" if daemon == "slurmd" else ""
        return int((self.root / "run" / f"{daemon}{node}.pid").read_text())

    def impatient(self, folder: Path) -> dict[str, str]:
        """An environment whose commands give up on a dead controller after 1 s, not after 9 s."""
        conf = Path(self.environment["SLURM_CONF"]).read_text()
        (folder / "slurm.conf").write_text(conf + "MessageTimeout=2\n")
        return {"SLURM_CONF": str(folder / "slurm.conf")}

    def jobs(self, *states: str) -> list[str]:
        """Ids of jobs in squeue."""
        chosen = ["-t", ",".join(states)] if states else []
        return self.call("squeue", "-h", "-r", "-o", "%i", *chosen).split()

    def kill(self, daemon: str) -> None:
        """SIGKILL to a daemon; `up` starts it again."""
        if daemon == "slurmctld":  # it writes down jobs every few seconds; what it forgets, drains
            asked = time.time()
            self.call("srun", "-Q", "true")
            wait(lambda: (self.root / "ctld" / "job_state").stat().st_mtime > asked)
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not Path(f"/proc/{pid}").exists())

    def processes(self, job: str = "", step: int | None = None) -> list[int]:
        """Processes of jobs with their slurmstepd; or those of one job's step without it."""
        ours = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        number = self.call("squeue", "-h", "-j", job, "-o", "%A").strip() if job else ""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it may end while we look
                inside = (folder / "environ").read_bytes().split(b"\0")
                if ours not in inside:
                    continue
                of = {line.partition(b"=")[0]: line.partition(b"=")[2].decode() for line in inside}
                if job:
                    wanted = (number, str(step))
                    mine = (of.get(b"SLURM_JOB_ID"), of.get(b"SLURM_STEP_ID")) == wanted
                else:
                    daemon = (folder / "comm").read_text().strip() == "slurmstepd"
                    mine = daemon or b"SLURM_JOB_ID" in of
                if mine:
                    found.append(int(folder.name))
        return found

    def wait_until_empty(self) -> None:
        """No job is left."""
        wait(lambda: not self.jobs())


class Sweep:
    """A sweep on the cluster: outputs of its own, and the command that is given again."""

    wait = staticmethod(wait)

    def __init__(self, cluster: Cluster, root: Path, project: Path = PROJECT) -> None:
        self.cluster = cluster
        self.root = root
        self.project = project

    def command(self, *arguments: str, stub: bool = True) -> list[str]:
        """`python run.py -m ... hydra/launcher=slurm`, with workers that are quick."""
        worker = f"hydra.launcher.worker=[{sys.executable},'{STUB}']"
        plain = ("hydra.launcher.report=false", "hydra.launcher.prepare=false")
        return [
            sys.executable,
            str(self.project / "run.py"),
            "-m",
            "hydra/launcher=slurm",
            *((worker, *plain) if stub else ()),
            "hydra.launcher.cpus_per_task=1",
            "hydra.launcher.poll=0.5",
            "name=t",
            f"paths.outputs={self.root / 'outputs'}",
            f"paths.reports={self.root / 'reports'}",
            *arguments,
        ]

    def start(self, *arguments: str, stub: bool = True, **environment: str) -> Command:
        """`command`, started."""
        _, *words = self.command(*arguments, stub=stub)
        return Command(*words, cwd=self.root, env={**self.environment(), **environment})

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode is not None
        return process.returncode, out, err

    def keyseg(self, *arguments: str) -> tuple[int, str, str]:
        """The command `keyseg` on these outputs."""
        words = ("-m", "keyseg", "--outputs", self.root / "outputs", *arguments)
        done = forked.run(*words, cwd=self.root, env=self.environment(), timeout=60)
        return done.returncode, done.stdout, done.stderr

    def environment(self) -> dict[str, str]:
        """What commands are started with."""
        return {
            **self.cluster.environment,
            "MLFLOW_TRACKING_URI": "none",
            "COLUMNS": "140",
            "PYTHONPATH": str(self.project),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def cells(self) -> dict[str, RunDirectory]:
        """Run directories by label."""
        found = [RunDirectory(file.parent) for file in self.root.glob("outputs/t/*/run.json")]
        return {str(run.info["label"]): run for run in found}

    def job(self, cell: str) -> str:
        """SLURM's id of the job of a cell."""
        record = Submission.read(self.cells[cell])
        assert record is not None
        jobs = self.cluster.call("squeue", "-h", "-r", "-n", record.name, "-o", "%i").split()
        return next(job for job in jobs if int(job.partition("_")[2] or 0) == record.index)

    def starts(self, cell: str) -> int:
        """How often the worker of a cell was started."""
        file = self.cells[cell].path / "starts.txt"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def go(self, *cells: str) -> None:
        """Workers that HANG go on."""
        for cell in cells:
            (self.cells[cell].path / "go").touch()

    def wait_for(self, cell: str, seconds: float = PATIENCE) -> None:
        """A worker has begun to log."""
        wait(lambda: cell in self.cells and self.cells[cell].metrics_file.exists(), seconds)


@pytest.fixture(scope="session")
def cluster(request) -> Iterator[Cluster]:
    """Skips where a cluster cannot be started."""
    once(request, "a private SLURM")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a private SLURM needs root and Debian's packages (apt-get): not tested here")
    if os.environ.get("KEYSEG_TEST_SLURM"):  # root of one that is up: it is used, and stays up
        yield Cluster(Path(os.environ["KEYSEG_TEST_SLURM"]))
        return
    # Sockets have short names: not below pytest's folder.
    root = Path(f"/tmp/keyseg-slurm-{os.getpid()}")
    cluster = Cluster(root)
    try:
        with filelock.FileLock("/tmp/keyseg-slurm-install.lock"):
            cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def sweep(cluster, tmp_path) -> Iterator[Sweep]:
    """An empty place; no job is left behind."""
    yield Sweep(cluster, tmp_path)
    if not all(Path(f"/proc/{cluster.pid(daemon)}").exists() for daemon in ("slurmctld", "slurmd")):
        cluster.up()
    cluster.call("scancel", "--user=root", "--signal=KILL")
    cluster.call("scancel", "--user=root")
    cluster.wait_until_empty()


def _port_of(root: Path) -> str | None:
    """Port of the controller of a cluster that was started before."""
    file = root / "etc" / "slurm.conf"
    lines = file.read_text().splitlines() if file.exists() else []
    ports = [line.partition("=")[2] for line in lines if line.startswith("SlurmctldPort=")]
    return ports[0] if ports else None


def _free_ports(count: int) -> int:
    """First of some ports in a row that nobody listens on."""
    for base in range(17000 + os.getpid() % 2000 * 4, 30000, count):
        with_all = [socket.socket() for _ in range(count)]
        try:
            for i, one in enumerate(with_all):
                one.bind(("127.0.0.1", base + i))
        except OSError:
            continue
        finally:
            for one in with_all:
                one.close()
        return base
    raise OSError("no free ports")
