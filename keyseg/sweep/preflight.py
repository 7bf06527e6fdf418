"""What is checked before a job starts: weights are there, data can be read, variants have a KEY.

Loads nothing of numpy before data is read, and torch only for runs without KEY: every command line
imports this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from keyseg.config import RunConfig, resolve_path
from keyseg.model.backbones.weights import check_weights

_CHANNELS = 256
"""Of SAM's prompts, at its public sizes."""


def check(configs: Iterable[RunConfig]) -> None:
    """Make the data if the config says how, read every split once, look for the weights.

    Raises:
        ConfigError: a weights file is missing, or a variant reads KEY where answers hold none; the
            message names the key to set.
        DataError: what a reader finds wrong.
    """
    from keyseg.data import identity, mix

    seen = set()
    for cfg in configs:
        if not cfg.model.tokens.n_keys:
            _check_reads_no_key(cfg)
        key = json.dumps([cfg.data, cfg.model.llava, cfg.model.sam], sort_keys=True)
        if key not in seen:
            seen.add(key)
            check_weights(cfg)
            mix.prepare(cfg.data)
            splits = mix.load_splits(cfg.data)
            fingerprint = mix.fingerprint([source for split in splits for source in split])
            identity.remember(cfg.data, resolve_path(cfg.paths.data), fingerprint)


def _check_reads_no_key(cfg: RunConfig) -> None:
    """What a variant reads, its class says; no memory is taken to ask it."""
    import torch

    from keyseg.train.build import build_fusion

    with torch.device("meta"):
        build_fusion(cfg, dim=_CHANNELS)
