"""Cells in processes of their own, forked from one that has loaded torch: seconds less for each.

Beyond the imports they do what `python -m keyseg.cell RUN_DIR` does, and end as that does.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping

from keyseg.rundir import RunDirectory

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["keyseg.cell", "tests.forked"])


class Cell:
    """The worker of one run, with the words of subprocess.Popen."""

    def __init__(self, run: RunDirectory, **environment: str) -> None:
        own = {"MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1", **environment}
        self._process = _forks.Process(target=_work, args=(str(run.path), own), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, "waited too long"
        return code

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _work(path: str, environment: Mapping[str, str]) -> None:
    from keyseg import cell

    os.environ.update(environment)
    log = os.open(RunDirectory(path).log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    sys.argv = ["keyseg.cell", path]
    sys.exit(cell.main())
