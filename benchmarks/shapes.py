"""Operations and memory of a computation on tensors that have a shape and no content."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from torch.utils.weak import WeakIdKeyDictionary

CPU = torch.device("cpu")


class Cost(NamedTuple):
    """TFLOP: matrix products and convolutions, a multiplication and an addition each. peak: bytes
    that are allocated at most, above what was there before."""

    tflop: float
    peak: int


def cost(work: Callable[[], Any]) -> Cost:
    """Of a call, forward and backward."""
    gc.collect()
    with Count() as count:
        work()
    return Cost(count.operations / 1e12, count.most)


def _forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _backward(out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(out.shape, query.shape, key.shape, value.shape))


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # a CPU's fused attention, which keeps no scores, as torch counts that of a GPU
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}


class Count(TorchDispatchMode):
    """Operations of what runs inside, and bytes held by what is made there. `most`: at one time.

    torch's FlopCounterMode, without its hooks on modules, which keep tensors alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.held = self.most = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for given in _tensors((args, kwargs)):  # was there before, or is changed in place
            self._known.setdefault(given.untyped_storage(), None)
        made = function(*args, **kwargs)
        if (formula := _FORMULAS.get(function._overloadpacket)) is not None:
            self.operations += formula(*args, **kwargs, out_val=made)
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known[storage] = None
                self.held += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.most = max(self.most, self.held)
        return made

    def _free(self, count: int) -> None:
        self.held -= count


class Numbers(TorchDispatchMode):
    """Pixels stay pixels until they meet a weight without content: how many patches an image has,
    and where they are, decides on the shapes. Whether all of a picture is seen, asked of a tensor
    without content, is answered with yes."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = (args, kwargs or {})
        asked = function is torch.ops.aten._local_scalar_dense.default
        if asked and args[0].is_meta and args[0].dtype is torch.bool:
            return True
        if any(t.is_meta for t in _tensors(given)):
            given = tree_map_only(Tensor, lambda t: t.to("meta"), given)
        return function(*given[0], **given[1])


@contextmanager
def without_content(module: nn.Module) -> Iterator[None]:
    """Inside, a module of the meta device works as one on a CPU does: under autocast, with fused
    attention. It stays so; tensors that are made inside have no content either."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    convert = mode.fake_tensor_converter.from_meta_and_device
    made: dict[int, Tensor] = {}  # a table that is tied stays one
    for part in module.modules():
        for owned in (part._parameters, part._buffers):
            for name, tensor in owned.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake: Tensor = convert(mode, tensor.detach(), CPU)
                    trained = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if trained else fake
                owned[name] = made[id(tensor)]  # type: ignore[assignment]
    with mode:
        yield


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
