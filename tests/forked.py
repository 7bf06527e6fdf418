"""Processes forked from one that has loaded torch and all the rest: seconds less for each."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyseg.runs.run_directory import RunDirectory

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preloaded", "tests.forked"])


class Forked:
    """A function in a process of its own, with the words of subprocess.Popen.

    `log`: what it prints is added to that file.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, log: Path, **environment: str
    ) -> None:
        own = {"MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1", **environment}
        self._process = _forks.Process(
            target=_call, args=(function, arguments, log, own), daemon=True
        )
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


class Cell(Forked):
    """A worker of runs: what `python -m keyseg.worker RUN_DIR ...` does once it is loaded."""

    def __init__(self, run: RunDirectory, *others: RunDirectory, **environment: str) -> None:
        paths = [str(each.path) for each in (run, *others)]
        super().__init__(_work, *paths, log=run.log_file, **environment)


def _call(
    function: Callable[..., Any], arguments: tuple[Any, ...], log: Path, own: dict[str, str]
) -> None:
    os.environ.update(own)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(function(*arguments))


def _work(*paths: str) -> int:
    from keyseg.worker import cell

    sys.argv = ["keyseg.worker.cell", *paths]
    return cell.main()
