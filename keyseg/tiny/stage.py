"""One stage of pre-training: a loop that can be killed at any moment and goes on where it was."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

StepFunction = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]
"""Draw a batch with the generator; return the loss and what to log."""

SAVE_SECONDS = 60.0


def run_stage(
    name: str,
    folder: Path,
    modules: Iterable[nn.Module],
    step: StepFunction,
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    warmup: int = 100,
    seed: int = 0,
    log_every: int = 25,
) -> None:
    """Train the modules for `steps`; the batch of step n depends on (seed, n) alone."""
    model = nn.ModuleList(modules)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    checkpoint = folder / f"{name}.pt"
    done, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done, spent = state["step"], state["seconds"]

    def save() -> None:
        temporary = checkpoint.with_suffix(".tmp")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "step": done, "seconds": spent}, temporary)
        temporary.replace(checkpoint)

    started = last_save = time.monotonic()
    model.train()
    sums: dict[str, float] = {}
    while done < steps:
        done += 1
        rate = min(1.0, done / warmup) * 0.5 * (1 + math.cos(math.pi * done / steps)) + 0.01
        for group in optimizer.param_groups:
            group["lr"] = lr * rate
        loss, facts = step(np.random.default_rng([seed, done]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for key, value in facts.items():
            sums[key] = sums.get(key, 0.0) + value
        now = time.monotonic()
        if done % log_every == 0 or done == steps:
            row = {k: round(v / log_every, 4) for k, v in sums.items()}
            seconds = round(spent + now - started, 1)
            line = json.dumps({"stage": name, "step": done, "of": steps, "s": seconds, **row})
            print(line, flush=True)
            with (folder / "log.jsonl").open("a") as log:
                log.write(line + "\n")
            sums = {}
        if now - last_save > SAVE_SECONDS or done == steps:
            spent, started, last_save = spent + now - started, now, now
            save()
    model.eval()
