"""Processes forked from one that has loaded torch and all the rest: seconds less for each."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
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


class Command(Forked):
    """`python WORDS...` in a folder, with an environment of its own, once Python has loaded.

    Where the start of Python is what is tested (encodings, what is imported), take a new process.
    """

    def __init__(self, *words: str | Path, cwd: Path, env: dict[str, str]) -> None:
        self._files = [os.memfd_create(name) for name in ("stdout", "stderr")]
        outputs = [f"/proc/{os.getpid()}/fd/{file}" for file in self._files]
        self._process = _forks.Process(
            target=_command, args=([str(word) for word in words], cwd, env, outputs), daemon=True
        )
        self._process.start()
        self.stdout = _Lines(self._files[0], self)

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("a forked command", timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What was not read yet, and all errors, once the process has ended."""
        self.wait(timeout)
        read = [_text(self._files[0], self.stdout.position), _text(self._files[1])]
        for file in self._files:
            os.close(file)
        return read[0], read[1]


class _Lines:
    """Lines of an output, as soon as they are written."""

    def __init__(self, file: int, command: Command) -> None:
        self.file = file
        self.command = command
        self.position = 0

    def readline(self) -> str:
        """The next one; "" once there are no more."""
        ended = False
        while "\n" not in (text := _text(self.file, self.position)) and not ended:
            ended = self.command.poll() is not None
            time.sleep(0.01)
        line, end, _ = text.partition("\n")
        self.position += len((line + end).encode())
        return line + end


def _text(file: int, start: int = 0) -> str:
    return os.pread(file, os.fstat(file).st_size - start, start).decode()


def run(
    *words: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`python WORDS...` as subprocess.run has it, output and errors kept."""
    command = Command(*words, cwd=cwd, env=dict(os.environ) if env is None else env)
    try:
        out, err = command.communicate(timeout)
    except subprocess.TimeoutExpired:
        command.kill()
        raise
    assert command.returncode is not None
    return subprocess.CompletedProcess(list(words), command.returncode, out, err)


def _command(words: list[str], cwd: Path, env: dict[str, str], outputs: list[str]) -> None:
    """As Python does with its command line: `FILE`, `-m MODULE` or `-c CODE` with arguments."""
    for stream, output in zip((sys.stdout, sys.stderr), outputs, strict=True):
        with Path(output).open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    multiprocessing.process.current_process()._config["daemon"] = False  # it may have children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for folder in reversed(env.get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    sys.orig_argv = [sys.executable, *words]
    sys.argv = words
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(words[0], run_name="__main__")


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
