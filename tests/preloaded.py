"""What the server of tests/forked.py has loaded before it forks: what workers and sweeps import.

No launcher: Hydra executes the files of its own plugins once more when it looks for plugins, and a
class that was made before would have a base that is none any more.
"""

import hydra  # noqa: F401
import torch

import keyseg.report.assemble
import keyseg.sweep.compose
import keyseg.sweep.finish
import keyseg.sweep.preflight
import keyseg.sweep.progress
import keyseg.sweep.supervise  # noqa: F401
from keyseg.worker import cell

cell.load([])
torch.set_num_threads(1)  # threads of a pool do not survive a fork
