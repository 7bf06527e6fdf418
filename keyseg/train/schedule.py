"""The learning rate over a training, as a factor on all rates."""

from __future__ import annotations

import math

from keyseg.config import OptimConfig


def learning_rate(step: int, cfg: OptimConfig, end: int | None = None) -> float:
    """The factor at a step (1-based): linear warm-up, then the schedule towards 0.

    `end`: the last step, where it is another than the config's (`optim.until`).
    """
    end = cfg.steps if end is None else end
    if step <= cfg.warmup:
        return step / cfg.warmup
    if cfg.schedule == "wsd":
        start = decay_start(cfg, end)
        return 1.0 if step <= start else (end - step + 1) / (end - start + 1)
    done = (step - cfg.warmup) / max(1, end - cfg.warmup)
    if cfg.schedule == "linear":
        return 1 - done
    if cfg.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def decay_start(cfg: OptimConfig, end: int) -> int:
    """Of `wsd`: the last step at the constant rate, where trainings of other lengths branch off."""
    return end - round(cfg.decay * end)


def end_after(step: int, cfg: OptimConfig) -> int:
    """The last step of a training whose decay begins after `step`; no more than the config's."""
    if cfg.schedule != "wsd" or not cfg.decay:
        return min(step, cfg.steps)
    return min(step + max(1, round(step * cfg.decay / (1 - cfg.decay))), cfg.steps)
