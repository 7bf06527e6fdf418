"""Several runs in one worker: the imports and the data are loaded once, for all of them.

    python -m keyseg.worker RUN_DIR RUN_DIR ...

One run after the other, each in a process that is forked from the worker: it starts with all that
the worker has loaded, shares that memory, and whatever becomes of it (an exception, no memory, a
kill) ends it alone. The worker itself computes nothing, starts no threads and touches no GPU: that
is what a process has to be for its children to be sound.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event

from keyseg.runs.run_directory import EXIT_BUSY, EXIT_STOPPED, RunDirectory, exit_code

_TICK, _REMIND = 0.02, 1.0  # seconds
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def each(paths: Sequence[str], work: Callable[[str], int], stop: Event) -> int:
    """Call `work` for each run directory in a process of its own; the exit code for all.

    `work` returns an exit code as `python -m keyseg.worker RUN_DIR` does. After `stop` is set the
    run at work is told so (SIGUSR2), and no other begins.

    Returns:
        0 if all ended well, EXIT_STOPPED, EXIT_BUSY if another process works on one of them, 1 if
        one failed and said so. Where one ends in any other way its code is returned at once (128
        and the signal that killed it): whoever started us sees to it, and starts the rest again.
    """
    codes = [0]
    gc.freeze()  # what is loaded stays shared: a collection would touch, and so copy, all of it
    for path in paths:
        run = RunDirectory(path)
        if stop.is_set():
            return EXIT_STOPPED
        if (recorded := exit_code(run)) is not None:  # before the job was queued again
            codes.append(recorded)
            continue
        sys.stdout.flush()
        sys.stderr.flush()
        worker = os.getpid()
        child = os.fork()
        if child == 0:
            _own_log(run)
            _end_with(worker)
            raise SystemExit(work(path))
        code = _wait(child, stop)
        if code == EXIT_STOPPED or (code not in (0, EXIT_BUSY) and exit_code(run) is None):
            return code
        codes.append(code)
    return EXIT_BUSY if EXIT_BUSY in codes else max(codes)


def _wait(child: int, stop: Event) -> int:
    """The exit code of a process, which hears of `stop`."""
    reminded = 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if stop.is_set() and time.monotonic() - reminded > _REMIND:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGUSR2)
            reminded = time.monotonic()
        time.sleep(_TICK)


def _own_log(run: RunDirectory) -> None:
    """What this process prints goes to the log of its run."""
    with run.log_file.open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())


def _end_with(worker: int) -> None:
    """Be killed when the worker is (Linux only): nobody would wait for us."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != worker:
            os.kill(os.getpid(), signal.SIGKILL)
