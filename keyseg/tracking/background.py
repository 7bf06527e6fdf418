"""A thread that keeps MLflow level with a run while that is at work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from keyseg.runs.private_files import without_passwords
from keyseg.runs.run_directory import RunDirectory
from keyseg.tracking import parent_run
from keyseg.tracking.store import OFF, shown_store, store_uri
from keyseg.tracking.sync import sync

log = logging.getLogger(__name__)


@contextmanager
def mirror(run: RunDirectory, *, every: float = 5.0, patience: float = 20.0) -> Iterator[None]:
    """Sync a run from a thread of its own while the body runs, and once more at the end.

    A store that is down or slow costs the body nothing: it is warned of once, and tried again
    every `every` seconds. The end waits at most `patience` seconds for the last sync, and a quarter
    of that where the one before failed or has not come back.
    """
    if store_uri(run.sweep_dir) == OFF:
        yield
        return
    thread = _Mirror(run, every, patience)
    thread.start()
    try:
        yield
    finally:
        thread.end()


class _Mirror(threading.Thread):
    """Follows a run. `last_answer`: when the store last had all, by the monotonic clock."""

    def __init__(self, run: RunDirectory, every: float, patience: float) -> None:
        super().__init__(name="mlflow-mirror", daemon=True)
        self.run_directory = run
        self.every = every
        self.patience = patience
        self.last_answer = time.monotonic()
        self.first = True
        self.stop = threading.Event()

    def run(self) -> None:
        warned = last = False
        while not last:
            last = self.stop.wait(self.every)
            try:
                sync(self.run_directory)
                if last or self.first:
                    parent_run.update(self.run_directory.sweep_dir)
                    self.first = False
                self.last_answer = time.monotonic()
            except Exception as error:  # a broken window must not stop the run behind it
                if not warned:
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    self.warn(
                        f"cannot be written ({reason}); the run goes on, its rows are in "
                        f"{self.run_directory.path}"
                    )
                warned = True

    def end(self) -> None:
        """The last sync, as long as the store may be expected to answer."""
        self.stop.set()
        silent = time.monotonic() - self.last_answer > self.every + self.patience
        patience = self.patience / 4 if silent else self.patience
        self.join(patience)
        if self.is_alive():
            self.warn(
                f"did not take the last rows in {patience:.0f} s; they are safe in "
                f"{self.run_directory.path}"
            )

    def warn(self, what: str) -> None:
        sweep_dir = self.run_directory.sweep_dir
        later = f"and `keyseg sync {sweep_dir.name}` sends them later"
        log.warning("MLflow at %s %s, %s", shown_store(sweep_dir), without_passwords(what), later)
