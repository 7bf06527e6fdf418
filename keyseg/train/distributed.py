"""Who takes part in a run: one process, or one for each GPU, and how their results come together.

`joined` meets those that torchrun, `accelerate launch` or `srun` started. A process alone asks
nobody and waits for nobody: every call below then returns what it was given.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from keyseg.runs import process_rank

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up."""

_OLD_NAME = "broadcast_buffers"
"""Of DDP's `forward_sync_buffers`, before torch 2.14."""


@dataclass(frozen=True)
class Processes:
    """The processes of one run. All of them make the same calls in the same order."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def device(self, wanted: torch.device) -> torch.device:
        """The device itself; of several GPUs that of this process."""
        if self.count == 1 or wanted.type != "cuda":
            return wanted
        return torch.device("cuda", torch.cuda.current_device())

    def parts(self, total: int, each: int) -> list[range]:
        """This process's positions of `total`, cut in `each` parts; all parts are of like size."""
        parts = self.count * each
        mine = range(self.rank * each, (self.rank + 1) * each)
        return [range(k * total // parts, (k + 1) * total // parts) for k in mine]

    def led(self, do: Callable[[], T]) -> T:
        """What the first process's `do` returns or raises; it is called in no other."""
        if self.count == 1:
            return do()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = do()
            except Exception as error:
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of the processes."""
        return self.sum([flag])[0] > 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes. No GPU waits for it."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def add_up(self, values: Tensor) -> Tensor:
        """The same of a tensor, where it is."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, mine: Iterable[T]) -> list[T]:
        """The items of all processes, on all of them, in the order of the processes."""
        items = list(mine)
        return items if self.count == 1 else gather_object(items)

    def parallel(self, model: nn.Module, sharding: str, layers: Iterable[nn.Module]) -> nn.Module:
        """What to call in training instead of the model: gradients come out averaged.

        Args:
            model: the same in all processes. With sharding its parameters become DTensors: make
                the optimiser afterwards.
            sharding: "none" (DDP: each process holds the model) or "fsdp" (each holds its share).
            layers: with sharding they are put together one at a time, where they are needed.
        """
        if self.count == 1:
            return model
        device = next(model.parameters()).device
        if sharding == "none":
            # Every micro-batch reaches every trained parameter; buffers are constants.
            known = inspect.signature(DistributedDataParallel).parameters
            name = "forward_sync_buffers" if "forward_sync_buffers" in known else _OLD_NAME
            still: dict[str, Any] = {name: False}
            return DistributedDataParallel(model, gradient_as_bucket_view=True, **still)
        mesh = init_device_mesh(device.type, (self.count,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert isinstance(model, FSDPModule)
        model._get_fsdp_state()._lazy_init()  # else the first module to be called is the root
        # nothing is done in place to what the model returns
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        return model


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the other processes of this run, if there are any."""
    os.environ.update(process_rank.from_srun())
    if process_rank.count() == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        # srun may show each process its own GPU only
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        os.environ["LOCAL_RANK"] = str(local)
        # numbers on the host are added up there: the GPUs go on meanwhile
        state = PartialState(backend="cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
        state = PartialState(cpu=True, timeout=_PATIENCE)
    yield Processes(state.process_index, state.num_processes)
    # not after an error: others may be gone, or still at work and waiting for this one
    state.destroy_process_group()


def accumulating(model: nn.Module, more: bool) -> AbstractContextManager[None]:
    """Around a forward and its backward pass; with `more` to come, gradients stay in the process.

    Args:
        model: what `Processes.parallel` returned.
        more: whether this is not the last micro-batch of a step.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not more)
    elif isinstance(model, DistributedDataParallel) and more:
        return model.no_sync()
    return nullcontext()


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Hold the whole model in each process, so that each may work at a pace of its own."""
    shards = [m for m in model.modules() if isinstance(m, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor; each process may hold a shard of it only."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, and sharded over the processes if that is."""
    tensor = tensor.to(like.device)
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    return tensor
