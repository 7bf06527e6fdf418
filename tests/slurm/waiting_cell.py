"""A real cell whose steps take STEP_SLEEP seconds longer, so that something can happen between."""

import os
import time

from keyseg import cell
from keyseg.train import Trainer

_step = Trainer._train_step


def slow_step(self, *batch):
    _step(self, *batch)
    time.sleep(float(os.environ["STEP_SLEEP"]))


if __name__ == "__main__":
    Trainer._train_step = slow_step
    raise SystemExit(cell.main())
