"""A real cell that waits before its second step, and between batches of the test split.

Until it is told to stop, or finds a file in its run directory: `go` for the steps, `read` for the
batches.
"""

import sys
import time
from pathlib import Path

from keyseg.train.trainer import Trainer
from keyseg.worker import cell, run

_step, _batches = Trainer._train_step, run.evaluate_batches
_taken = []


def wait_for(name):
    while not cell._stop.is_set() and not Path(sys.argv[1], name).exists():
        time.sleep(0.05)


def waiting_step(self, *batch):
    if _taken:
        wait_for("go")
    _step(self, *batch)
    _taken.append(self.step)


def waiting_batches(*args):
    for batch in _batches(*args):
        yield batch
        wait_for("read")


if __name__ == "__main__":
    Trainer._train_step = waiting_step
    run.evaluate_batches = waiting_batches
    raise SystemExit(cell.main())
