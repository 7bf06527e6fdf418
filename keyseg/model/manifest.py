"""Which modules are trained: written for every run, and checked after its first step.

A module that is meant to train but never gets a gradient is silent otherwise: in one published
code base the ablated module was never trained (docs/fidelity.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from keyseg.model.backbones.encoders import Encoder

LORA = "LoRA (language model)"
TOKENS = "KEY and SEG rows"

_LORA = re.compile(r"\.lora_[AB]\..*$")
_TOKENS = re.compile(r"\.token_adapter\.trainable_tokens_delta\..*$")


class UntrainedModuleError(RuntimeError):
    """A module is trainable but the first step gave it no gradient."""


def leaf(name: str) -> str:
    """The module that owns a parameter; both LoRA factors belong to the layer they adapt.

    (The first LoRA factor has gradient 0 at the first step, since the second starts at 0.)
    """
    for pattern in (_LORA, _TOKENS):
        if pattern.search(name):
            return pattern.sub("", name)
    return name.rpartition(".")[0]


def room(name: str) -> str:
    """The row of the manifest that a parameter belongs to."""
    if _LORA.search(name):
        return LORA
    if _TOKENS.search(name):
        return TOKENS
    if name.startswith("vlm."):
        return "image projector" if "multi_modal_projector" in name else "language model"
    parts = name.split(".")
    if parts[0] == "mask_head":
        return ".".join(["mask_decoder", *parts[2:3]])
    depth = 2 if parts[0] == "fusion" else 1
    return ".".join(parts[:depth])


def manifest(model: nn.Module, encoders: Iterable[Encoder] = ()) -> list[dict[str, Any]]:
    """Rows `{module, parameters, trainable, note}`, in the model's order; trainable ones first.

    `encoders`: frozen ones outside the model; the last rows.
    """
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        key = (room(name), parameter.requires_grad)
        note = "" if parameter.requires_grad else "frozen on purpose"
        row = rows.setdefault(
            key, {"module": key[0], "parameters": 0, "trainable": key[1], "note": note}
        )
        row["parameters"] += parameter.numel()
    for encoder in encoders:
        row = {"module": encoder.title, "parameters": encoder.parameters, "trainable": False}
        rows[encoder.title, False] = row | {"note": "frozen on purpose"}
    return sorted(rows.values(), key=lambda row: not row["trainable"])


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def assert_trained(model: nn.Module) -> None:
    """Call after the first backward pass.

    Raises:
        UntrainedModuleError: names the trainable modules without gradient, the first three of many.
    """
    pulled: dict[str, bool] = {}
    for name, parameter in trainable(model).items():
        gradient = parameter.grad
        here = gradient is not None and bool(gradient.count_nonzero())
        pulled[leaf(name)] = pulled.get(leaf(name), False) or here
    still = [module for module, has in pulled.items() if not has]
    if still:
        more = f" and {len(still) - 3} more" if len(still) > 3 else ""
        raise UntrainedModuleError(
            f"no gradient after the first step in: {', '.join(still[:3])}{more}. The module is "
            "trainable but nothing that is trained depends on it: remove it, or freeze it"
        )


def gradient_norms(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """L2 norm of the gradient by row of the manifest, as 0-d tensors."""
    squares: dict[str, Any] = {}
    for name, parameter in trainable(model).items():
        if parameter.grad is not None:
            key = room(name)
            squares[key] = squares.get(key, 0) + parameter.grad.detach().float().square().sum()
    yield from ((key, value.sqrt()) for key, value in squares.items())
