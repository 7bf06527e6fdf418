"""What is checked before a job starts: parts can be made, weights are there, data can be read.

Loads no torch, and nothing of numpy before data is read: every command line imports this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from keyseg.config import RunConfig, resolve_path
from keyseg.model.backbones.weights import check_weights
from keyseg.worker import parts


def check(configs: Iterable[RunConfig]) -> None:
    """Make the data if the config says how, read every split once, look for the weights.

    Meanwhile what the configs name is made once (`parts`).

    Raises:
        ConfigError: a weights file is missing, or a part cannot be made (as a variant that reads
            KEY where answers hold none); the message names the key to set.
        DataError: what a reader finds wrong.
    """
    from keyseg.data import identity, mix

    every = list(configs)
    made = parts.check(every, remember=True)
    seen = set()
    for cfg in every:
        key = json.dumps([cfg.data, cfg.model.llava, cfg.model.sam], sort_keys=True)
        if key not in seen:
            seen.add(key)
            check_weights(cfg)
            mix.prepare(cfg.data)
            splits = mix.load_splits(cfg.data)
            fingerprint = mix.fingerprint([source for split in splits for source in split])
            identity.remember(cfg.data, resolve_path(cfg.paths.data), fingerprint)
    made()


def check_names(configs: Iterable[RunConfig]) -> None:
    """What can be checked where nothing may be written or read at length: names and arguments.

    Raises:
        ConfigError: a part cannot be made. DataError: a reader cannot be called.
    """
    from keyseg.data import mix

    every = list(configs)
    made = parts.check(every)
    for data in {json.dumps(cfg.data, sort_keys=True): cfg.data for cfg in every}.values():
        mix.check_readers(data)
    made()
