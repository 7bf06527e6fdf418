"""What is checked before a job starts: models can be built, weights are there, data can be read.

Loads nothing of numpy before it is asked for: every command line imports this.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from keyseg.config import ConfigError, RunConfig, resolve_path
from keyseg.model.backbones.weights import check_weights
from keyseg.sweep import buildable


def check(configs: Sequence[RunConfig]) -> None:
    """Make the data if the config says how, read every split once, look for the weights.

    Raises:
        ConfigError: something cannot be built, or a weights file is missing; the message names the
            key to set.
        DataError: what a reader finds wrong.
    """
    from keyseg.data import identity, mix

    buildable.check(configs)
    seen = set()
    for cfg in configs:
        key = json.dumps([cfg.data, cfg.model.llava, cfg.model.sam], sort_keys=True)
        if key not in seen:
            seen.add(key)
            check_weights(cfg)
            mix.prepare(cfg.data)
            splits = mix.load_splits(cfg.data)
            fingerprint = mix.fingerprint([source for split in splits for source in split])
            identity.remember(cfg.data, resolve_path(cfg.paths.data), fingerprint)


def missing(configs: Sequence[RunConfig]) -> list[str]:
    """What weights and data are not there, a line each. Nothing is made or written.

    Raises:
        ConfigError: something cannot be built. DataError: a reader cannot be called.
    """
    from keyseg.data import mix
    from keyseg.data.files import DataError

    buildable.check(configs)
    lines: dict[str, None] = {}
    for cfg in configs:
        try:
            check_weights(cfg)
        except ConfigError as error:
            lines[str(error)] = None
    data = {json.dumps(cfg.data, sort_keys=True): cfg for cfg in configs}
    for cfg in data.values():
        mix.check_readers(cfg.data)
        if cfg.data.get("prepare") and not Path(resolve_path(str(cfg.data["root"]))).exists():
            continue  # is made at the start
        try:
            mix.load_splits(cfg.data)
        except (DataError, ConfigError) as error:
            lines[str(error)] = None
    return list(lines)
