"""One cell from a frozen config to its results: `python -m keyseg.worker RUN_DIR`.

The work that a launcher starts, and that `python run.py` does in its own process. A run that is
done is left alone; one that was stopped goes on at its last checkpoint. Several run directories
are worked on one after the other, on what is loaded once (several.py). Where `srun`, torchrun or
`accelerate launch` starts several processes they share the work, and the first one writes.

Whatever needs torch is imported late (run.py): the data is read beside those imports.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from keyseg.data import reading
from keyseg.runs import code, convergence, disk, garbage_collector, packages, provenance
from keyseg.runs.disk import DiskFullError
from keyseg.runs.run_directory import (
    DONE,
    EXIT_BUSY,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FAILED,
    PRUNED,
    QUEUED,
    RUNNING,
    RunBusy,
    RunDirectory,
    WatchedRun,
    exit_code,
)
from keyseg.tracking import sync
from keyseg.tracking.background import mirror
from keyseg.worker import kept_records, several, system_load
from keyseg.worker.log import beginning, log_to

if TYPE_CHECKING:
    from keyseg.config import RunConfig
    from keyseg.train.distributed import Processes

log = logging.getLogger(__name__)

_stop = threading.Event()
"""Set by SIGUSR2, which schedulers send before they take a machine away."""


def run_cell(run: RunDirectory) -> None:
    """Train and evaluate; results and state go into the run directory, and on to MLflow.

    Raises:
        RunBusy: another process works on this run.
        Stopped: SIGUSR2 came; a checkpoint is written, and the run is queued again.
        Exception: what went wrong, after it was recorded (status failed, the error's last lines).
    """
    from keyseg.train.distributed import joined
    from keyseg.train.trainer import Stopped
    from keyseg.worker.run import Pruned, work

    with joined() as processes, ExitStack() as resources:
        if not processes.led(lambda: _begin(run, processes, resources)):
            return
        mine = run if processes.first else WatchedRun(run.path)
        try:
            packages.load()
            results = work(mine, run.config, processes, _stop.is_set)
        except Stopped as stopped:
            _close(mine, QUEUED, outcome=str(stopped))
            raise
        except Pruned:
            _close(mine, PRUNED)
            return
        except DiskFullError as error:
            with suppress(DiskFullError):  # there may be no room for that either
                _close(mine, FAILED, error=str(error))
            raise
        except Exception as error:
            if run.status == RUNNING:  # the first to fail says why: the others lose it then
                reason = "".join(traceback.format_exception_only(error)).strip()
                _close(run, FAILED, error=reason)
            raise
        _close(mine, DONE, **results)
        if processes.first:
            run.replaced()
            # nothing goes on from here; at 7B the optimiser's state is three times the weights
            run.last_file.unlink(missing_ok=True)
            kept_records.remove(run.checkpoints)


def _begin(run: RunDirectory, processes: Processes, resources: ExitStack) -> bool:
    """Whether there is something to do; the run is then locked and mirrored by `resources`."""
    resources.enter_context(run.lock())
    if run.status in (DONE, PRUNED):
        return False
    cfg = run.config
    resources.enter_context(log_to(run.log_file, cfg.runtime.log_level))
    disk.remove_leftovers(run.checkpoints)
    state = provenance.record(run)
    computed_by = code.record(run, cfg)
    seen = len(run.info["hardware"].get("gpus", ()))
    gpus = max(seen, processes.count) if seen else 0  # each process may see its own only
    attempt = provenance.attempt(state, gpus) | {"processes": processes.count, "code": computed_by}
    attempts = [*provenance.attempts_so_far(run), attempt]
    run.update(status=RUNNING, attempts=attempts, error=None, processes=processes.count)
    for line in beginning(run.info, cfg, len(attempts), processes.count):
        log.info(line)
    resources.enter_context(mirror(run))
    resources.enter_context(system_load.watch(run))
    return True


def _close(run: RunDirectory, status: str, *, outcome: str | None = None, **fields: Any) -> None:
    attempts = run.info["attempts"]
    attempts[-1] = provenance.ended(attempts[-1], outcome or status)
    if status == QUEUED:
        attempts[-1]["reached"] = reached(run)
    if status in (DONE, PRUNED, FAILED):
        with suppress(ValueError):  # rows that cannot be read: whoever reads them will say so
            fields["convergence"] = convergence.of_rows(run.rows(), fields).to_json()
    run.update(status=status, attempts=attempts, **provenance.cost(attempts), **fields)
    level = logging.ERROR if status == FAILED else logging.INFO
    why = outcome or fields.get("error")
    ending = f"{status}: {why}" if why else status
    log.log(level, "%s, after %.0f s of this attempt", ending, attempts[-1].get("seconds", 0.0))
    if status == FAILED:
        run.restore(str(fields["error"]))


def reached(run: RunDirectory) -> list[int]:
    """How far a run has come that is stopped now: step, and batches of the test split."""
    return [int(run.info.get("checkpoint_step") or 0), kept_records.count(run.checkpoints)]


def attempt(path: str) -> int:
    """Work on a run directory; an exit code. What goes wrong is printed."""
    from keyseg.train.trainer import Stopped

    try:
        run_cell(RunDirectory(path))
    except RunBusy as busy:
        print(busy, file=sys.stderr)
        return EXIT_BUSY
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_STOPPED
    except DiskFullError as error:
        with suppress(OSError):  # the log may lie on that disk
            print(error, file=sys.stderr)
        return EXIT_NO_SPACE
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def attempt_forked(path: str) -> int:
    """`attempt` after a fork; in a new process, should a library have touched the GPU before it."""
    import torch

    if torch.cuda._is_in_bad_fork():  # none that we know of does so at import
        os.execv(sys.executable, [sys.executable, "-m", "keyseg.worker", path])
    return attempt(path)


def unfinished(paths: Sequence[str]) -> list[RunConfig]:
    """The configs of the runs that have not ended."""
    configs = []
    for run in map(RunDirectory, paths):
        with suppress(Exception):  # it will be told to whoever works on the run
            if exit_code(run) is None:
                configs.append(run.config)
    return configs


def load(todo: Sequence[RunConfig]) -> None:
    """Import all that these runs need; meanwhile the data of the first one is read."""
    if todo:
        with suppress(OSError):  # no process to be had: it is read where it is asked for
            reading.begin(todo[0].data)
    if all(cfg.model.quantization == "none" for cfg in todo):
        # peft imports it where it is installed, and that asks for GPUs: what is forked from a
        # process that did so cannot use them (`attempt_forked` then starts all over)
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    with garbage_collector.paused():
        import keyseg.worker.run  # noqa: F401
    gc.freeze()  # what is imported stays: no collection need look at it


def preload_for(todo: Sequence[RunConfig]) -> None:
    """Load what these runs will read and not change. What cannot be loaded fails in its run."""
    import torch

    from keyseg.train.build import preload_backbones

    torch.set_num_threads(1)  # threads of a pool do not survive a fork
    sync.preload()
    for cfg in todo:
        with suppress(Exception):
            reading.read(cfg.data)
            preload_backbones(cfg)


def main() -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong use, 74 disk full, 75 at work elsewhere, 85 stopped."""
    signal.signal(signal.SIGUSR2, lambda number, frame: _stop.set())
    paths = sys.argv[1:]
    if not paths:
        print("usage: python -m keyseg.worker RUN_DIR ...", file=sys.stderr)
        return 2
    try:
        todo = unfinished(paths)
        load(todo)
        if len(paths) == 1:
            return attempt(paths[0])
        preload_for(todo)
        return several.each(paths, attempt_forked, _stop)
    finally:  # Python's own end would give the signal its default back, which kills
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
