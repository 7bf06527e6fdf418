"""What the server of tests/forked.py has loaded before it forks: all that a worker imports."""

import torch

from keyseg.worker import cell

cell.load([])
torch.set_num_threads(1)  # threads of a pool do not survive a fork
