"""What is checked before a job starts: weights are there, data can be read.

Loads no torch, and nothing of numpy before data is read: every command line imports this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from keyseg.config import RunConfig, resolve_path
from keyseg.model.backbones.weights import check_weights


def check(configs: Iterable[RunConfig]) -> None:
    """Make the data if the config says how, read every split once, look for the weights.

    Raises:
        ConfigError: a weights file is missing; the message names the key to set.
        DataError: what a reader finds wrong.
    """
    from keyseg.data import identity, mix

    seen = set()
    for cfg in configs:
        key = json.dumps([cfg.data, cfg.model.llava, cfg.model.sam], sort_keys=True)
        if key not in seen:
            seen.add(key)
            check_weights(cfg)
            mix.prepare(cfg.data)
            splits = mix.load_splits(cfg.data)
            found = mix.fingerprint([source for split in splits for source in split])
            identity.remember(cfg.data, resolve_path(cfg.paths.data), found)
